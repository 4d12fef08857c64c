"""The Walsh-Hadamard transform against its definition, and the contract's keys: each fault is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritpack.formats.errors import TritpackError, Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hadamard import PREFIX, Rotation, rotation_of, walsh_hadamard

SHAPES = {"token_embd.weight": (8, 8), "output.weight": (8, 8), "blk.0.ffn_up.weight": (12, 8),
          "blk.0.ffn_down.weight": (8, 12), "blk.1.ffn_up.weight": (12, 8), "output_norm.weight": (8,),
          "blk.0.ssm_beta.weight": (2, 8)}  # fmt: skip
SIGNS = [1, -1, -1, 1, 1, 1, -1, 1] + [-1, 1] * 6
KEYS: dict[str, Any] = {
    "version": 1, "block_size": 4, "transform": "normalized-sylvester-walsh-hadamard", "axis": "input-last-dimension",
    "sign_mode": "explicit", "sign_widths": [8, 12], "sign_values": SIGNS,
    "weight_names": ["output.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"],
    "inverse_weight_names": ["token_embd.weight"], "gdn_v_grouped": True,
}  # fmt: skip
MISSING = object()


def read(changed: dict[str, Any], architecture: str = "qwen35") -> Rotation | None:
    pairs = {key: value for key, value in {**KEYS, **changed}.items() if value is not MISSING}
    return rotation_of({f"{PREFIX}{key}": value for key, value in pairs.items()}, SHAPES, architecture)


def matrix(block: int) -> np.ndarray:
    """The definition: (-1) ** popcount(i & j) / sqrt(block)."""
    return np.array([[(-1) ** bin(i & j).count("1") for j in range(block)] for i in range(block)]) / np.sqrt(block)


@pytest.mark.parametrize("block", [2, 4, 128, 512])
def test_the_transform_is_its_definition(block: int) -> None:
    x = np.random.default_rng(block).standard_normal((3, 2, 2 * block)).astype(np.float32)
    expected = (x.reshape(3, 2, 2, block).astype(np.float64) @ matrix(block)).reshape(x.shape)
    found = walsh_hadamard(x, block)
    assert found.dtype == np.float32 and np.abs(found - expected).max() < 2e-6
    assert np.abs(walsh_hadamard(found, block) - x).max() < 2e-6


def test_the_factor_is_applied_once_and_last() -> None:
    integers = np.random.default_rng(0).integers(-999, 999, 1024).astype(np.float32)
    assert np.array_equal(walsh_hadamard(walsh_hadamard(integers, 1024), 1024), integers), "1/32 is exact"
    assert walsh_hadamard(np.ones(512, np.float32), 512)[0] == np.float32(512) * np.float32(1 / np.sqrt(512))


def test_signs_come_first_on_the_way_in_and_last_on_the_way_back() -> None:
    rotation = read({})
    assert rotation is not None
    x = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
    h, s = np.kron(np.eye(2), matrix(4)), np.array(SIGNS[:8])
    assert np.abs(rotation.forward(x) - (x * s) @ h).max() < 1e-6
    assert np.abs(rotation.inverse(x) - (x @ h) * s).max() < 1e-6
    assert np.abs(rotation.inverse(rotation.forward(x)) - x).max() < 1e-6
    assert str(rotation) == "signed Walsh-Hadamard, block 4, 2 widths, 3 matrices and the embedding"


def test_keys_that_may_be_absent() -> None:
    plain = read(dict.fromkeys(("inverse_weight_names", "gdn_v_grouped"), MISSING))
    assert plain is not None and not plain.tables and plain.grouped_heads is False
    unsigned = read({"sign_mode": "identity", "sign_widths": MISSING, "sign_values": MISSING})
    assert unsigned is not None and not unsigned.signs and "no signs" in str(unsigned)
    x = np.arange(8, dtype=np.float32)[None]
    assert np.array_equal(unsigned.forward(x), unsigned.inverse(x))
    assert rotation_of({"general.name": "a"}, SHAPES, "llama") is None
    floats = read({"sign_values": [float(sign) for sign in SIGNS]})
    assert floats is not None and np.array_equal(floats.signs[12], SIGNS[8:])


def test_a_matrix_that_should_be_named() -> None:
    rotation = read({"inverse_weight_names": []})
    assert rotation is not None
    assert rotation.unnamed(SHAPES) == ["blk.1.ffn_up.weight", "token_embd.weight"]


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"version": 2}, Unsupported, "version is 2"),
        ({"version": True}, Unsupported, "version is True"),
        ({"version": np.array([1, 2])}, Unsupported, "version is array"),
        ({"sign_mode": np.array([1, 2])}, Unsupported, "sign_mode is array"),
        ({"sign_mode": "identity", "sign_widths": 8}, Unreadable, "sign_widths is there, but"),
        ({"sign_mode": "identity", "sign_widths": None}, Unreadable, "sign_widths is there, but"),
        ({"transform": "dct"}, Unsupported, "transform is 'dct'"),
        ({"axis": "output"}, Unsupported, "axis is 'output'"),
        ({"sign_mode": "random"}, Unsupported, "sign_mode is 'random'"),
        ({"seed": 7}, Unsupported, "seed is not known"),
        *(({key: MISSING}, Unreadable, f"{key} is missing") for key in list(KEYS)[:5]),
        ({"weight_names": MISSING}, Unreadable, "weight_names is missing"),
        ({"block_size": 0}, Unreadable, "block_size is 0"),
        ({"block_size": 6}, Unreadable, "block_size is 6"),
        ({"block_size": True}, Unreadable, "block_size is True"),
        ({"block_size": 8}, Unreadable, "block_size is 8, which does not divide 12"),
        ({"sign_widths": [8], "sign_values": SIGNS[:8]}, Unreadable, "sign_widths has no signs for its width 12"),
        ({"sign_widths": [8, 8], "sign_values": SIGNS[:16]}, Unreadable, "expected different widths"),
        ({"sign_widths": [8, -12]}, Unreadable, "expected different widths"),
        ({"sign_widths": MISSING}, Unreadable, "sign_widths is missing"),
        ({"sign_values": SIGNS[1:]}, Unreadable, "has 19 values, expected 20"),
        ({"sign_values": [0, *SIGNS[1:]]}, Unreadable, "sign_values holds another value"),
        ({"sign_values": [0.5, *SIGNS[1:]]}, Unreadable, "sign_values holds a number that is not"),
        ({"sign_values": "text"}, Unreadable, "sign_values is missing or not a list"),
        ({"sign_mode": "identity"}, Unreadable, "sign_widths is there, but"),
        ({"weight_names": ["blk.9.ffn_up.weight"]}, Unreadable, "which is no matrix of the file"),
        ({"weight_names": ["output.weight"] * 2}, Unreadable, "names a tensor twice"),
        ({"weight_names": "output.weight"}, Unreadable, "expected names of tensors"),
        ({"weight_names": ["blk.0.ssm_beta.weight"]}, Unsupported, "which no graph here rotates"),
        ({"weight_names": ["token_embd.weight"]}, Unsupported, "which no graph here rotates"),
        ({"inverse_weight_names": ["output.weight"]}, Unsupported, "which no graph here rotates"),
        ({"gdn_v_grouped": 1}, Unreadable, "gdn_v_grouped is 1"),
    ],
)  # fmt: skip
def test_what_is_outside_the_contract(changed: dict[str, Any], kind: type[TritpackError], said: str) -> None:
    with pytest.raises(kind) as caught:
        read(changed)
    assert said in str(caught.value) and PREFIX in str(caught.value)


def test_an_architecture_without_the_transform() -> None:
    with pytest.raises(Unsupported, match="'llama' has no rotation here"):
        read({}, "llama")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bonsai2_rotated_gguf/model-PQ2_0.gguf", "block 128, 2 widths, 26 matrices and the embedding"),
        ("bonsai2_rotated_gguf_rep3/model.gguf", "block 128, 3 widths, 26 matrices and the embedding"),
    ],
)
def test_files_as_the_vendor_writes_them(shared: Path, name: str, said: str) -> None:
    file = GgufFile(shared / "checkpoints" / name)
    rotation = rotation_of(file.metadata, {t.name: t.shape for t in file.tensors.values()}, "qwen35")
    assert rotation is not None and str(rotation) == f"signed Walsh-Hadamard, {said}" and rotation.grouped_heads

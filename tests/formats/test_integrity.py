"""What files record of their own tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import DEMO
from tests.make.checkpoints import edited_checkpoint, edited_gguf, read_safetensors, write_safetensors
from tritpack.converter.convert import convert
from tritpack.converter.merge import merge
from tritpack.converter.repack import repack
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile, ReadOptions
from tritpack.formats.integrity import BYTES_KEY, CODES_KEY, KEYS, TENSORS_KEY, TensorHashes, recorded_hashes

SILU = {"hidden_act": "silu"}


def hashes_by_hand(file: GgufFile) -> dict[str, TensorHashes]:
    """The hashes of all tensors, each decoded as a whole."""
    hashes = {}
    for name, tensor in file.tensors.items():
        ternary = file.ternary(tensor)
        codes = "" if ternary is None else hashlib.sha256(ternary.codes.tobytes()).hexdigest()
        hashes[name] = TensorHashes(hashlib.sha256(file.bytes_of(tensor).tobytes()).hexdigest(), codes)
    return hashes


@pytest.mark.parametrize("outtype", ["i2_s", "t158", "tl2", "tq1_0", "iq2_bn_r4"])
def test_converted_and_repacked_files_record_their_tensors(outtype: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"outtype": outtype, "allow_scale_rounding": True}
    convert(DEMO / "checkpoint", path := tmp_path / "x.gguf", **asked)
    file = GgufFile(path)
    recorded = recorded_hashes(file)
    assert recorded == hashes_by_hand(file) and list(recorded) == list(file.tensors)
    assert list(file.metadata)[-3:] == list(KEYS)
    repack(path, again := tmp_path / "y.gguf", outtype="t2", embedding_type="q8_0")
    repacked = recorded_hashes(GgufFile(again))
    assert repacked == hashes_by_hand(GgufFile(again))
    assert [each.codes_sha256 for each in repacked.values()] == [each.codes_sha256 for each in recorded.values()]
    assert all(each.sha256 != recorded[name].sha256 for name, each in repacked.items() if each.codes_sha256)


def test_scales_apart_are_tensors_too(tmp_path: Path) -> None:
    silu = edited_checkpoint(DEMO / "checkpoint", tmp_path / "silu", config=lambda config: config.update(SILU))
    table = read_safetensors(silu / "model.safetensors")
    table |= {name: ("F32", [1], np.float32(1 / 3).tobytes()) for name in table if name.endswith("weight_scale")}
    write_safetensors(silu / "model.safetensors", table)
    convert(silu, path := tmp_path / "x.gguf", target="llama.cpp")
    recorded = recorded_hashes(GgufFile(path))
    assert "blk.0.attn_q.scale" in recorded and recorded == hashes_by_hand(GgufFile(path))


def test_the_first_file_of_a_set_has_the_record_of_all(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    parts = convert(tiny_checkpoint, tmp_path / "x.gguf", split_max_tensors=7).files
    recorded = recorded_hashes(GgufFile(parts[0]))
    assert recorded == recorded_hashes(GgufFile(tiny_gguf)) == hashes_by_hand(GgufFile(tiny_gguf))
    assert recorded_hashes(GgufFile(parts[1], ReadOptions(any_part=True))) == {}
    merge(parts[0], tmp_path / "merged.gguf")
    assert recorded_hashes(GgufFile(tmp_path / "merged.gguf")) == recorded


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata.update({key: value(list(metadata[key]))})


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a key is missing": (lambda metadata: metadata.pop(CODES_KEY), f"{CODES_KEY} is missing or not an array"),
    "a number": (change(BYTES_KEY, lambda old: 7), f"{BYTES_KEY} is missing or not an array of strings"),
    "a text": (change(BYTES_KEY, lambda old: "0" * 64), f"{BYTES_KEY} is missing or not an array of strings"),
    "too few": (change(BYTES_KEY, lambda old: old[1:]), "not parallel arrays over tensors"),
    "a name twice": (change(TENSORS_KEY, lambda old: [old[1], *old[1:]]), "not parallel arrays over tensors"),
    "no hash": (change(BYTES_KEY, lambda old: ["", *old[1:]]), f"{BYTES_KEY} has '', expected a SHA-256"),
    "capitals": (change(CODES_KEY, lambda old: ["A" * 64, *old[1:]]), f"{CODES_KEY} has 'AAAA"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_records_that_make_no_sense(case: str, tiny_gguf: Path, tmp_path: Path) -> None:
    edit, words = BROKEN[case]
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=edit)
    with pytest.raises(Unreadable, match=r"a\.gguf: ") as error:
        recorded_hashes(GgufFile(path))
    assert words in str(error.value)


def test_a_file_without_the_keys_has_no_record(tiny_gguf: Path, tmp_path: Path) -> None:
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=lambda metadata: [metadata.pop(key) for key in KEYS])
    assert recorded_hashes(GgufFile(path)) == {}

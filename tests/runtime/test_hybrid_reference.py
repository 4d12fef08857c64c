"""The Qwen3.5 hybrid in numpy: its parts by their definitions, files in every basis, and answers of transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.make.hybrid import SPEC, TIED, Arrays, rotation_for, write_hybrid
from tritpack.converter.verify.oracle.hybrid import HybridOracle
from tritpack.converter.verify.oracle.hybrid_packed import HybridPacked
from tritpack.formats.errors import TritpackError, Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_metadata import from_gguf, to_metadata
from tritpack.formats.model_spec import ModelSpec
from tritpack.runtime.hybrid_reference import causal_convolution, delta_rule, forward, partial_rope

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
TOLERANCE = 5e-5
"""Of the largest logit, from a float64 recurrence: spec/bonsai2.md. Wrong readings are 0.05 and more away."""


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("bonsai2_rotated_gguf", "model-PQ2_0.gguf"), ("bonsai2_rotated_gguf_rep3", "model.gguf"),
        ("bonsai_hybrid_unpacked", ""), ("bonsai_hybrid_vl_unpacked", ""), ("bonsai2_rotated_mlx", ""),
    ],
)  # fmt: skip
def test_the_answers_of_transformers(shared: Path, name: str, file: str) -> None:
    folder = shared / "checkpoints" / name
    model = HybridPacked(folder / file) if file else HybridOracle(folder)
    answers = load_file(folder / "reference.safetensors")
    for prompt in ("", "long_"):
        if f"{prompt}exact_logits" in answers:
            logits = model.logits([answers[f"{prompt}input_ids"].reshape(-1).tolist()])[0]
            exact = answers[f"{prompt}exact_logits"].reshape(logits.shape)
            assert deviation(logits, exact) < TOLERANCE, prompt or "short"


@pytest.mark.parametrize("spec", [SPEC, TIED], ids=["untied", "tied"])
def test_files_in_every_basis(tmp_path: Path, spec: ModelSpec) -> None:
    arrays = Arrays(spec)
    expected = forward(spec, arrays, TOKENS)
    rotations = {
        "plain": None,
        "grouped": rotation_for(spec, 16),
        "tiled": rotation_for(spec, 8, grouped=False),
        "no signs": rotation_for(spec, 16, signed=False),
    }
    for label, rotation in rotations.items():
        found = HybridPacked(write_hybrid(tmp_path / f"{label}.gguf", arrays, rotation)).logits([TOKENS])[0]
        assert deviation(found, expected) < TOLERANCE, label


@pytest.mark.parametrize(
    "changed",
    [
        {"prism.hadamard.gdn_v_grouped": False}, {"prism.hadamard.block_size": 8},
        {"prism.hadamard.inverse_weight_names": []}, {"prism.hadamard.sign_values": np.ones(32 + 48 + 64, np.int32)},
        {"qwen35.rope.dimension_count": 16}, {"qwen35.rope.freq_base": 10.0},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_a_wrong_reading_shows(tmp_path: Path, changed: dict[str, Any]) -> None:
    arrays = Arrays()
    path = write_hybrid(tmp_path / "m.gguf", arrays, rotation_for(SPEC, 16), **changed)
    assert deviation(HybridPacked(path).logits([TOKENS])[0], forward(SPEC, arrays, TOKENS)) > 1e-2


def test_the_delta_rule_by_its_definition_and_in_two_parts() -> None:
    rng = np.random.default_rng(2)
    q, k, v = (rng.standard_normal((7, 3, 4)).astype(np.float32) for _ in range(3))
    beta, decay = rng.random((2, 7, 3)).astype(np.float32)
    state, exact = np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4))
    out = delta_rule(q, k, v, beta, -decay, state)
    for token in range(7):
        for head in range(3):
            s = np.exp(-np.float64(decay[token, head])) * exact[head]
            s += np.outer(k[token, head], beta[token, head] * (v[token, head] - s.T @ k[token, head]))
            exact[head] = s
            assert np.abs(s.T @ q[token, head] - out[token, head]).max() < 1e-4, (token, head)
    parts = np.zeros((3, 4, 4), np.float32)
    halves = [delta_rule(*(x[span] for x in (q, k, v, beta, -decay)), parts) for span in (slice(3), slice(3, 7))]
    assert np.array_equal(np.concatenate(halves), out) and np.array_equal(parts, state)


def test_the_convolution_sees_the_present_last() -> None:
    x = np.array([[1], [10], [100], [1000]], np.float32)
    assert causal_convolution(x, np.array([[2, 3, 5, 7]], np.float32)).ravel().tolist() == [7, 75, 753, 7532]


def test_rope_turns_a_part_of_each_head() -> None:
    x = np.random.default_rng(3).standard_normal((5, 2, 16)).astype(np.float32)
    turned = partial_rope(SPEC, x)
    assert np.array_equal(turned[0], x[0]) and np.array_equal(turned[..., 4:], x[..., 4:])
    angle = 3 * 1e7**-0.5  # position 3, pair 1 of 2: values 1 and 3
    expected = x[3, :, 1] * np.cos(angle) - x[3, :, 3] * np.sin(angle)
    assert np.abs(turned[3, :, 1] - expected).max() < 1e-6


def test_layers_for_further_tokens_are_left_out(tmp_path: Path) -> None:
    keys = {"qwen35.block_count": 5, "qwen35.nextn_predict_layers": 1}
    path = write_hybrid(tmp_path / "m.gguf", Arrays(), **keys)
    assert from_gguf(GgufFile(path)).layers == 4


def test_a_layer_of_the_model_is_not_left_out(tmp_path: Path) -> None:
    path = write_hybrid(tmp_path / "m.gguf", Arrays(), **{"qwen35.nextn_predict_layers": 1})
    with pytest.raises(Unreadable, match=r"layer 3 predicts further tokens, and no tensor blk\.3\.nextn"):
        from_gguf(GgufFile(path))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("embedding_scale", {"embedding_scale": 2.0}),
        ("residual_scale", {"residual_scale": 0.5}),
        ("logit_scale", {"logit_scale": 0.5}),
        ("attention_scale", {"attention.scale": 0.5}),
        ("sliding_layers", {"attention.sliding_window": 2, "attention.sliding_window_pattern": 2}),
        ("rope_scaling", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
                          "rope.scaling.original_context_length": 64}),
    ],
)  # fmt: skip
def test_what_no_hybrid_has_is_refused(tmp_path: Path, name: str, keys: dict[str, Any]) -> None:
    """The C graph would do these, and no other engine, nor the reference, does them with a hybrid."""
    path = write_hybrid(tmp_path / "m.gguf", Arrays(), **{f"qwen35.{key}": value for key, value in keys.items()})
    with pytest.raises(Unsupported, match=f"hybrid and has {name}"):
        from_gguf(GgufFile(path))


@pytest.mark.parametrize("name", ["plain", "rotated", "irregular"])
def test_the_keys_are_written_as_they_are_read(tmp_path: Path, name: str) -> None:
    assert SPEC.delta_net is not None
    net = dataclasses.replace(SPEC.delta_net, recurrent=(True, False, False, True))
    arrays = Arrays(dataclasses.replace(SPEC, delta_net=net) if name == "irregular" else SPEC)
    flags = {"qwen35.attention.recurrent_layers": np.array(net.recurrent)} if name == "irregular" else {}
    rotation = rotation_for(SPEC, 16) if name == "rotated" else None
    path = write_hybrid(tmp_path / "m.gguf", arrays, rotation, **flags)
    spec = from_gguf(GgufFile(path))
    assert spec == dataclasses.replace(arrays.spec, rotation=rotation)
    written = write_hybrid(tmp_path / "n.gguf", arrays, rotation, **{**flags, **to_metadata(spec)})
    assert from_gguf(GgufFile(written)) == spec


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"general.architecture": "llama"}, Unreadable, "llama.attention.head_count is missing"),
        ({"qwen35.ssm.group_count": 4}, Unreadable, "a multiple of key_heads 4"),
        ({"qwen35.ssm.inner_size": 32}, Unsupported, "ssm.inner_size"),
        ({"qwen35.attention.value_length": 8}, Unsupported, "value_length differ"),
        ({"qwen35.rope.dimension_count": 18}, Unreadable, "rotary_dim is 18"),
        ({"qwen35.block_count": 9}, Unreadable, "is missing"),
        ({"qwen35.block_count": 1 << 30}, Unreadable, "tensors"),
        ({"qwen35.embedding_length": "a"}, Unreadable, "embedding_length is 'a'"),
        ({"qwen35.feed_forward_length": 64}, Unreadable, "expected [64, 32]"),
        ({"qwen35.attention.recurrent_layers": np.array([1, 1], np.int32)}, Unreadable, "2 flags for 4 layers"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_files_that_make_no_sense(
    tmp_path: Path, changed: dict[str, Any], kind: type[TritpackError], said: str
) -> None:
    path = write_hybrid(tmp_path / "m.gguf", Arrays(), **changed)
    with pytest.raises(kind) as caught:
        HybridPacked(path)
    assert said in str(caught.value)

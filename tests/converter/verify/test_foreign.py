"""Files that another tool wrote of the same model: what they cannot say, how they round and what their engine always
does accuses nobody; what is wrong in them is found all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.converter.verify.reports import findings, kinds
from tests.make.checkpoints import edited_gguf
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.verify.compare.foreign import allowed_distance, is_habit_of_types
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.formats import float_types
from tritpack.formats.gguf_reader import GgufFile

Arrays = dict[str, np.ndarray]
TABLES = ("token_embd.weight", "output.weight")


def other_q8_0(values: np.ndarray) -> np.ndarray:
    """Scales that reach a step beyond the largest value, and codes that are cut off instead of rounded."""
    x = values.reshape(-1, 32)
    d = (np.abs(x).max(-1, keepdims=True) / 126).astype(np.float16)
    codes = np.trunc(x / np.maximum(d.astype(np.float32), 1e-12)).astype(np.int8)
    return np.concatenate([d.view(np.uint8).reshape(-1, 2), codes.view(np.uint8)], 1).reshape(-1)


def other_q6_k(values: np.ndarray) -> np.ndarray:
    """Each sub-block's scale from its largest value, without a search."""
    x = values.reshape(-1, 16, 16)
    ideal = np.abs(x).max(-1) / 31
    d = (ideal.max(-1) / 127).astype(np.float16)
    scales = np.clip(np.rint(ideal / d.astype(np.float32)[:, None]), 1, 127)
    step = d.astype(np.float32)[:, None] * scales
    q = (np.clip(np.rint(x / step[..., None]), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = q & 15, q >> 4
    low_bits = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, 128)
    high_bits = (high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6).reshape(-1, 64)
    parts = [low_bits, high_bits, scales.astype(np.int8).view(np.uint8), d.view(np.uint8).reshape(-1, 2)]
    return np.concatenate(parts, 1).reshape(-1)


def other_q4_k(values: np.ndarray) -> np.ndarray:
    """Ours with the codes of another choice of scales: those of values that are a little larger."""
    return float_types.encode("q4_k", values * np.float32(1.01))


def cut_bf16(values: np.ndarray) -> np.ndarray:
    """Truncated, as older tools do."""
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(-1)


ENCODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "q8_0": other_q8_0, "q6_k": other_q6_k, "q4_k": other_q4_k, "bf16": cut_bf16,
}  # fmt: skip


def without_our_keys(pairs: dict[str, Any]) -> None:
    ours = ("tritpack.", "general.source.")
    for name in [name for name in pairs if name.startswith(ours) or name.endswith(("hidden_activation", "n.scale"))]:
        pairs.pop(name)


def as_another_tool_writes(folder: Path, path: Path, kind: str, change: Callable[[Arrays], object] = len) -> Path:
    """The file with standard keys alone, its tables by another encoder."""
    plain = path.with_suffix(".ours.gguf")
    convert(folder, plain, embedding_type="f32")
    file = GgufFile(plain)
    values = {
        name: file.bytes_of(file.tensors[name]).view(np.float32).copy() for name in TABLES if name in file.tensors
    }
    convert(folder, plain, embedding_type=kind, force=True)

    def encode(tensors: Arrays) -> None:
        for name, table in values.items():
            if kind in ENCODERS:
                tensors[name] = ENCODERS[kind](table.reshape(-1, 256))
        change(tensors)

    return edited_gguf(plain, path, metadata=without_our_keys, tensors=encode)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A text too short for the rungs that judge by tolerance, which take longest."""
    (tmp_path / "short.txt").write_text("Once upon a time there lived a king.")
    return tmp_path / "short.txt"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("trilm", kind) for kind in ("f32", "bf16", "q8_0")]
    + [("tiny", kind) for kind in ("bf16", "q8_0", "q6_k", "q4_k")],
)
def test_tables_by_another_encoder_and_silence_on_activations(
    name: str, kind: str, checkpoints: Checkpoints, tiny_checkpoint: Path, short: Path, tmp_path: Path
) -> None:
    """One model with float activations and one with int8, for which a foreign file has no key."""
    folder = tiny_checkpoint if name == "tiny" else checkpoints(name).folder
    report = verify(as_another_tool_writes(folder, tmp_path / "m.gguf", kind), folder, text=short)
    assert report.verdict == "pass", findings(report)
    assert "taken from the source" in "".join(report["structure"].notes)
    assert report["logits"].verdict == report["generation"].verdict == "pass"
    exact = (name, kind) in (("trilm", "f32"), ("tiny", "bf16"))
    assert any("by another encoder" in note for note in report["weights"].notes) != exact


EMBEDDING = "token_embd.weight"


def change_a_byte(tensors: Arrays) -> None:
    """A code of q8_0; the exponent of a float; the scale of a k-quant's block."""
    tensors[EMBEDDING][{524288: 3, 262144: 1, 139264: 5, 107520: 209, 73728: 1}[tensors[EMBEDDING].size]] ^= 0x60


DAMAGE: dict[str, Callable[[Arrays], object]] = {
    "rows shifted": lambda tensors: tensors.update({EMBEDDING: np.roll(tensors[EMBEDDING].reshape(512, -1), 1, 0)}),
    "zeros": lambda tensors: tensors[EMBEDDING].fill(0),
    "a byte": change_a_byte,
}


@pytest.mark.parametrize("kind", ["f32", "bf16", "q8_0", "q6_k", "q4_k"])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_such_tables_is_found(name: str, kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = as_another_tool_writes(tiny_checkpoint, tmp_path / "m.gguf", kind, DAMAGE[name])
    rung = verify(path, tiny_checkpoint, level="weights")["weights"]
    assert [finding.tensor for finding in rung.findings] == [EMBEDDING]


def test_a_file_of_ours_keeps_to_our_encoder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, tmp_path / "m.gguf", embedding_type="q8_0")
    other = GgufFile(as_another_tool_writes(tiny_checkpoint, tmp_path / "other.gguf", "q8_0"))
    table = other.bytes_of(other.tensors[EMBEDDING]).copy()
    bad = edited_gguf(
        tmp_path / "m.gguf", tmp_path / "bad.gguf", tensors=lambda tensors: tensors.update({EMBEDDING: table})
    )
    assert kinds(verify(bad, tiny_checkpoint, level="weights")) == [Kind.TABLE_DIFFERS]


@pytest.mark.parametrize("kind", ["q8_0", "q6_k", "q4_k"])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 3e-8, 100.0])
def test_our_own_encoders_stay_within_the_allowed_distance(kind: str, scale: float) -> None:
    rng = np.random.default_rng(5)
    values = (rng.standard_normal((64, 512)) * scale * np.exp(rng.normal(0, 2, (64, 1)))).astype(np.float32)
    values[3], values[4, ::7] = 0, 0
    data = float_types.encode(kind, values)
    distance = np.abs(float_types.decode(kind, data, *values.shape) - values)
    assert (distance <= allowed_distance(kind, data, *values.shape)).all()


@pytest.mark.parametrize(
    ("tokens", "stored", "expected", "habit"),
    [
        (["a", "<|fim_prefix|>"], [1, 3], [1, 4], True),
        (["<unused7>", "<pad>"], [3, 3], [4, 4], True),
        (["a", "b"], [1, 3], [1, 4], False),
        (["<|x|>"], [4], [3], False),
        (["<|x|>"], [1], [4], False),
        (["<|x|>"], [3, 3], [4], False),
        (None, [3], [4], False),
        ([7], [3], [4], False),
    ],
)
def test_the_habit_of_token_types(tokens: Any, stored: Any, expected: Any, habit: bool) -> None:
    assert is_habit_of_types(tokens, stored, expected) == habit


def test_another_pre_tokenizer_name_is_judged_by_its_ids(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Of another tool's file it is a note; in a file of ours it is a mistake."""

    def renamed(metadata: dict[str, Any]) -> None:
        metadata["tokenizer.ggml.pre"] = "gpt-2"

    def foreign(metadata: dict[str, Any]) -> None:
        renamed(metadata)
        for key in [key for key in metadata if key.startswith("tritpack.")]:
            del metadata[key]

    ours = verify(edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=renamed), tiny_checkpoint, level="structure")
    assert any("tokenizer.ggml.pre is" in sentence for sentence in ours["structure"].sentences)
    report = verify(edited_gguf(tiny_gguf, tmp_path / "b.gguf", metadata=foreign), tiny_checkpoint, level="structure")
    assert not any("tokenizer.ggml.pre" in sentence for sentence in report["structure"].sentences)
    assert any("tokenizer.ggml.pre is 'gpt-2', where convert would write" in note for note in report["structure"].notes)


def test_habits_of_llama_cpp_are_notes(checkpoints: Checkpoints, short: Path, tmp_path: Path) -> None:
    """Qwen's file: no normaliser, and its FIM tokens are control tokens."""
    folder = checkpoints("qwen3_packed").folder
    convert(folder, tmp_path / "m.gguf")

    def as_llama_cpp_has_it(pairs: dict[str, Any]) -> None:
        without_our_keys(pairs)
        tokens, types = list(pairs["tokenizer.ggml.tokens"]), np.array(pairs["tokenizer.ggml.token_type"], np.int32)
        user_defined = [i for i in np.flatnonzero(types == 4) if tokens[i].startswith("<|")]
        types[user_defined] = 3
        pairs["tokenizer.ggml.token_type"] = types

    path = edited_gguf(tmp_path / "m.gguf", tmp_path / "foreign.gguf", metadata=as_llama_cpp_has_it)
    report = verify(path, folder, text=short)
    assert report.verdict == "pass", findings(report)
    assert any("a habit of that engine" in note for note in report["tokenizer"].notes)


def test_rotary_factors_of_other_arithmetic(checkpoints: Checkpoints, short: Path, tmp_path: Path) -> None:
    """Llama 3.1's factors in float32: the last digits differ, or the model does."""
    folder = checkpoints("hf1bit_llama3_scaled_rope").folder
    convert(folder, tmp_path / "m.gguf")
    for change, verdict, name in ((np.float32(1 + 3e-7), "pass", "near"), (np.float32(1.01), "fail", "far")):

        def nudge(tensors: Arrays, change: np.float32 = change) -> None:
            tensors["rope_freqs.weight"].view(np.float32)[5:] *= change

        path = edited_gguf(tmp_path / "m.gguf", tmp_path / f"{name}.gguf", metadata=without_our_keys, tensors=nudge)
        report = verify(path, folder, text=short)
        assert report.verdict == verdict, findings(report)


def test_a_second_file_by_another_tool_is_compared_with(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("trilm").folder
    base = as_another_tool_writes(folder, tmp_path / "base.gguf", "f32")
    convert(folder, tmp_path / "m.gguf")
    rung = verify(tmp_path / "m.gguf", folder, against=base)["perplexity"]
    assert rung.verdict == "pass" and rung.figures["against"]["kl"]["value"] < 1e-8

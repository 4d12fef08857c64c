"""Damage of a file is found and named, and mistakes of the converter cannot hide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.converter.verify.breakages import flip_code, key_of, swap_gate_and_up
from tests.converter.verify.reports import findings, kinds
from tests.make.checkpoints import edited_gguf
from tritpack.converter.convert import convert
from tritpack.converter.sources.source_tensors import CheckpointTensor
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.formats.integrity import BYTES_KEY, TENSORS_KEY
from tritpack.formats.ternary import TernaryTensor


def flip_scale_bit(tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.attn_v.weight"][-32] ^= 1


def change_norm(tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.ffn_sub_norm.weight"].view(np.float32)[17] *= np.float32(1.0001)


def change_embedding(tensors: dict[str, np.ndarray]) -> None:
    tensors["token_embd.weight"][1000] ^= 1


def swap_tokens(metadata: dict) -> None:
    tokens = list(metadata["tokenizer.ggml.tokens"])
    tokens[300], tokens[301] = tokens[301], tokens[300]
    metadata["tokenizer.ggml.tokens"] = tokens


MUTATIONS: dict[str, tuple[dict, Kind, list[str]]] = {
    "a code": ({"tensors": flip_code}, Kind.CODE_DIFFERS, ["weights:", "'blk.1.ffn_up.weight'", "1 of", "[0, 0]"]),
    "a scale bit": ({"tensors": flip_scale_bit}, Kind.SCALE_DIFFERS, ["'blk.0.attn_v.weight'", "scale"]),
    "a norm value": ({"tensors": change_norm}, Kind.NORM_DIFFERS, ["'blk.0.ffn_sub_norm.weight'", "value 17"]),
    "an embedding value": ({"tensors": change_embedding}, Kind.TABLE_DIFFERS, ["'token_embd.weight'", "row 1 "]),
    "gate and up": (
        {"tensors": swap_gate_and_up},
        Kind.CODES_OF_OTHER_TENSOR,
        ["'blk.0.ffn_gate.weight'", "'blk.0.ffn_up.weight'"],
    ),
    "the activation": (
        {"metadata": key_of("bitnet-b1.58.hidden_activation", "silu")},
        Kind.MODEL_DIFFERS,
        ["structure:", "activation", "silu"],
    ),
    "an unknown activation": (
        {"metadata": key_of("bitnet-b1.58.hidden_activation", "mish")},
        Kind.METADATA_INVALID,
        ["structure:", "mish"],
    ),
    "the rope base": (
        {"metadata": key_of("bitnet-b1.58.rope.freq_base", 10000.0)},
        Kind.MODEL_DIFFERS,
        ["rope_theta is 10000.0"],
    ),
    "the norm eps": (
        {"metadata": key_of("bitnet-b1.58.attention.layer_norm_rms_epsilon", 1e-6)},
        Kind.MODEL_DIFFERS,
        ["norm_eps is 1e-06"],
    ),
    "end tokens": (
        {"metadata": key_of("tritpack.tokenizer.stop_token_ids", np.array([3], np.int32))},
        Kind.END_TOKENS_MISSING,
        ["structure: tokenizer: end tokens"],
    ),
    "merges": (
        {"metadata": lambda m: m.update({"tokenizer.ggml.merges": []})},
        Kind.KEY_DIFFERS,
        ["structure: tokenizer:"],
    ),
    "two tokens": ({"metadata": swap_tokens}, Kind.KEY_DIFFERS, ["tokenizer.ggml.tokens", "element 300"]),
    "the template": (
        {"metadata": key_of("tokenizer.chat_template", "{{ messages }}")},
        Kind.KEY_DIFFERS,
        ["tokenizer.chat_template"],
    ),
    "no template": (
        {"metadata": lambda m: m.pop("tokenizer.chat_template")},
        Kind.KEY_MISSING,
        ["tokenizer.chat_template is missing"],
    ),
    "bos": (
        {"metadata": key_of("tokenizer.ggml.bos_token_id", 5)},
        Kind.KEY_DIFFERS,
        ["tokenizer.ggml.bos_token_id is 5"],
    ),
    "add_bos": (
        {"metadata": key_of("tokenizer.ggml.add_bos_token", False)},
        Kind.KEY_DIFFERS,
        ["tokenizer.ggml.add_bos_token is False"],
    ),
    "the pre-tokenizer": (
        {"metadata": key_of("tokenizer.ggml.pre", "default")},
        Kind.KEY_DIFFERS,
        ["tokenizer.ggml.pre is 'default'"],
    ),
    "no pre-tokenizer": (
        {"metadata": lambda m: m.pop("tokenizer.ggml.pre")},
        Kind.KEY_MISSING,
        ["tokenizer.ggml.pre is missing"],
    ),
    "rope scaling": (
        {"metadata": lambda m: m.update({"bitnet-b1.58.rope.scaling.type": "yarn"})},
        Kind.METADATA_INVALID,
        ["structure: metadata: metadata key bitnet-b1.58.rope.scaling.original_context_length is missing"],
    ),
    "key_length": (
        {"metadata": key_of("bitnet-b1.58.attention.key_length", 32)},
        Kind.KEY_DIFFERS,
        ["key_length is 32"],
    ),
    "the file type": ({"metadata": key_of("general.file_type", 1)}, Kind.KEY_DIFFERS, ["general.file_type is 1"]),
    "activation quantisation": (
        {"metadata": key_of("tritpack.activation_quantization", "none")},
        Kind.MODEL_DIFFERS,
        ["int8_activations is False"],
    ),
    "a text for a number": (
        {"metadata": key_of("bitnet-b1.58.embedding_length", "many")},
        Kind.METADATA_INVALID,
        ["embedding_length"],
    ),
    "billions of layers": (
        {"metadata": key_of("bitnet-b1.58.block_count", 2**31 - 1)},
        Kind.METADATA_INVALID,
        ["block_count"],
    ),
    "no number of positions": (
        {"metadata": key_of("bitnet-b1.58.context_length", 0)},
        Kind.METADATA_INVALID,
        ["context_length"],
    ),
    "tokens that are none": ({"metadata": key_of("tokenizer.ggml.tokens", 7)}, Kind.TOKENIZER_INVALID, ["tokenizer"]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_damage_is_found_and_named(name: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    change, kind, words = MUTATIONS[name]
    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", **change), tiny_checkpoint, level="weights")
    assert kind in kinds(report)
    assert [word for word in words if word not in findings(report)] == []


def convert_with(monkeypatch: pytest.MonkeyPatch, source: Path, target: Path, mistake: Callable) -> Path:
    real = CheckpointTensor.ternary
    monkeypatch.setattr(CheckpointTensor, "ternary", lambda self: mistake(real(self)))
    monkeypatch.setattr(CheckpointTensor, "row_reader", lambda self: None)  # so that whole tensors are packed
    convert(source, target)
    return target


def inverted_scale(tensor: TernaryTensor) -> TernaryTensor:
    return TernaryTensor(tensor.codes, np.float32(1) / tensor.scales)


def second_absmean(tensor: TernaryTensor) -> TernaryTensor:
    """What the usual converter does: dequantise what is ternary already, and take absmean of it."""
    weights = tensor.dequantize()
    mean = np.float32(np.abs(weights).mean(dtype=np.float64))
    return TernaryTensor.per_tensor(np.clip(np.rint(weights / mean), -1, 1).astype(np.int8), mean)


def permuted_rows(tensor: TernaryTensor) -> TernaryTensor:
    """The q/k permutation of GGUF's `llama`, which has no place in bitnet-b1.58."""
    rows, cols = tensor.shape
    heads = tensor.codes.reshape(rows // 64, 2, 32, cols)
    return TernaryTensor(np.ascontiguousarray(heads.swapaxes(1, 2).reshape(rows, cols)), tensor.scales)


def negated(tensor: TernaryTensor) -> TernaryTensor:
    return TernaryTensor(-tensor.codes, tensor.scales)


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        (inverted_scale, Kind.SCALE_INVERTED),
        (second_absmean, Kind.SCALE_ABSMEAN_TWICE),
        (permuted_rows, Kind.ROWS_REORDERED),
        (negated, Kind.CODES_NEGATED),
    ],
)
def test_mistakes_of_the_converter_are_caught_twice(
    mistake: Callable, kind: Kind, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the weights, with a diagnosis; and by the logits alone, which read no stored weight."""
    wrong = convert_with(monkeypatch, tiny_checkpoint, tmp_path / "wrong.gguf", mistake)
    report = verify(wrong, tiny_checkpoint, level="logits")
    assert kind in kinds(report)
    assert {rung.name: rung.verdict for rung in report.rungs} == {
        "structure": "pass",
        "weights": "fail",
        "kernels": "pass",
        "tokenizer": "pass",
        "logits": "fail",
        "text": "fail",
    }


def test_values_that_are_not_finite_are_found(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def poison(tensors: dict[str, np.ndarray]) -> None:
        tensors["token_embd.weight"][:2] = (0x00, 0x7E)  # float16 NaN

    bad = edited_gguf(tiny_gguf, tmp_path / "nan.gguf", tensors=poison)
    report = verify(bad, tiny_checkpoint, level="weights")
    assert report["weights"].kinds == [Kind.NOT_FINITE] and report["weights"].findings[0].tensor == "token_embd.weight"


def test_a_norm_that_is_no_number_fails_every_rung_it_reaches(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    def nan(tensors: dict[str, np.ndarray]) -> None:
        tensors["output_norm.weight"].view(np.float32)[3] = np.nan

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=nan), tiny_checkpoint, level="logits")
    assert [report[name].verdict for name in ("weights", "logits", "text")] == ["fail", "fail", "fail"]


# -- what the file records of itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize("outtype", ["i2_s", "tq1_0"])
@pytest.mark.parametrize("name", ["blk.0.attn_v.weight", "output_norm.weight"])
def test_a_recorded_hash_that_differs(name: str, outtype: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def forged(metadata: dict) -> None:
        hashes, index = list(metadata[BYTES_KEY]), list(metadata[TENSORS_KEY]).index(name)
        metadata[BYTES_KEY] = [*hashes[:index], "cd" * 32, *hashes[index + 1 :]]

    convert(tiny_checkpoint, path := tmp_path / "x.gguf", outtype=outtype, allow_scale_rounding=True)
    report = verify(edited_gguf(path, tmp_path / "y.gguf", metadata=forged), tiny_checkpoint, level="weights")
    assert kinds(report) == [Kind.INTEGRITY_DIFFERS] and report["weights"].findings[0].tensor == name
    assert f"tensor '{name}': its bytes are not those that the file records" in findings(report)
    assert "cdcdcdcdcdcd" in findings(report) and report["structure"].verdict == "pass"


def test_a_byte_that_readers_ignore(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def trailer(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.0.attn_v.weight"][-1] ^= 1

    changed = edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=trailer, damaged=True)
    assert kinds(verify(changed, tiny_checkpoint, level="weights")) == [Kind.INTEGRITY_DIFFERS]


def test_a_code_that_changed_later(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The finding says what is wrong, and a note that the file was right once."""
    changed = edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=flip_code, damaged=True)
    report = verify(changed, tiny_checkpoint, level="weights")
    assert kinds(report) == [Kind.CODE_DIFFERS]
    assert any(note.startswith("blk.1.ffn_up.weight: not as the file was written") for note in report["weights"].notes)


def test_a_record_of_other_tensors(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def renamed(metadata: dict) -> None:
        metadata[TENSORS_KEY] = ["x", *list(metadata[TENSORS_KEY])[1:]]

    report = verify(edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=renamed), tiny_checkpoint, level="weights")
    assert kinds(report) == [Kind.INTEGRITY_INVALID] * 2 and "'token_embd.weight' is not in" in findings(report)
    lost = edited_gguf(tiny_gguf, tmp_path / "b.gguf", metadata=lambda metadata: metadata.pop(TENSORS_KEY))
    report = verify(lost, tiny_checkpoint, level="weights")
    assert kinds(report) == [Kind.INTEGRITY_INVALID] and "is missing or not an array" in findings(report)

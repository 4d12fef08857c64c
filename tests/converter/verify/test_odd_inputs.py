"""Files and sources that cannot be judged, or only in part: each is told from a wrong file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.converter.verify.breakages import flip_code, key_of, tensors_as
from tests.converter.verify.reports import findings
from tests.make.checkpoints import Tensors, edited_checkpoint, edited_gguf
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.rungs import RUNGS
from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.names import ExitCode


def test_what_cannot_be_judged(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:-5000])
    with pytest.raises(Unreadable, match="needs"):
        verify(cut, tiny_checkpoint)
    with pytest.raises(Unreadable):
        verify(tiny_gguf, tmp_path / "none")
    with pytest.raises(Unreadable, match=r"none\.txt"):
        verify(tiny_gguf, tiny_checkpoint, text=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c["quantization_config"].update(linear_class="other"), Unsupported),
        (lambda c: c.update(rope_scaling={"type": "dynamic", "factor": 2}), Unsupported),
        (lambda c: c.update(attention_bias=True), Unsupported),
        (lambda c: c.pop("vocab_size"), Unreadable),
        (lambda c: c.update(hidden_size="x"), Unreadable),
    ],
    ids=["linear class", "rope scaling", "bias", "no vocabulary size", "a text for a size"],
)
def test_a_source_that_cannot_be_judged(
    change: Callable, error: type[Exception], tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    with pytest.raises(error):
        verify(tiny_gguf, edited_checkpoint(tiny_checkpoint, tmp_path / "c", config=change))


@pytest.mark.parametrize("level", ["weights", "full"])
def test_an_illegal_code_is_a_finding_not_an_unreadable_file(
    level: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    def three(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.1.attn_k.weight"][9] = 0xFF

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=three), tiny_checkpoint, level=level)
    [finding] = report["weights"].findings
    assert (finding.kind, finding.tensor) == (Kind.TENSOR_INVALID, "blk.1.attn_k.weight")
    assert "'blk.1.attn_k.weight'" in finding.sentence and "code 3 at row 0" in finding.sentence


def test_a_missing_tensor_stops_the_climb_without_a_crash(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    def drop(tensors: dict[str, np.ndarray]) -> None:
        del tensors["blk.1.attn_norm.weight"]

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=drop), tiny_checkpoint)
    [finding] = [finding for finding in report["structure"].findings if finding.tensor is not None]
    assert (finding.kind, finding.tensor) == (Kind.TENSOR_MISSING, "blk.1.attn_norm.weight")
    assert {rung.name for rung in report.rungs if rung.verdict == "skipped"} == set(RUNGS[2:]) - {"tokenizer"}


def test_files_that_hold_floats_where_codes_belong(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """A plain F16 file under an I2_S name: the usual silent downgrade."""
    file = GgufFile(tiny_gguf)
    name = "blk.0.attn_q.weight"
    plans, data = [], []
    for tensor in file.tensors.values():
        stored = file.bytes_of(tensor)
        if tensor.name == name:
            stored = np.zeros(2 * tensor.rows * tensor.cols, np.uint8)
        plans.append(TensorPlan(tensor.name, tensor.shape, 1 if tensor.name == name else tensor.type_id, stored.size))
        data.append([stored])
    write_gguf(tmp_path / "f.gguf", file.metadata, plans, data)
    report = verify(tmp_path / "f.gguf", tiny_checkpoint)
    assert report.verdict == "fail" and f"{name!r} is stored as f16" in findings(report)


def test_what_was_found_is_told_even_if_nothing_can_run(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise MissingRequirement("the C library is not built")

    monkeypatch.setattr("tritpack.runtime.model.Model.__init__", missing)
    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=flip_code), tiny_checkpoint)
    assert report.verdict == "fail" and report["logits"].skipped == "the C library is not built"
    with pytest.raises(MissingRequirement):
        verify(tiny_gguf, tiny_checkpoint)


@pytest.mark.parametrize(
    "name",
    [
        "general.architecture", "general.file_type", "general.source.format", "general.source.sha256",
        "tokenizer.ggml.pre", "tokenizer.chat_template", "tokenizer.ggml.eos_token_id",
        "bitnet-b1.58.attention.key_length", "bitnet-b1.58.hidden_activation", "tritpack.source.files",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [np.array([1, 2], np.int32), "text", 7, True, ["a", "b"]])
def test_values_of_any_type_are_findings(
    name: str, value: object, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", metadata=key_of(name, value))
    report = verify(bad, tiny_checkpoint, level="weights")
    json.dumps(report.as_json())
    if "source" not in name:  # what a file records of its source is not what it is
        assert report["structure"].verdict == "fail"


def test_an_undecodable_tensor_is_no_kernels_fault(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    def three(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.1.attn_k.weight"][9] = 0xFF

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=three), tiny_checkpoint, level="kernels")
    assert report["kernels"].verdict == "pass" and "blk.1.attn_k" in report["kernels"].notes[0]
    assert report["kernels"].figures["tensors_run"] == report["kernels"].figures["of_tensors"] - 1
    assert report.conclusion == "the file is wrong"


def test_a_norm_under_a_ternary_number_is_a_finding(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("bitnet_ternary_floats").folder
    convert(folder, tmp_path / "good.gguf")
    file = GgufFile(tmp_path / "good.gguf")
    plans, data = [], []
    for info in file.tensors.values():
        norm = info.name == "output_norm.weight"
        stored = np.zeros(info.cols // 4 + 32, np.uint8) if norm else file.bytes_of(info)
        plans.append(TensorPlan(info.name, info.shape, 36 if norm else info.type_id, stored.size))
        data.append([stored])
    write_gguf(tmp_path / "bad.gguf", file.metadata, plans, data)
    report = verify(tmp_path / "bad.gguf", folder, level="weights")
    [finding] = [finding for finding in report["structure"].findings if finding.kind is Kind.TYPE_DIFFERS]
    assert finding.tensor == "output_norm.weight" and finding.figures == {"layout": "i2_s"}


def test_a_damaged_source_is_not_the_files_fault(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    def nan(tensors: Tensors) -> None:
        dtype, shape, data = tensors["model.norm.weight"]
        tensors["model.norm.weight"] = (dtype, shape, b"\xc0\x7f" + data[2:])

    source = edited_checkpoint(tiny_checkpoint, tmp_path / "source", tensors=nan)
    with pytest.raises(Unreadable, match="not finite"):
        verify(tiny_gguf, source, level="weights")


def test_a_text_without_tokens(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("falcon3").folder
    convert(folder, tmp_path / "m.gguf")
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(UsageError, match="holds no text"):
        verify(tmp_path / "m.gguf", folder, text=tmp_path / "empty.txt")


@pytest.mark.parametrize(
    ("type_id", "nbytes", "name"),
    [
        (1, lambda rows, cols: 2 * rows * cols, "f16"),
        (2, lambda rows, cols: rows * cols // 32 * 18, "q4_0"),
        (12, lambda rows, cols: rows * cols // 256 * 144, "q4_k"),
        (19, lambda rows, cols: rows * cols // 256 * 50, "iq1_s"),
        (24, lambda rows, cols: rows * cols, "i8"),
    ],
)
def test_an_ordinary_model_is_refused_in_one_sentence(
    type_id: int, nbytes: Callable, name: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    """As FILE, whatever the source is; and as the source of a ternary file."""
    plain = tmp_path / "plain.gguf"
    tensors_as(lambda table: [row for row in table if len(row[0].shape) == 1 or "blk" in row[0].name])(tiny_gguf, plain)
    ordinary = retyped_matrices(plain, tmp_path / "ordinary.gguf", type_id, nbytes)
    for source in (ordinary, tiny_checkpoint):
        result = run("verify", ordinary, "--source", source)
        assert exit_code_of(result) == ExitCode.UNSUPPORTED, source
        assert str(result.exception).count("this is not a ternary model: its matrices are 14 x " + name) == 1, source
    whole = retyped_matrices(tiny_gguf, tmp_path / "whole.gguf", type_id, nbytes, linears=True)
    with pytest.raises(Unsupported, match="this is not a ternary model"):
        verify(tiny_gguf, whole)


def retyped_matrices(good: Path, bad: Path, type_id: int, nbytes: Callable, *, linears: bool = False) -> Path:
    def change(table: list) -> list:
        result = []
        for plan, data in table:
            if len(plan.shape) == 2 and not (linears and "blk" not in plan.name):
                size = nbytes(*plan.shape)
                plan, data = dataclasses.replace(plan, type_id=type_id, nbytes=size), np.zeros(size, np.uint8)
            result.append((plan, data))
        return result

    return tensors_as(change)(good, bad)


def test_a_checkpoint_of_plain_floats_is_not_ternary(online_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    folder = edited_checkpoint(
        online_checkpoint, tmp_path / "c", config=lambda config: config.pop("quantization_config")
    )
    with pytest.raises(Unsupported, match="this is not a ternary model"):
        verify(tiny_gguf, folder)

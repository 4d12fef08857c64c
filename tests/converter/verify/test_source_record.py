"""A recorded hash that differs is a note: what the model is decides, and a wrong source is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.converter.verify.breakages import flip_code
from tests.converter.verify.reports import findings, kinds
from tests.make.checkpoints import edited_checkpoint, edited_gguf
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.tools.make_dummy import make_dummy
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.formats.names import ExitCode


def append_byte(folder: Path) -> None:
    with open(folder / "config.json", "a") as stream:
        stream.write(" ")


def edit_generation_config(folder: Path) -> None:
    path = folder / "generation_config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "temperature": 0.3}))


def add_file(folder: Path) -> None:
    (folder / "vocab.json").write_text("{}")


def rewrite_weights(folder: Path) -> None:
    """The same tensors in a file with other bytes."""
    edited_checkpoint(folder, folder.parent / "again", tensors=lambda tensors: tensors.update(sorted(tensors.items())))
    raw = (folder.parent / "again" / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + size] + b" " * 8
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + size :])


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte more": (append_byte, "made from another revision: config.json differs, generation_config.json, model"),
    "other settings": (edit_generation_config, "revision: generation_config.json differs, config.json, model"),
    "a new file": (add_file, "revision: vocab.json is new, config.json"),
    "the weights saved again": (rewrite_weights, "revision: model.safetensors differs, config.json"),
}


@pytest.fixture
def source(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_checkpoint, tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("name", CHANGES)
def test_another_revision_of_the_source_is_a_note(name: str, source: Path, tiny_gguf: Path) -> None:
    change, words = CHANGES[name]
    change(source)
    report = verify(tiny_gguf, source, level="kernels")
    assert report.verdict == "pass", findings(report)
    assert {rung.verdict for rung in report.rungs} == {"pass"}
    [note] = [note for note in report["structure"].notes if "made from" in note]
    assert words in note


def test_strict_fails_on_it_and_climbs_on(source: Path, tiny_gguf: Path) -> None:
    append_byte(source)
    report = verify(tiny_gguf, source, level="kernels", strict=True)
    assert [rung.verdict for rung in report.rungs] == ["fail", "pass", "pass"]
    assert kinds(report) == [Kind.SOURCE_HASH_DIFFERS] and "config.json differs" in findings(report)
    assert "made from other files" in report.conclusion
    result = run("verify", tiny_gguf, "--source", source, "--level", "structure", "--strict")
    assert exit_code_of(result) == ExitCode.CHECK_FAILED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.source.sha256", "0" * 64),
        ("general.source.sha256", 7),
        ("tritpack.source.files", ["0  config.json"]),
        ("tritpack.source.files", 7),
        ("tritpack.source.files", np.array([1, 2], np.int32)),
    ],
)
def test_records_that_make_no_sense_are_notes(
    key: str, value: object, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    odd = edited_gguf(tiny_gguf, tmp_path / "odd.gguf", metadata=lambda pairs: pairs.update({key: value}))
    report = verify(odd, tiny_checkpoint, level="weights")
    assert report.verdict == "pass" and any("made from another" in note for note in report["structure"].notes)
    assert verify(odd, tiny_checkpoint, level="structure", strict=True).verdict == "fail"


def test_a_wrong_source_is_one_sentence(
    source: Path, tiny_gguf: Path, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """Another family, another tokenizer, and nothing but other weights."""
    make_dummy(tmp_path / "twin", shape="tiny", seed=99)
    shutil.copy(tmp_path / "twin" / "model.safetensors", source)
    sources = ((checkpoints("falcon3").folder, "structure"), (tmp_path / "twin", "structure"), (source, "weights"))
    for folder, rung in sources:
        report = verify(tiny_gguf, folder)
        assert [(entry.name, len(entry.findings)) for entry in report.rungs if entry.findings] == [(rung, 1)], folder
        [finding] = report[rung].findings
        assert finding.kind is Kind.SOURCE_DIFFERS and finding.figures["differences"], folder
        assert finding.sentence.startswith("this file was not made from this source: it records "), folder
        assert report.conclusion == "the file was not made from this source", folder
        assert report.rungs[-1].skipped == report.conclusion, folder


def test_damage_beside_another_revision_is_still_damage(source: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    rewrite_weights(source)
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=flip_code)
    report = verify(bad, source, level="weights")
    assert kinds(report) == [Kind.CODE_DIFFERS] and report.conclusion == "the file is wrong"


def test_many_findings_of_one_kind_are_one(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """All scales inverted, as a converter does that takes the direction the wrong way round."""

    def invert(tensors: dict[str, np.ndarray]) -> None:
        for name, data in tensors.items():
            if name.split(".")[-2] in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
                scale = data[-32:].view(np.float32)
                scale[0] = 1 / scale[0]

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=invert), tiny_checkpoint, level="weights")
    [finding] = report["weights"].findings
    assert finding.kind is Kind.SCALE_INVERTED and finding.figures["count"] == len(finding.figures["tensors"]) == 14
    assert finding.sentence.startswith("scale inverted, in 14 tensors; the first: tensor 'blk.0.")


def test_a_file_that_lists_no_files_of_its_source(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The hash of the whole is all there is to compare."""
    convert(tiny_checkpoint, tmp_path / "m.gguf")
    bare = edited_gguf(
        tmp_path / "m.gguf",
        tmp_path / "bare.gguf",
        metadata=lambda pairs: [pairs.pop("tritpack.source.files"), pairs.update({"general.source.sha256": "ab" * 32})],
    )
    report = verify(bare, tiny_checkpoint, level="weights")
    assert report.verdict == "pass"
    assert "it records abababababab..., the source is" in report["structure"].notes[0]

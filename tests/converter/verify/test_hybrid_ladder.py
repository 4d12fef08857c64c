"""A Qwen3.5 hybrid on all rungs of the ladder, against each kind of source and alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.make.checkpoints import edited_gguf
from tests.make.hybrid import ROTATED, TERNARY, write_ternary_hybrid
from tritpack.converter.convert import convert
from tritpack.converter.verify.engine.mistakes import Mistake, logits_with, mistakes
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf

CHECKPOINTS = {
    "bonsai_hybrid_unpacked": "t2", "bonsai_hybrid_vl_unpacked": "pq2_0", "bonsai2_rotated_mlx": "ptq1_0",
    "bonsai2_rotated_gguf/model-PQ2_0.gguf": "t158", "bonsai2_rotated_gguf_rep3/model.gguf": "q2_0",
}  # fmt: skip
"""Fixture -> a layout that holds it."""


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_conversions_hold_the_model_of_their_source(shared: Path, tmp_path: Path, name: str) -> None:
    source, path = shared / "checkpoints" / name, tmp_path / "m.gguf"
    convert(source, path, outtype=CHECKPOINTS[name])
    report = verify(path, source, level="tokenizer")
    assert report.verdict == "pass", [rung.sentences for rung in report.rungs]
    assert report["kernels"].figures["tensors_run"] >= 27
    if "vl" in name:
        assert "left out: 21 tensors of the vision tower" in report["structure"].notes


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    return write_ternary_hybrid(tmp_path / "rotated.gguf", ROTATED)


def test_outputs_and_instruction_sets(rotated: Path) -> None:
    report = verify(rotated, rotated)
    assert {rung.name: rung.verdict for rung in report.rungs if rung.verdict != "pass"} == {
        "tokenizer": "skipped", "text": "skipped", "perplexity": "skipped"
    }, [rung.sentences for rung in report.rungs]  # fmt: skip
    assert report["logits"].figures["tolerance"] == 5e-5
    steps = report["logits"].series
    assert {"delta_out", "attn_qkv", "ssm_alpha", "attn_q_rope", "layer_out"} <= set(steps["point"])


def test_the_step_that_deviates_is_named(rotated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritpack.runtime.hybrid_reference.SUM_EPS", np.float32(0.1))
    report = verify(rotated, rotated, level="logits")
    assert report["logits"].kinds == [Kind.OUTPUTS_DIFFER]
    assert "the convolution or the delta rule of layer 0" in report["logits"].sentences[0]


def test_a_file_alone(rotated: Path, tmp_path: Path) -> None:
    report = verify(rotated)
    assert (report.verdict, report["kernels"].verdict) == ("unproved", "pass"), report.conclusion
    plain = verify(write_ternary_hybrid(tmp_path / "plain.gguf", TERNARY), level="structure")
    assert "it is the first generation of Ternary-Bonsai (not rotated), or" in plain["structure"].notes[0]


def test_our_runtime_makes_the_mistakes_of_engines(rotated: Path) -> None:
    file, tokens = GgufFile(rotated), [3, 1, 4, 1, 5]
    right = logits_with(Mistake("none", ""), file, tokens, 1)
    assert right is not None
    made = {mistake.kind: logits_with(mistake, file, tokens, 1) for mistake in mistakes(file, ROTATED)}
    for kind in ("rotation", "embedding_inverse", "value_heads"):
        assert made[kind] is not None and np.abs(made[kind] - right).max() > 0.05 * np.abs(right).max(), kind


def test_layers_for_further_tokens_are_left_out(rotated: Path, tmp_path: Path) -> None:
    file = GgufFile(rotated)
    tensors = [TensorPlan(info.name, info.shape, info.type_id, info.nbytes) for info in file.tensors.values()]
    data = [[file.bytes_of(info)] for info in file.tensors.values()]
    tensors.append(TensorPlan("blk.4.nextn.enorm.weight", (128,), 0, 512))
    counted = {**file.metadata, "qwen35.block_count": 5, "qwen35.nextn_predict_layers": 1}
    write_gguf(tmp_path / "mtp.gguf", counted, tensors, [*data, [np.ones(128, np.float32).view(np.uint8)]])
    report = verify(tmp_path / "mtp.gguf", rotated, level="weights")
    assert report.verdict == "pass", [rung.sentences for rung in report.rungs]
    assert "left out: 1 tensor of the layers that predict" in " ".join(report["structure"].notes)


@pytest.mark.parametrize("key", ["qwen35.nextn_predict_layers", "prism.hadamard.version", "prism.hadamard.sign_mode"])
def test_a_list_in_the_place_of_a_value_is_a_finding(rotated: Path, tmp_path: Path, key: str) -> None:
    keys = {key: np.array([1, 2], np.int32)}
    path = edited_gguf(rotated, tmp_path / "m.gguf", metadata=lambda pairs: pairs.update(keys))
    report = verify(path, rotated, level="structure")
    assert report.verdict == "fail" and key in " ".join(report["structure"].sentences)

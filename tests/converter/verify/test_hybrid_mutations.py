"""The mutation bench of hybrids: each mistake is caught by the lowest rung that can see it, and has its own name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.converter.verify.breakages import norm
from tests.converter.verify.hybrid_mutations import HYBRID_MUTATIONS, PLAIN, PTQ1, TWO_AT_ONCE
from tests.make.hybrid import ROTATED, TERNARY, write_ternary_hybrid
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hybrids")
    return {
        PLAIN: write_ternary_hybrid(folder / "plain.gguf", TERNARY),
        PTQ1: write_ternary_hybrid(folder / "ptq1_0.gguf", ROTATED, "ptq1_0"),
        "rotated": write_ternary_hybrid(folder / "rotated.gguf", ROTATED),
    }


@pytest.mark.parametrize("name", HYBRID_MUTATIONS)
def test_each_has_its_name(name: str, good_files: dict[str, Path], tmp_path: Path) -> None:
    mutation = HYBRID_MUTATIONS[name]
    good = good_files.get(mutation.family, good_files["rotated"])
    bad = mutation.edit(good, tmp_path / "bad.gguf")
    report = verify(bad, good, level="weights")
    assert next(rung.name for rung in report.rungs if rung.verdict == "fail") == mutation.rung
    kinds = set(report[mutation.rung].kinds)
    assert kinds == {mutation.kind}, report[mutation.rung].sentences
    sentences = "\n".join(report[mutation.rung].sentences)
    assert [word for word in mutation.words if word not in sentences] == [], sentences


@pytest.mark.parametrize("name", TWO_AT_ONCE)
def test_two_mistakes_at_once_fail(name: str, good_files: dict[str, Path], tmp_path: Path) -> None:
    bad = TWO_AT_ONCE[name](good_files["rotated"], tmp_path / "bad.gguf")
    assert verify(bad, good_files["rotated"], level="weights").verdict == "fail"


@pytest.mark.parametrize("name", [PLAIN, PTQ1, "rotated"])
def test_good_files_are_not_accused(name: str, good_files: dict[str, Path]) -> None:
    report = verify(good_files[name], good_files[name], level="weights")
    assert report.verdict == "pass", [rung.sentences for rung in report.rungs]


def test_one_layout_proves_the_other(good_files: dict[str, Path]) -> None:
    report = verify(good_files["rotated"], good_files[PTQ1], level="weights")
    assert report.verdict == "pass" and report["weights"].figures["ternary_tensors"] > 20


def test_norms_that_another_tool_computed_in_float16_are_a_note(good_files: dict[str, Path], tmp_path: Path) -> None:
    name = "blk.0.attn_norm.weight"
    half = norm(name, lambda values: values.astype(np.float16))(good_files["rotated"], tmp_path / "half.gguf")
    report = verify(half, good_files["rotated"], level="weights")
    assert report.verdict == "pass" and "rounded as another tool rounds" in report["weights"].notes[0]
    nudged = norm(name, lambda values: values * np.float32(1.0001))(good_files["rotated"], tmp_path / "nudged.gguf")
    assert verify(nudged, good_files["rotated"], level="weights")["weights"].kinds == [Kind.NORM_DIFFERS]

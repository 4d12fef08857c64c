"""The mutation bench: files broken in every way that converters break them. Each is caught, by the lowest rung that can
see it, with the right diagnosis; and good files are accused by none, over all families and layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import exit_code_of, run
from tests.converter.verify.breakages import ARCH
from tests.converter.verify.mutations import MUTATIONS
from tests.make.families import FAMILIES, Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.options import ConvertOptions
from tritpack.converter.plan import make_plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.rungs import RUNGS
from tritpack.formats.errors import Unsupported
from tritpack.formats.names import LAYOUTS, ExitCode
from tritpack.runtime.library import Library, library


@pytest.fixture(scope="module")
def good_files(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's checkpoint, converted once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "good.gguf"
            convert(checkpoints(name).folder, made[name], quantize=FAMILIES[name].quantize)
        return made[name]

    return get


@pytest.mark.parametrize("name", MUTATIONS)
def test_caught_by_the_lowest_rung_with_the_right_diagnosis(
    name: str, checkpoints: Checkpoints, good_files: Callable[[str], Path], tmp_path: Path
) -> None:
    mutation = MUTATIONS[name]
    bad = mutation.edit(good_files(mutation.family), tmp_path / "bad.gguf")
    folder = checkpoints(mutation.family).folder
    result = run("verify", bad, "--source", folder, "--level", mutation.rung)
    assert exit_code_of(result) == ExitCode.CHECK_FAILED, result.output
    report = verify(bad, folder, level=mutation.rung)
    assert [rung.name for rung in report.rungs if rung.verdict == "fail"] == [mutation.rung]
    assert report.conclusion == "the file is wrong"
    assert mutation.kind in report[mutation.rung].kinds
    sentences = "\n".join(report[mutation.rung].sentences)
    assert [word for word in mutation.words if word not in sentences] == []


def test_a_truncated_file_cannot_be_judged(
    checkpoints: Checkpoints, good_files: Callable[[str], Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(good_files("ms_2b4t_packed").read_bytes()[:-5000])
    result = run("verify", bad, "--source", checkpoints("ms_2b4t_packed").folder)
    assert exit_code_of(result) == ExitCode.UNREADABLE
    assert "needs" in str(result.exception) and "are there" in str(result.exception)


def test_a_wrong_kernel_is_not_the_files_fault(
    checkpoints: Checkpoints, good_files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row of one kernel is off by one, as an untested tail would be."""
    right = Library.integer_product

    def off_by_one(self: Library, kernel: Any, tensor: Any, q: Any) -> Any:
        found = right(self, kernel, tensor, q)
        if kernel.symbol == victim:
            found[0, 5] += 1
        return found

    kernels = [kernel for kernel in library().kernels() if kernel.available and kernel.op == "matvec"]
    victim = [kernel.symbol for kernel in kernels if kernel.layout == "i2_s"][-1]
    good, folder = good_files("ms_2b4t_packed"), checkpoints("ms_2b4t_packed").folder
    monkeypatch.setattr(Library, "integer_product", off_by_one)
    report = verify(good, folder, level="tokenizer")
    assert [rung.name for rung in report.rungs if rung.verdict == "fail"] == ["kernels"]
    [finding, *_] = report["kernels"].findings
    assert finding.kind is Kind.KERNEL_DIFFERS
    assert (finding.figures["kernel"], finding.figures["row"]) == (victim, 5)
    assert report.conclusion == "a kernel is wrong on this machine, not the file"


RUNTIMES: dict[str, tuple[str, object, str, str]] = {
    "SiLU for squared ReLU": ("ACTIVATION_IDS", {"relu2": 1}, "ms_2b4t_packed", "the activation function of layer 0"),
    "NORM rope for NEOX": ("INTERLEAVED_ROPE", (ARCH,), "ms_2b4t_packed", "query norm or rotary embedding of layer 0"),
    "NEOX rope for NORM": ("INTERLEAVED_ROPE", (), "falcon3", "query norm or rotary embedding of layer 0"),
}
"""What is wrong in the library's face: a name there, its wrong value, the family, the first step that deviates."""


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_wrong_runtime_is_located(
    name: str, checkpoints: Checkpoints, good_files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is right, and what computes it is not: said by the logits, with the step where it begins."""
    attribute, value, family, step = RUNTIMES[name]
    good, folder = good_files(family), checkpoints(family).folder
    monkeypatch.setattr(f"tritpack.runtime.library.{attribute}", value)
    report = verify(good, folder, level="logits")
    assert next(rung.name for rung in report.rungs if rung.verdict == "fail") == "logits"
    assert report["logits"].kinds == [Kind.OUTPUTS_DIFFER] and step in report["logits"].sentences[0]
    assert report.conclusion == "the file holds what the source holds, but what runs it computes something else"


# -- no false alarm ----------------------------------------------------------------------------------------------------


def fitting_layouts(folder: Path, quantize: str | None) -> list[str]:
    """Layouts that hold a checkpoint exactly."""
    fitting = []
    for outtype in LAYOUTS:
        try:
            make_plan(CheckpointFolder(folder), ConvertOptions(outtype=outtype, quantize=quantize))
        except Unsupported:
            continue
        fitting.append(outtype)
    return fitting


@pytest.mark.parametrize("name", FAMILIES)
def test_good_files_are_accused_by_no_rung(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints(name)
    quantize = made.family.quantize
    layouts = fitting_layouts(made.folder, quantize)
    assert "t2" in layouts
    for layout in layouts:
        path = tmp_path / f"{layout}.gguf"
        convert(made.folder, path, outtype=layout, quantize=quantize)
        report = verify(path, made.folder, quantize=quantize)
        assert report.verdict == "pass", (layout, [rung.sentences for rung in report.rungs])
        assert tuple(rung.name for rung in report.rungs) == RUNGS, layout

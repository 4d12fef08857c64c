"""What a rung says is what it did: three words, only what was compared is counted, and what was sampled is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import run
from tests.converter.verify.breakages import retyped
from tests.converter.verify.reports import findings
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.verify import context
from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.rungs import kernels, text
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.library import CTensor, Isa, Kernel, library
from tritpack.runtime.model import c_tensor


def test_the_screen_has_three_words(
    checkpoints: Checkpoints, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    folder = checkpoints("embedding_qwen3").folder
    convert(folder, tmp_path / "e.gguf")
    result = run("verify", tmp_path / "e.gguf", "--source", folder)
    lines = {line.split()[1]: line for line in result.output.splitlines() if line[:7] in ("passed ", "skipped")}
    assert lines["structure"].startswith("passed ") and lines["weights"].startswith("passed ")
    assert (
        lines["perplexity"].startswith("skipped") and "an embedding model predicts no next token" in lines["perplexity"]
    )
    assert "; skipped: perplexity" in result.output
    bad = retyped("ffn_up", 1, lambda rows, cols: 2 * rows * cols)(tiny_gguf, tmp_path / "bad.gguf")
    result = run("verify", bad, "--source", tiny_checkpoint)
    assert "failed  structure" in result.output and "skipped kernels" in result.output
    assert "ok" not in result.output.split()


def test_weights_count_what_was_compared(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    file = retyped("ffn_up", 1, lambda rows, cols: 2 * rows * cols)(tiny_gguf, tmp_path / "some.gguf")
    whole, some = (verify(path, tiny_checkpoint, level="weights")["weights"] for path in (tiny_gguf, file))
    assert (whole.figures["ternary_tensors"], some.figures["ternary_tensors"]) == (14, 12)
    assert whole.figures["ternary_weights"] > some.figures["ternary_weights"] > 0


@pytest.mark.parametrize("name", ["bonsai_untied_yarn", "trilm", "gemma3_packed"])
def test_kernels_of_float_activations_are_counted(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints(name).folder
    convert(folder, tmp_path / "m.gguf")
    rung = verify(tmp_path / "m.gguf", folder, level="kernels")["kernels"]
    assert rung.verdict == "pass" and rung.figures["kernels_run"] == len(rung.figures["kernels"]) > 0
    known = {kernel.symbol for kernel in library().kernels() if kernel.available}
    assert set(rung.figures["kernels"]) <= known
    assert any(symbol.startswith("lm_head_") for symbol in rung.figures["kernels"])


def test_what_was_sampled_is_said_and_full_runs_all(
    tiny_checkpoint: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "MAX_WEIGHTS", 1)
    sampled = verify(tiny_gguf, tiny_checkpoint, level="kernels")["kernels"]
    assert sampled.figures["tensors_run"] < sampled.figures["of_tensors"] == 15
    assert sampled.notes[0].startswith(f"{sampled.figures['tensors_run']} of 15 tensors were run")
    assert f"{sampled.figures['tensors_run']} of FILE's tensors" in sampled.compares
    report = verify(tiny_gguf, tiny_checkpoint, level="full")
    assert report.verdict == "pass", findings(report)
    assert report["kernels"].figures["tensors_run"] == 15
    [note] = report["kernels"].notes
    assert note.startswith("the scalar kernels ran on 5 of 15 tensors")
    assert "on 5 of FILE's tensors (and with one another on all)" in report["kernels"].compares
    monkeypatch.undo()
    whole = verify(tiny_gguf, tiny_checkpoint, level="kernels")["kernels"]
    assert "all tensors of FILE" in whole.compares and not whole.notes


def test_a_kernel_that_is_wrong_where_no_scalar_one_runs_is_found(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, best = library().integer_product, library().best_isa()
    if best == "scalar":
        pytest.skip("this CPU has scalar kernels only")
    monkeypatch.setattr(kernels, "MAX_WEIGHTS", 1)
    calls: list[str] = []

    def wrong_in_the_end(kernel: Kernel, tensor: CTensor, q: np.ndarray) -> np.ndarray:
        calls.append(kernel.isa)
        return right(kernel, tensor, q) + (kernel.isa == best)

    file = GgufFile(tiny_gguf)
    info = file.tensors["blk.1.ffn_up.weight"]
    tensor = c_tensor(file, info, file.bytes_of(info))
    monkeypatch.setattr(library(), "integer_product", wrong_in_the_end)
    found, ran = kernels._compare_integers(info, tensor, scalar=False)
    assert found and "scalar" not in calls and not any(symbol.endswith("_scalar") for symbol in ran)


def test_tables_are_run_in_pieces_and_the_row_is_that_of_the_table(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = library().best_isa()
    if best == "scalar":
        pytest.skip("this CPU has scalar kernels only")
    file = GgufFile(tiny_gguf)
    info = file.tensors["token_embd.weight"]
    monkeypatch.setattr(kernels, "PIECE", 64 * info.cols)
    right, rows = library().head_product, []

    def wrong_in_row_70(tensor: CTensor, x: np.ndarray, isa: str | None = None) -> np.ndarray:
        product = right(tensor, x, isa)
        rows.append((tensor.rows, isa))
        if isa == best and np.array_equal(tensor.data, table[64 * width : 128 * width]):
            product[:, 6] += 1
        return product

    table, width = file.bytes_of(info), info.nbytes // info.rows
    monkeypatch.setattr(library(), "head_product", wrong_in_row_70)
    rung = kernels.check_kernels(file, int8=True)
    assert {finding.figures["row"] for finding in rung.findings} == {70}
    of_best, of_scalar = ([count for count, isa in rows if isa == wanted] for wanted in (best, "scalar"))
    assert sum(of_best) == sum(of_scalar) == 2 * info.rows, "of a small model all pieces are run by scalar too"


@pytest.mark.parametrize("others", [1, 2])
def test_a_kernel_is_never_compared_with_itself(others: int, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the scalar kernels there must be two others to compare."""
    names = ["scalar", "ssse3", "avx2"][: 1 + others]
    monkeypatch.setattr(library(), "isas", lambda: [Isa(name, True) for name in names])
    monkeypatch.setattr(kernels, "_float_kernels", lambda layout, block, isa: [f"lm_head_{isa}"])
    asked: list[str | None] = []
    monkeypatch.setattr(library(), "head_product", lambda tensor, x, isa=None: asked.append(isa) or np.zeros((1, 1)))
    file = GgufFile(tiny_gguf)
    info = file.tensors["token_embd.weight"]
    kernels._compare_floats(info, c_tensor(file, info, file.bytes_of(info)), 0, info.cols, scalar=False)
    assert asked == 2 * names[-2:]


def test_a_wrong_float_kernel_is_named(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoints("bonsai_untied_yarn").folder
    convert(folder, tmp_path / "m.gguf")
    best, right = library().best_isa(), library().head_product
    if best == "scalar":
        pytest.skip("this CPU has no other instruction set than scalar")

    def wrong_for_one_token(tensor: object, x: np.ndarray, isa: str | None = None) -> np.ndarray:
        product = right(tensor, x, isa)
        return product + np.float32(1e-3) if isa == best and len(x) == 1 else product

    monkeypatch.setattr(library(), "head_product", wrong_for_one_token)
    rung = verify(tmp_path / "m.gguf", folder, level="kernels")["kernels"]
    assert rung.verdict == "fail" and "matvec_f32_" in "".join(rung.sentences)


def test_a_long_text_is_sampled_and_full_compares_all(
    tiny_checkpoint: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches, of which the figures are those of all positions."""
    whole = verify(tiny_gguf, tiny_checkpoint, level="text")["text"]
    monkeypatch.setattr(text, "MEMORY", 300 * (8 * 512 + 2 * (3 * 256 + 512)))
    monkeypatch.setattr(context, "MAX_LOGITS", 600 * 512)
    sampled = verify(tiny_gguf, tiny_checkpoint, level="text")["text"]
    assert sampled.figures["positions"] == 600
    [note] = sampled.notes
    assert note.startswith(f"600 of the text's {whole.figures['positions']} tokens were compared")
    report = verify(tiny_gguf, tiny_checkpoint, level="full")
    assert report.verdict == "pass" and not report["text"].notes
    for name, figure in whole.figures.items():  # numpy's own sums change with the number of rows
        assert report["text"].figures[name] == pytest.approx(figure, rel=0.02), name
    assert report["perplexity"].figures["scored"] < report["text"].figures["positions"]


def test_of_the_built_in_text_a_large_model_is_given_three_windows(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --level full; a text that is given is compared whole."""
    monkeypatch.setattr(context, "searches", lambda spec: 0)
    monkeypatch.setattr(context, "MAX_LOGITS", 600 * 512)
    rung = verify(tiny_gguf, tiny_checkpoint, level="text")["text"]
    assert rung.figures["positions"] == 600 and rung.notes[0].endswith("; --level full compares 768")
    rung = verify(tiny_gguf, tiny_checkpoint, level="full")["text"]
    assert rung.figures["positions"] == 768 and "768 of the text's" in rung.notes[0] and "--text" in rung.notes[0]
    (tmp_path / "t.txt").write_text(read_text(None))
    rung = verify(tiny_gguf, tiny_checkpoint, level="full", text=tmp_path / "t.txt")["text"]
    assert rung.figures["positions"] > 900 and not rung.notes

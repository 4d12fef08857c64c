"""Outputs that are exactly zero, as tokens with a zero embedding row give them, are compared and not divided by."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.make.checkpoints import Tensors, edited_checkpoint
from tritpack.converter.convert import convert
from tritpack.converter.verify.compare.outputs import position_errors
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Report
from tritpack.converter.verify.rungs.logits import find_safe_prompts


@pytest.mark.parametrize(
    ("ours", "expected", "error"),
    [
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([-0.0, 0.0], [0.0, -0.0], 0.0),
        ([0.5, 0.0], [0.0, 0.0], np.inf),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([np.nan, 0.0], [0.0, 0.0], np.nan),
        ([np.nan, 0.0], [1.0, 0.0], np.nan),
    ],
    ids=["zeros", "signed zeros", "something for zeros", "ordinary", "nan for zeros", "nan"],
)
def test_errors_of_positions(ours: list[float], expected: list[float], error: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        errors = position_errors(np.array([ours], np.float32), np.array([expected], np.float32))
    np.testing.assert_array_equal(errors, np.array([error], np.float32))


def with_zero_rows(source: Path, target: Path, rows: list[int], padding: int, filler: bytes = bytes(2)) -> Path:
    """The tiny checkpoint with rows of its embedding (bf16, 256 columns) overwritten, and padding rows appended."""

    def change(tensors: Tensors) -> None:
        dtype, (count, cols), data = tensors["model.embed_tokens.weight"]
        table = bytearray(data + filler * cols * padding)
        for row in rows:
            table[2 * cols * row : 2 * cols * (row + 1)] = filler * cols
        tensors["model.embed_tokens.weight"] = (dtype, [count + padding, cols], bytes(table))

    def widen(config: dict) -> None:
        config["vocab_size"] += padding

    return edited_checkpoint(source, target, tensors=change, config=widen)


def verified(folder: Path, path: Path) -> Report:
    convert(folder, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return verify(path, folder)


@pytest.mark.parametrize(
    ("bos", "padding", "filler"),
    [(False, 512, bytes(2)), (True, 0, bytes(2)), (True, 96, b"\x00\x80")],
    ids=["a padded vocabulary", "a zero BOS row", "rows of minus zero"],
)
def test_zero_rows_accuse_nobody(bos: bool, padding: int, filler: bytes, tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [json.loads((tiny_checkpoint / "config.json").read_text())["bos_token_id"]] if bos else []
    folder = with_zero_rows(tiny_checkpoint, tmp_path / "c", rows, padding, filler)
    report = verified(folder, tmp_path / "m.gguf")
    assert report.verdict == "pass", [rung.sentences for rung in report.rungs]
    assert {rung.verdict for rung in report.rungs} == {"pass"}


def test_prompts_that_decide_hold_no_zero_rows(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Zeros lie far from every rounding boundary, so that such prompts would be chosen gladly, and prove nothing."""
    folder = with_zero_rows(tiny_checkpoint, tmp_path / "c", [], 4096)
    prompts = find_safe_prompts(Oracle(folder))
    assert prompts and max(max(prompt) for prompt in prompts) < 512

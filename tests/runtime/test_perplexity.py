"""Perplexity: the definition, its error bars, and the distance from a second model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DEMO, exit_code_of, run
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.formats.errors import UsageError
from tritpack.formats.names import ExitCode
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import Estimate, negative_log_likelihoods, score, windows_of

RNG = np.random.default_rng(7)


class Table:
    """A model that says the same whatever comes before."""

    def __init__(self, logits: np.ndarray) -> None:
        self.row = logits.astype(np.float32)

    def logits(self, tokens: list[int]) -> np.ndarray:
        return np.tile(self.row, (len(tokens), 1))


def test_against_the_formulas() -> None:
    """Entropy, cross entropy and divergence of two known distributions."""
    p, q = np.array([0.5, 0.25, 0.125, 0.125]), np.array([0.25, 0.25, 0.25, 0.25])
    tokens = [0] + [0] * 4 + [1] * 2 + [2, 3]
    found = score(Table(np.log(q)), [tokens], base=Table(np.log(p)))
    assert found["perplexity"]["value"] == pytest.approx(4.0)
    assert found["perplexity"]["error"] == pytest.approx(0.0, abs=1e-6) and found["perplexity"]["samples"] == 8
    assert found["perplexity_base"]["value"] == pytest.approx(2**1.75)
    scores = -np.log(p[tokens[1:]])
    assert found["perplexity_base"]["error"] == pytest.approx(2**1.75 * scores.std(ddof=1) / np.sqrt(8), rel=1e-5)
    assert found["ln_ratio"]["value"] == pytest.approx(np.log(4) - 1.75 * np.log(2))
    assert found["kl"]["value"] == pytest.approx((p * np.log(p / q)).sum()) and found["kl"]["error"] < 1e-7
    assert found["same_top_p"]["value"] == 1.0
    gained = (q - p)[tokens[1:]]
    assert found["delta_p_mean"]["value"] == pytest.approx(gained.mean())
    assert found["delta_p_rms"] == pytest.approx(np.sqrt((gained**2).mean()))


def test_windows() -> None:
    assert windows_of([9, 1, 2, 3, 4, 5], 3, 9) == [[9, 1, 2], [9, 3, 4], [9, 5]]
    assert windows_of([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4]]  # the last one scores nothing
    with pytest.raises(UsageError):
        windows_of([1, 2], 1)
    tokens = RNG.integers(0, 4, 20).tolist()
    logits = RNG.normal(size=(20, 4)).astype(np.float32)
    assert np.array_equal(negative_log_likelihoods(logits, tokens, 12), negative_log_likelihoods(logits, tokens)[12:])
    with pytest.raises(UsageError, match="no position"):
        score(Table(np.zeros(4)), [[1, 2, 3]], skip=2)
    assert np.isnan(Estimate.mean([]).value) and np.isnan(Estimate.mean([1.0]).error)


def test_the_demo_by_the_command(demo_gguf: Path) -> None:
    """What train.py recorded of transformers' own perplexity: windows of 256 tokens, each behind a BOS."""
    recorded = json.loads((DEMO / "demo.json").read_text())["perplexity"]
    text = DEMO / "heldout.txt"
    document = json.loads(run("perplexity", demo_gguf, "--text", text, "--window", "256", "--json").stdout)
    assert document["schema"] == "tritpack.perplexity/1"
    assert document["perplexity"]["value"] == pytest.approx(recorded, rel=3e-3)
    assert 0 < document["perplexity"]["error"] < recorded / 5 and document["kernels"]
    half = json.loads(run("perplexity", demo_gguf, "--text", text, "--window", "256", "--skip", "128", "--json").stdout)
    assert half["perplexity"]["value"] < document["perplexity"]["value"]  # more context is better
    assert half["perplexity"]["samples"] < document["perplexity"]["samples"]


def test_two_layouts_with_equal_scales_are_the_same_model(demo_gguf: Path, tmp_path: Path) -> None:
    convert(demo_gguf, tmp_path / "t158.gguf", outtype="t158")
    document = json.loads(run("perplexity", demo_gguf, "--against", tmp_path / "t158.gguf", "--json").stdout)
    assert document["kl"]["value"] == 0 == document["ln_ratio"]["value"] and document["same_top_p"]["value"] == 1
    convert(DEMO / "checkpoint", tmp_path / "q8.gguf", embedding_type="q8_0")
    result = run("perplexity", tmp_path / "q8.gguf", "--against", demo_gguf)
    assert "same top" in result.stdout and "KL" in result.stdout
    document = json.loads(run("perplexity", tmp_path / "q8.gguf", "--against", demo_gguf, "--json").stdout)
    assert 0 < document["kl"]["value"] < 0.01 and document["kl_percentiles"]["50"] <= document["kl_max"]


def test_what_cannot_be_scored(demo_gguf: Path, tiny_gguf: Path, checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert exit_code_of(run("perplexity", demo_gguf, "--text", tmp_path / "none")) == ExitCode.UNREADABLE
    assert exit_code_of(run("perplexity", demo_gguf, "--against", tiny_gguf)) == ExitCode.USAGE
    (tmp_path / "short.txt").write_text("")
    assert exit_code_of(run("perplexity", demo_gguf, "--text", tmp_path / "short.txt")) == ExitCode.USAGE
    assert exit_code_of(run("perplexity", checkpoints("embedding_qwen3").folder)) == ExitCode.UNSUPPORTED


def test_a_model_scores_itself_as_its_logits_say(demo_gguf: Path) -> None:
    with Model(demo_gguf) as model:
        windows = windows_of(model.tokenizer.encode("Once upon a time there lived a king."), 8, model.tokenizer.bos_id)
        found = score(model, windows)
        want = np.concatenate([negative_log_likelihoods(model.logits(window), window) for window in windows])
    assert found["perplexity"]["value"] == pytest.approx(np.exp(want.mean()))

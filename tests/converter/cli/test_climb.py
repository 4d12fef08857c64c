"""What `verify` says before and while it climbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import run
from tritpack.converter.verify import cost
from tritpack.converter.verify.alone import ALONE
from tritpack.converter.verify.alone import cost as alone_cost
from tritpack.converter.verify.alone.cost import Cost, expected_cost
from tritpack.converter.verify.alone.language import tokens_to_score
from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.cost import expected_seconds
from tritpack.converter.verify.rungs import LEVELS, RUNGS
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.tokenizer import Tokenizer


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does a million operations in a second."""
    for speed in ("_operations_per_second", "_values_per_second"):
        monkeypatch.setattr(cost, speed, lambda: 1e6)


@pytest.mark.usefixtures("slow_machine")
def test_a_long_climb_is_announced(tiny_gguf: Path, tiny_checkpoint: Path) -> None:
    shown = run("verify", tiny_gguf, "--source", tiny_checkpoint, "--level", "kernels")
    assert shown.exit_code == 0
    first = shown.stderr.splitlines()[0]
    assert first.startswith("expected: about ") and first.endswith("; a lower --level costs less")
    assert "(weights " in first and "kernels " in first and "logits" not in first


@pytest.mark.usefixtures("slow_machine")
def test_quiet_announces_nothing(tiny_gguf: Path, tiny_checkpoint: Path) -> None:
    assert run("verify", tiny_gguf, "--source", tiny_checkpoint, "--level", "weights", "-q").stderr == ""


def test_a_short_climb_is_not_announced(
    tiny_gguf: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for speed in ("_operations_per_second", "_values_per_second"):
        monkeypatch.setattr(cost, speed, lambda: 1e12)
    assert run("verify", tiny_gguf, "--source", tiny_checkpoint, "--level", "weights").stderr == ""


def test_what_rungs_cost(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_operations_per_second", lambda: 1e9)
    file = GgufFile(tiny_gguf)
    monkeypatch.setattr(cost, "_values_per_second", lambda: 1e9)
    short, long = (expected_seconds(file, text="a word " * count, given=True) for count in (100, 10_000))
    assert set(short) <= set(RUNGS) < set(LEVELS)
    assert {name for name in short if long[name] > short[name]} == {"text"}
    assert all(seconds > 0 for seconds in short.values())


def test_the_speed_of_this_machine_is_measured() -> None:
    assert 1e6 < cost._operations_per_second() < 1e15
    assert 1e6 < cost._values_per_second() < 1e13


def test_of_a_long_text_the_beginning_is_counted(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "COUNTED", 1000)
    file = GgufFile(tiny_gguf)
    assert cost.token_count(file, "a word " * 10_000) == pytest.approx(
        70 * cost.token_count(file, "a word " * 143), rel=0.02
    )


def test_tokens_are_counted_without_the_tokenizer(tiny_gguf: Path) -> None:
    file, text = GgufFile(tiny_gguf), read_text(None)
    right = len(Tokenizer.from_metadata(file.metadata).encode(text))
    assert cost.token_count(file, text) == pytest.approx(right, rel=0.3)


# -- without a source --------------------------------------------------------------------------------------------------


def alone(path: Path, *, everything: bool = False, words: str | None = None) -> Cost:
    return expected_cost(GgufFile(path), words, opening=0.5, everything=everything)


def test_what_checks_cost_without_a_source(tiny_gguf: Path) -> None:
    cost = alone(tiny_gguf)
    assert set(cost.checks) < set(ALONE) and all(seconds > 0 for seconds in cost.checks.values())
    assert cost.hashing > 0
    few, many = cost, alone(tiny_gguf, everything=True)
    assert many.checks["language"] > few.checks["language"] / 2  # 128 tokens, and all of some 1000


def test_a_claimed_vocabulary_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone_cost, "negative_log_likelihoods", lambda logits, tokens: shapes.append(logits.shape))
    shapes: list[tuple[int, ...]] = []
    assert alone_cost._scoring(1 << 31) > 0
    assert set(shapes) == {(8, alone_cost.MOST_COLUMNS)}


def test_a_model_without_language_costs_all_texts(monkeypatch: pytest.MonkeyPatch, tiny_gguf: Path) -> None:
    monkeypatch.setattr(alone_cost, "_seconds", lambda work: 1.0)
    cost = alone(tiny_gguf)
    first, others = tokens_to_score(None, everything=False)
    assert cost.without_language == pytest.approx(cost.checks["language"] * others / first)
    assert alone(tiny_gguf, words="One text alone.").without_language == 0


def test_a_long_check_of_a_file_alone_is_announced(monkeypatch: pytest.MonkeyPatch, tiny_gguf: Path) -> None:
    costs = Cost({"weights": 2.0, "language": 12.0}, 1.0, 20.0)
    monkeypatch.setattr(alone_cost, "expected_cost", lambda *args, **options: costs)
    first = run("verify", tiny_gguf).stderr.splitlines()[0]
    assert first == (
        "expected: about 15 s (weights 2 s, language 12 s, hash of the file 1 s); 20 s more if the model shows no "
        "language; a lower --level costs less"
    )
    first = run("verify", tiny_gguf, "--level", "weights").stderr
    assert "more if" not in first

"""What `verify` says before and while it climbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import run
from tritpack.converter.verify import cost
from tritpack.converter.verify.cost import expected_seconds
from tritpack.converter.verify.rungs import LEVELS, RUNGS
from tritpack.formats.gguf_reader import GgufFile


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does a million operations in a second."""
    monkeypatch.setattr(cost, "_operations_per_second", lambda: 1e6)


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
    monkeypatch.setattr(cost, "_operations_per_second", lambda: 1e12)
    assert run("verify", tiny_gguf, "--source", tiny_checkpoint, "--level", "weights").stderr == ""


def test_what_rungs_cost(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_operations_per_second", lambda: 1e9)
    file = GgufFile(tiny_gguf)
    short, long = (expected_seconds(file, text_bytes=count) for count in (100, 10_000))
    assert set(short) <= {*RUNGS, "language"} and set(RUNGS) < set(LEVELS)
    assert {name for name in short if long[name] > short[name]} == {"text"}
    assert all(seconds > 0 for seconds in short.values())


def test_the_speed_of_this_machine_is_measured() -> None:
    assert 1e6 < cost._operations_per_second() < 1e15

"""The options of `tritpack recipe run` that say where recipes run, and what it makes of their outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import exit_code_of, run
from tritpack.converter.release import fleet
from tritpack.converter.release.fleet import Fleet, Outcome
from tritpack.formats.errors import Unreadable, Unsupported


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[str], Fleet]]:
    """What the command asked of a fleet in which every recipe fails as its name says."""
    asked: list[tuple[Sequence[str], Fleet]] = []
    errors = {"bug": KeyError("a bug"), "unsupported": Unsupported("no", hint="none"), "unreadable": Unreadable("no")}

    def fails(recipes: Sequence[str], work: Any, wanted: Fleet) -> Iterator[Outcome]:
        asked.append((recipes, wanted))
        return (Outcome(name, error=errors[name]) for name in recipes)

    monkeypatch.setattr(fleet, "run_fleet", fails)
    return asked


def test_the_options_become_a_fleet(calls: list[tuple[Sequence[str], Fleet]]) -> None:
    options = ("--executor", "dask", "--workers", "3", "--worker-memory", "2G", "--retries", "5")
    run("recipe", "run", "unsupported", *options)
    run("recipe", "run", "unsupported", "--executor", "dask", "--scheduler", "tcp://127.0.0.1:8786")
    run("recipe", "run", "unsupported")
    assert [wanted for _, wanted in calls] == [
        Fleet("dask", None, 3, 2_000_000_000, 5), Fleet("dask", "tcp://127.0.0.1:8786"), Fleet(),
    ]  # fmt: skip


def test_options_of_dask_are_refused_without_it(tmp_path: Path) -> None:
    result = run("recipe", "run", "demo", "-o", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:8786")
    assert exit_code_of(result) == 2 and "--executor dask" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_every_recipe_is_reported_and_the_first_error_is_the_exit_code(
    calls: list[tuple[Sequence[str], Fleet]],
) -> None:
    result = run("recipe", "run", "unsupported", "unreadable", "--json")
    assert [row["exit_code"] for row in json.loads(result.stdout)["releases"]] == [4, 3]
    assert result.exit_code == 4
    assert isinstance(run("recipe", "run", "unreadable").exception, Unreadable)


def test_a_bug_in_one_recipe_is_raised_after_the_others(calls: list[tuple[Sequence[str], Fleet]]) -> None:
    result = run("recipe", "run", "bug", "unreadable", "--json")
    assert [row["exit_code"] for row in json.loads(result.stdout)["releases"]] == [3]
    assert isinstance(result.exception, KeyError)

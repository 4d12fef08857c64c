"""What `verify` shows while it climbs: the rung, for how long, and what all of them will cost."""

from __future__ import annotations

import time
from pathlib import Path

import click

from tritpack.converter.cli.human import duration
from tritpack.converter.cli.progress import Alive
from tritpack.converter.verify.alone import split_alone
from tritpack.converter.verify.rungs import split_at
from tritpack.formats.errors import TritpackError

FIRST = "structure"
"""The rung that looks at all that an estimate needs; it takes a moment."""
WORTH_SAYING = 10.0
"""Seconds that a climb must take for its cost to be said beforehand."""


class Climb:
    """Shows the rungs of a level as they begin; after the first one, what a long climb will cost. alone: without a
    source."""

    def __init__(
        self, path: Path, level: str, alive: Alive, *, text: str | None, quiet: bool, alone: bool = False
    ) -> None:
        self._path, self._level, self._alive, self._text, self._quiet = path, level, alive, text, quiet
        self._alone = alone
        self._expected: dict[str, float] | None = None

    def begin(self, rung: str) -> None:
        """Show that a rung begins."""
        if self._quiet:
            return
        if self._expected is None and rung != FIRST:  # once FILE and the options are known to be good
            self._expected = self._estimate()
        self._alive.show(rung, expected=(self._expected or {}).get(rung))

    def _estimate(self) -> dict[str, float]:
        """Return the seconds of each rung, and say them if they are many."""
        try:
            return self._estimate_alone() if self._alone else self._estimate_against_source()
        except TritpackError:  # the rungs say it better
            return {}

    def _estimate_against_source(self) -> dict[str, float]:
        from tritpack.converter.verify.built_in_text import read_text
        from tritpack.converter.verify.cost import expected_seconds
        from tritpack.formats.gguf_reader import GgufFile

        full = self._level == "full"
        given = self._text is not None
        expected = expected_seconds(GgufFile(self._path), text=read_text(self._text), given=given, full=full)
        climbed = {module.name: expected[module.name] for module in split_at(self._level)[0] if module.name in expected}
        _say_cost(climbed)
        return climbed

    def _estimate_alone(self) -> dict[str, float]:
        from tritpack.converter.verify.alone.cost import expected_cost
        from tritpack.converter.verify.built_in_text import read_text
        from tritpack.formats.gguf_reader import GgufFile

        started = time.perf_counter()
        file = GgufFile(self._path)
        opening = time.perf_counter() - started
        words = None if self._text is None else read_text(self._text)
        cost = expected_cost(file, words, opening=opening, everything=self._level == "full")
        checks = [module.name for module in split_alone(self._level)]
        climbed = {name: seconds for name, seconds in cost.checks.items() if name in checks}
        more = cost.without_language if "language" in climbed else 0.0
        _say_cost({**climbed, "hash of the file": cost.hashing}, more)
        return climbed


def _say_cost(expected: dict[str, float], more: float = 0.0) -> None:
    """Say what the rungs will cost. more: seconds that come to it if the model shows no language."""
    total = sum(expected.values())
    if total + more < WORTH_SAYING:
        return
    parts = ", ".join(f"{rung} {duration(seconds)}" for rung, seconds in expected.items() if seconds >= 1)
    rest = f"; {duration(more)} more if the model shows no language" if more >= 1 else ""
    click.echo(f"expected: about {duration(total)} ({parts}){rest}; a lower --level costs less", err=True)

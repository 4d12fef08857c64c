"""What `verify` shows while it climbs: the rung, for how long, and what all of them will cost."""

from __future__ import annotations

from pathlib import Path

import click

from tritpack.converter.cli.human import duration
from tritpack.converter.cli.progress import Alive
from tritpack.converter.verify.alone import split_alone
from tritpack.converter.verify.rungs import split_at
from tritpack.formats.errors import TritpackError

WORTH_SAYING = 10.0
"""Seconds that a climb must take for its cost to be said before it begins."""


class Climb:
    """Shows the rungs of a level as they begin; before the first one, what a long climb will cost. alone: without a
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
        if self._expected is None:  # once FILE and the options are known to be good
            self._expected = self._estimate()
            self._say_cost(self._expected)
        self._alive.show(rung, expected=self._expected.get(rung))

    def _estimate(self) -> dict[str, float]:
        from tritpack.converter.verify.built_in_text import read_text
        from tritpack.converter.verify.cost import expected_seconds
        from tritpack.formats.gguf_reader import GgufFile

        modules = split_alone(self._level) if self._alone else split_at(self._level)[0]
        climbed = [module.name for module in modules]
        try:
            expected = expected_seconds(
                GgufFile(self._path), text_bytes=len(read_text(self._text)), full=self._level == "full"
            )
        except TritpackError:  # the rungs say it better
            return {}
        return {rung: seconds for rung, seconds in expected.items() if rung in climbed}

    def _say_cost(self, expected: dict[str, float]) -> None:
        total = sum(expected.values())
        if total >= WORTH_SAYING:
            parts = ", ".join(f"{rung} {duration(seconds)}" for rung, seconds in expected.items() if seconds >= 1)
            click.echo(f"expected: about {duration(total)} ({parts}); a lower --level costs less", err=True)

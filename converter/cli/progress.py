"""Progress on stderr: one line that is rewritten on a terminal, and a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time


class Progress:
    """A callable for (name, done, total), which prints nothing if `quiet`."""

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        self._what = what
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._next = 0.0 if self._live else time.monotonic() + 10.0

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._quiet or (now < self._next and not (self._live and done == total)):
            return
        self._next = now + (0.1 if self._live else 10.0)
        line = f"{self._what} {done}/{total} {name}"
        if not self._live:
            print(line.rstrip(), file=sys.stderr)
        else:
            print(f"\r{line:<78}"[:79], end="\n" if done == total else "", file=sys.stderr, flush=True)

"""Progress on stderr: one line that is rewritten on a terminal, and a plain line every ten seconds elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from types import TracebackType

from tritpack.converter.cli.human import duration, size


class Progress:
    """A callable for (name, done, total), which prints nothing if `quiet`.

    unit: what `done` and `total` count; bytes are shown as sizes, with the time that is left.
    """

    def __init__(self, what: str, *, unit: str = "bytes", quiet: bool = False) -> None:
        self._what = what
        self._unit = unit
        self._quiet = quiet
        self._live = is_terminal()
        self._started = time.monotonic()
        self._next = self._started + (0.0 if self._live else 10.0)

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0:
            self._started = now  # what came before says nothing about the speed
        if self._quiet or (now < self._next and done < total):
            return
        self._next = now + (0.1 if self._live else 10.0)
        line = f"{self._what}: {self._amount(done, total, now)} {name}".rstrip()
        if not self._live:
            if done < total:
                print(line, file=sys.stderr, flush=True)
        elif done < total:
            show_line(line)
        else:
            clear_line()

    def _amount(self, done: int, total: int, now: float) -> str:
        if self._unit != "bytes":
            return f"{done} of {total} {self._unit}"
        amount = f"{done / total:4.0%} of {size(total)}"
        seconds = now - self._started
        return f"{amount}, {duration(seconds * (total - done) / done)} left" if done and seconds > 2 else amount


class Alive:
    """A context manager that shows what is being done and for how long, while something else runs.

    On a terminal it is a line that is rewritten, elsewhere a line every 30 seconds; nothing if `quiet`.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._live = is_terminal()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = None if quiet else threading.Thread(target=self._tick, daemon=True)
        self._what: str | None = None
        self._expected: float | None = None
        self._started = self._next = 0.0

    def __enter__(self) -> Alive:
        if self._thread:
            try:
                self._thread.start()
            except RuntimeError:  # no thread can be started: the work matters more
                self._thread = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._ended.set()
            self._thread.join()
            self.hide()

    def show(self, what: str, *, expected: float | None = None) -> None:
        """Show this from now on. expected: the seconds that it should take, if known."""
        with self._lock:
            self._what, self._expected, self._started = what, expected, time.monotonic()
            self._next = self._started + (0.2 if self._live else 30.0)

    def hide(self) -> None:
        """Show nothing, so that other lines can be printed."""
        with self._lock:
            if self._live and self._thread and self._what:
                clear_line()
            self._what = None

    def _tick(self) -> None:
        while not self._ended.wait(0.2):
            with self._lock:
                now = time.monotonic()
                if self._what is None or now < self._next:
                    continue
                self._next = now + (0.2 if self._live else 30.0)
                seconds = now - self._started
                line = f"{self._what}: {duration(seconds)}"
                if self._expected is not None and seconds <= self._expected:
                    line += f" of about {duration(self._expected)}"
                if self._live:
                    show_line(line)
                else:
                    print(line, file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Return whether stderr is a terminal on which a line can be rewritten."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def show_line(line: str) -> None:
    """Write a line on a terminal, cut to its width, in place of the one that is there."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        columns = 80
    # A terminal that is as wide as the line would begin a new one.
    print(f"\r{_cut(line, columns - 1)}\x1b[K", end="", file=sys.stderr, flush=True)


def clear_line() -> None:
    """Remove what show_line has written, so that another line can take its place."""
    if is_terminal():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _cut(line: str, columns: int) -> str:
    """Return as much of a line as fits into so many columns. A name from a file may hold any character."""
    shown, width = [], 0
    for character in line:
        character = character if character.isprintable() else "?"
        width += 0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > columns:
            break
        shown.append(character)
    return "".join(shown)

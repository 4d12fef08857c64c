"""Progress on stderr: a tqdm bar on a terminal, and a plain line every ten seconds elsewhere."""

from __future__ import annotations

import os
import sys
import threading
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from tritpack.converter.cli.human import duration, size

if TYPE_CHECKING:
    from tqdm import tqdm


BAR = "{l_bar}{bar:10}| {n_fmt}/{total_fmt} {rate_fmt}, {remaining} left{postfix}"
"""The name of the tensor comes last, because a narrow terminal cuts off the end."""


class Progress:
    """A callable for (name, done, total), which prints nothing if `quiet`.

    unit: what `done` and `total` count; bytes are shown as sizes.
    """

    def __init__(self, what: str, *, unit: str = "bytes", quiet: bool = False) -> None:
        self._what = what
        self._unit = unit
        self._quiet = quiet
        self._live = is_terminal()
        self._bar: tqdm[NoReturn] | None = None
        self._started = monotonic()
        self._next = self._started + 10.0

    def __call__(self, name: str, done: int, total: int) -> None:
        if self._quiet or total == 0:
            return
        if self._live:
            self._show(name, done, total)
        else:
            self._print(name, done, total)

    def _show(self, name: str, done: int, total: int) -> None:
        if self._bar is None:
            scaled = self._unit == "bytes"
            style = {"unit": "B" if scaled else f" {self._unit}", "unit_scale": scaled, "miniters": 0}
            self._bar = bar(total=total, desc=self._what, bar_format=BAR, **style)
        self._bar.set_postfix_str(plain(name), refresh=False)
        if done == 0:
            self._bar.reset(total)  # what came before says nothing about the speed
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
            self._bar = None

    def _print(self, name: str, done: int, total: int) -> None:
        now = monotonic()
        if done == 0:
            self._started, self._next = now, now + 10.0
        if now < self._next or done >= total:
            return
        self._next = now + 10.0
        print(f"{self._what}: {self._amount(done, total, now)} {name}".rstrip(), file=sys.stderr, flush=True)

    def _amount(self, done: int, total: int, now: float) -> str:
        if self._unit != "bytes":
            return f"{done} of {total} {self._unit}"
        amount = f"{done / total:4.0%} of {size(total)}"
        seconds = now - self._started
        if not done or seconds <= 2:
            return amount
        return f"{amount}, {size(int(done / seconds))}/s, {duration(seconds * (total - done) / done)} left"


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
        self._bar: tqdm[NoReturn] | None = None
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
            self._what, self._expected, self._started = what, expected, monotonic()
            self._next = self._started + (0.2 if self._live else 30.0)

    def hide(self) -> None:
        """Show nothing, so that other lines can be printed."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None
            self._what = None

    def _tick(self) -> None:
        while not self._ended.wait(0.2):
            with self._lock:
                now = monotonic()
                if self._what is None or now < self._next:
                    continue
                self._next = now + (0.2 if self._live else 30.0)
                seconds = now - self._started
                line = f"{self._what}: {duration(seconds)}"
                if self._expected is not None and seconds <= self._expected:
                    line += f" of about {duration(self._expected)}"
                if self._live:
                    if self._bar is None:
                        self._bar = bar(bar_format="{desc}{bar:0}")  # tqdm cuts only what holds a bar
                    self._bar.set_description_str(plain(line))
                else:
                    print(line, file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Return whether stderr is a terminal on which a line can be rewritten."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def bar(**options: Any) -> tqdm[NoReturn]:
    """Return a tqdm bar on stderr that follows the width of the terminal and is removed when it ends."""
    from tqdm import tqdm

    return tqdm(file=sys.stderr, leave=False, dynamic_ncols=True, **options)


def clear_line() -> None:
    """Remove what a bar has written, so that another line can take its place."""
    if is_terminal():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def plain(name: str) -> str:
    """Return a name from a file without the characters that steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)

"""What progress shows on terminals of any width, and elsewhere."""

from __future__ import annotations

import io
import os
import threading

import pytest

from tritpack.converter.cli import progress as module
from tritpack.converter.cli.human import duration, size
from tritpack.converter.cli.progress import Alive, Progress
from tritpack.converter.convert import convert
from tritpack.converter.export.export import export


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> Terminal:
    """Put a terminal in the place of stderr. A fixture cannot: pytest puts its own there before the test."""
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((columns, 24)))
    return stream


def cells(line: str) -> int:
    """The width of a line on a terminal."""
    return sum({"権": 2, "重": 2, "\u0301": 0}.get(character, 1) for character in line)


@pytest.mark.parametrize("columns", [10, 40, 80, 300])
@pytest.mark.parametrize("name", ["blk.0.attn_q.weight" * 20, "権重" * 200, "e\u0301" * 400])
def test_a_line_never_is_wider_than_the_terminal(columns: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch, columns)
    progress = Progress("converting")
    progress(name, 0, 100)
    alive = Alive()
    monkeypatch.setattr(alive, "_ended", Ticks(2))
    alive.show(name)
    alive._next = 0.0
    with alive:
        pass
    lines = stream.getvalue().replace("\x1b[A", "").split("\r")
    assert max(map(cells, lines)) <= columns
    assert max(map(cells, lines)) >= columns - 1


def test_names_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    Progress("converting")("a\x1b]0;title\x07\nb", 0, 100)
    assert "a?]0;title??b" in stream.getvalue() and "\x1b]" not in stream.getvalue()


def test_a_terminal_shows_sizes_and_is_clean_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    progress = Progress("converting")
    progress("", 0, 1_000_000_000)
    monkeypatch.setattr(progress._bar, "mininterval", 0.0)
    progress("blk.0.attn_q.weight", 250_000_000, 1_000_000_000)
    progress("", 1_000_000_000, 1_000_000_000)
    shown = [line for line in stream.getvalue().split("\r") if "blk.0" in line]
    assert len(shown) == 1 and shown[0].startswith("converting:  25%|") and "250M/1.00G" in shown[0]
    assert stream.getvalue().endswith("\r") and not stream.getvalue().split("\r")[-2].strip()


@pytest.mark.parametrize("dumb", [False, True])
def test_elsewhere_it_prints_a_line_every_ten_seconds(dumb: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal() if dumb else io.StringIO()
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    clock = iter([0.0, 5.0, 11.0, 15.0])
    monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    progress = Progress("timing", unit="tests")
    for done in range(3):
        progress("tg128", done, 3)
    assert stream.getvalue() == "timing: 2 of 3 tests tg128\n"


class Ticks:
    """Stands for Event: lets the thread tick so many times, and returns when it has."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.all = threading.Event()

    def wait(self, seconds: float) -> bool:
        self.count -= 1
        if self.count < 0:
            self.all.set()
        return self.count < 0

    def set(self) -> None:
        self.all.wait()


@pytest.mark.parametrize("live", [True, False])
def test_alive_counts_seconds_and_leaves_nothing(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    stream.isatty = lambda: live  # type: ignore[method-assign]
    clock = iter([0.0, 5.0, 40.0])
    monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    alive = Alive()
    monkeypatch.setattr(alive, "_ended", Ticks(2))
    alive.show("weights", expected=125)
    with alive:
        pass
    if not live:
        assert stream.getvalue() == "weights: 40 s of about 2 min 05 s\n"
        return
    shown = [line.strip() for line in stream.getvalue().split("\r")]
    assert [line for line in shown if line] == ["weights: 5 s of about 2 min 05 s", "weights: 40 s of about 2 min 05 s"]
    assert stream.getvalue().endswith("\r") and not shown[-2]


def test_alive_can_be_quiet_and_does_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    for quiet in (True, False):
        with Alive(quiet=quiet) as alive:
            alive.show("weights")
            alive.hide()
    assert stream.getvalue() == ""


def test_bytes_are_counted(tiny_checkpoint, tiny_gguf, tmp_path) -> None:  # type: ignore[no-untyped-def]
    calls: list[tuple[str, int, int]] = []
    convert(tiny_checkpoint, tmp_path / "m.gguf", progress=lambda *call: calls.append(call))
    amounts = [call[1] for call in calls]
    assert calls[-1][2] == (tiny_checkpoint / "model.safetensors").stat().st_size
    assert amounts[0] == 0 and amounts == sorted(amounts) and amounts[-1] == calls[-1][2]
    calls.clear()
    result = export(tiny_gguf, tmp_path / "folder", progress=lambda *call: calls.append(call))
    weights = (tmp_path / "folder" / "model.safetensors").stat().st_size
    assert 0 < calls[-1][1] == calls[-1][2] < weights <= result.nbytes


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (2529248, "2.53 MB"), (9_996_000, "10.0 MB"),
     (99_960_000, "100 MB"), (999_600_000, "1.00 GB"), (1_187_801_280, "1.19 GB"), (5 * 10**16, "50000 TB")],
)  # fmt: skip
def test_size(nbytes: int, expected: str) -> None:
    assert size(nbytes) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (1099, "18 min"),
        (3590, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected

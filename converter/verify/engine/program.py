"""The user's engine as a process: what it is, which options it knows, and a run with bounds on time and output."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.printable import printable

Kind = Literal["server", "perplexity", "cli"]
MARKS: Mapping[Kind, tuple[str, str]] = {
    "server": ("server", "--port"),
    "perplexity": ("perplexity", "--kl-divergence-base"),
    "cli": ("", "--predict"),
}
"""Kind of program -> a piece of its name, and an option in its help; asked in this order, names first."""
KEPT_LINES, LINE, KEPT_OUTPUT = 400, 2000, 1 << 16
"""How much is kept of what a program prints: the last lines and the beginning of each, or the first bytes."""
HELP_LINES = 20000
MARK = "TRITPACK_ENGINE_RUN"
"""The variable by which the processes that a program has started are found."""
ROUNDS = 20
"""How often they are looked for: one may start another while it is killed."""
LAST_WORDS = 3
"""Lines that an error shows: the first that tell of trouble, else the last."""
TROUBLE = re.compile("error|fail|assert|abort|exception|invalid|unknown", re.IGNORECASE)


class EngineFailed(Unsupported):
    """The user's engine ended, hung or answered nonsense. What it printed is the hint."""


@dataclasses.dataclass(frozen=True)
class Program:
    """An engine's program. help: what it prints for --help. version: one line."""

    path: Path
    kind: Kind
    help: str
    version: str

    def knows(self, option: str) -> bool:
        """Return whether its help has an option."""
        return f"{option} " in self.help or f"{option}," in self.help or f"{option}\n" in self.help

    def options(self, wanted: Mapping[str, object]) -> list[str]:
        """Return those of the options that it knows, with their values; of one with the value None just the option."""
        known = [(option, value) for option, value in wanted.items() if self.knows(option)]
        return [str(word) for pair in known for word in pair if word is not None]


def open_program(path: str | Path, timeout: float) -> Program:
    """Ask a program what it is. Raises UsageError for a path that cannot be run, and for a program of another kind."""
    program = Path(path).absolute()  # not resolved: a binary that is several programs tells them by the link's name
    if not program.is_file() or not os.access(program, os.X_OK):
        raise UsageError(f"--engine {path} is not a program", hint="give the path of llama-server, built by you")
    text = _words(program, "--help", timeout)
    version = _words(program, "--version", timeout)
    first = next((line.strip() for line in version.splitlines() if "version" in line), "unknown version")
    for index in range(2):
        for kind, marks in MARKS.items():
            if marks[index] and marks[index] in (program.name, text)[index]:
                return Program(program, kind, text, printable(first[:120]))
    raise UsageError(
        f"--engine {path} is not llama-server, llama-cli or llama-perplexity: its --help has no option of theirs",
        hint="llama-server tells most",
    )


def _words(program: Path, option: str, timeout: float) -> str:
    with Running([str(program), option], kept=HELP_LINES) as running:
        running.wait(timeout)
        return "\n".join(running.lines)


class Running:
    """A started program, whose output is read and bounded, and which is killed at the end with its process group. On
    Linux, children that made a session of their own are killed too: they have inherited a mark in their environment.

    output: with `apart`, what it wrote to stdout, which is then not among its lines.
    """

    def __init__(
        self, command: Sequence[str], folder: Path | None = None, *, apart: bool = False, kept: int = KEPT_LINES
    ) -> None:
        self.command = list(command)
        self._lines: collections.deque[str] = collections.deque(maxlen=kept)
        self._lock = threading.Lock()
        self.output = bytearray()
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        try:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if apart else subprocess.STDOUT, cwd=folder, start_new_session=True,
                env={**os.environ, MARK: self._mark.partition("=")[2]},
            )  # fmt: skip
        except OSError as error:
            raise UsageError(f"--engine {command[0]} cannot be started: {error.strerror}") from error
        streams = {self._process.stderr: self._keep_line} if apart else {self._process.stdout: self._keep_line}
        if apart:
            streams[self._process.stdout] = self._keep_output
        self._readers = [threading.Thread(target=_read, args=pair, daemon=True) for pair in streams.items()]
        for reader in self._readers:
            reader.start()

    def _keep_line(self, line: bytes) -> None:
        text = line[:LINE].decode("utf-8", "replace").rstrip()
        with self._lock:
            self._lines.append(text)

    def _keep_output(self, line: bytes) -> None:
        self.output += line[: KEPT_OUTPUT - len(self.output)]

    @property
    def lines(self) -> list[str]:
        """The last lines that it has printed."""
        with self._lock:
            return list(self._lines)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(3)
                break
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)  # children that outlive it
        _kill_marked(self._mark.encode())
        self._join(3)

    @property
    def ended(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        """Return its exit status, with all of its output read. Raises EngineFailed if it takes longer."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failed(f"did not end within {timeout:.0f} seconds") from None
        self._join(3)
        return status

    def _join(self, seconds: float) -> None:
        for reader in self._readers:
            reader.join(seconds)

    def failed(self, how: str) -> EngineFailed:
        """Return the error that says how it failed, with its last lines."""
        self._join(0.2)
        lines = [printable(line.strip()) for line in self.lines if line.strip()]
        words = [line for line in lines if TROUBLE.search(line)][:LAST_WORDS] or lines[-LAST_WORDS:]
        name = Path(self.command[0]).name
        hint = f"{name} printed: {' | '.join(words)}" if words else f"{name} printed nothing"
        return EngineFailed(f"{name} {how}", hint=hint)

    def ended_error(self) -> EngineFailed:
        """Return the error for a program that ended by itself."""
        return self.failed(_how_it_ended(self.wait(3)))


def _kill_marked(mark: bytes) -> None:
    """Kill every process of this user that has a mark in its environment, and those that it starts meanwhile."""
    for _ in range(ROUNDS):
        marked = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mark in _environment(entry)]
        if not marked:
            return
        for pid in marked:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _environment(process: Path) -> list[bytes]:
    """Return the environment that a process was started with; none of one that has ended, or of another user."""
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _read(stream: IO[bytes], keep: Callable[[bytes], None]) -> None:
    with stream:
        while line := stream.readline(1 << 16):
            keep(line)


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with the status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


class Deadline:
    """A number of seconds that several steps share."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0.1."""
        return max(0.1, self._end - time.monotonic())

    def ticks(self, step: float) -> Iterator[None]:
        """Yield every `step` seconds until the time is over."""
        while time.monotonic() < self._end:
            yield
            time.sleep(step)

"""Limits for the programs that a file contains: its tokenizer, with normalisers and regular expressions, and its chat
templates. They run in another process (worker.py), with bounded time, memory and output.

The process is started once, with the first tokenizer or template, and kept. One that a program has ended is started
anew, and that program is refused from then on.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import IO, Any

from tritpack.formats import errors
from tritpack.formats.errors import MissingRequirement, TritpackError, Unreadable
from tritpack.runtime.worker import HEADER, LENGTH

SECONDS = 3.0
"""CPU time of the process after its start, besides what its requests add: a small file has no more."""
SECONDS_PER_REQUEST = 0.004
SECONDS_PER_CHARACTER = 5e-6
"""Of a text, some five times what a usual tokenizer needs on a slow machine."""
MEMORY = 1280 << 20
"""Bytes of address space of the process, besides those for the text at hand."""
MEMORY_PER_CHARACTER = 300
LONGEST_REPLY = 256 << 20
LONGEST_CHAT = 1_000_000
"""Characters of a rendered chat, besides those of its messages ten times."""

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from tritpack.runtime.worker import main; main()"


class Stopped(Unreadable):
    """A program of a file that ended its process, or had to be ended."""


class Worker:
    """The other process. `lock` is held for one request, or for several that belong together."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._seconds = 0.0  # of CPU time that the process may use in all
        self._late = False
        self._inherited: list[object] = []
        self._dropped: list[int] = []

    def start(self) -> int:
        """Start the process unless it runs; return how often it has been started. Raises MissingRequirement."""
        with self.lock:
            if self._process is None:
                command = [sys.executable, "-S", "-c", _START, json.dumps(sys.path)]
                silent = {"TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "1", "RUST_BACKTRACE": "0"}
                try:
                    self._process = subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **silent},
                        stderr=None if os.environ.get("TRITPACK_DEBUG") else subprocess.DEVNULL,
                    )  # fmt: skip
                except (OSError, ValueError) as error:
                    raise MissingRequirement(
                        f"the process for tokenizers and chat templates cannot be started: {error}"
                    ) from error
                self.starts += 1
                self._seconds = SECONDS
            return self.starts

    def request(self, subject: str, operation: str, *arguments: Any, seconds: float = 0.0, characters: int = 0) -> Any:
        """Let the process carry out one of its OPERATIONS and return the result.

        subject: what runs, for errors. seconds: CPU time that the request adds. characters: of the text that it works
        on. Raises Stopped if the process ends, the error that it reports, and ValueError for one without a sentence.
        """
        with self.lock:
            self.start()
            if self._dropped and operation != "drop":
                keys, self._dropped = self._dropped, []
                self.request(subject, "drop", keys)
            self._seconds += SECONDS_PER_REQUEST + seconds + characters * SECONDS_PER_CHARACTER
            memory = MEMORY + characters * MEMORY_PER_CHARACTER
            try:
                reply = self._exchange(subject, json.dumps([operation, arguments]).encode(), memory)
            except (OSError, EOFError):
                raise self._stopped(subject, memory) from None
            except BaseException:  # Ctrl-C: what the process answers later would be taken for another answer
                self.close()
                raise
        if "value" in reply:
            return reply["value"]
        if reply["error"] == "MemoryError":
            raise Stopped(_too_much_memory(subject, memory))
        if reply["error"] == "ValueError":
            raise ValueError(reply["message"])
        kind: type[TritpackError] = getattr(errors, reply["error"])
        raise kind(reply["message"], hint=reply.get("hint"))

    def drop(self, key: int) -> None:
        """Let the process forget a tokenizer, before its next request."""
        self._dropped.append(key)

    def close(self) -> None:
        """End the process; the next request starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def forget(self) -> None:
        """Leave the process to the parent of this one, which was forked."""
        self._inherited.append(self._process)  # freeing it would wait for a process that is not a child of this one
        self.lock, self._process = threading.RLock(), None

    def _exchange(self, subject: str, request: bytes, memory: int) -> dict[str, Any]:
        """Send a request and return its reply. Raises OSError or EOFError if the process ends."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        self._late = False
        # The process has a clock of its own, which counts only its computing, where the system has one.
        clock = None if hasattr(signal, "setitimer") else threading.Timer(self._seconds, self._end_late, (process,))
        if clock is not None:
            clock.start()
        try:
            process.stdin.write(HEADER.pack(len(request), self._seconds, memory))
            process.stdin.write(request)
            process.stdin.flush()
            (size,) = LENGTH.unpack(_read(process.stdout, LENGTH.size))
            if size > LONGEST_REPLY:
                self.close()
                raise Stopped(f"{subject} gives more than {LONGEST_REPLY >> 20} MiB")
            reply: dict[str, Any] = json.loads(_read(process.stdout, size))
        finally:
            if clock is not None:
                clock.cancel()
        return reply

    def _end_late(self, process: subprocess.Popen[bytes]) -> None:
        self._late = True
        process.kill()

    def _stopped(self, subject: str, memory: int) -> Stopped:
        """Why the process has ended."""
        process, self._process = self._process, None
        assert process is not None
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # its output has ended, and so will it
            process.communicate(timeout=5)
        process.kill()
        end = -process.wait()
        if self._late or end == getattr(signal, "SIGPROF", None):
            return Stopped(f"{subject} does not end: it was stopped after {self._seconds:.1f} s of computing")
        if end == signal.SIGABRT:  # the libraries in Rust abort where they get no memory
            return Stopped(_too_much_memory(subject, memory))
        name = signal.Signals(end).name if end > 0 else f"exit code {-end}"
        return Stopped(f"{subject} ends the process in which it runs ({name})")


def _too_much_memory(subject: str, memory: int) -> str:
    return f"{subject} takes more than {memory >> 20} MiB of memory"


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


WORKER = Worker()
atexit.register(WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER.forget)
_stopped_templates: dict[str, str] = {}  # with the sentence


def render(template: str, names: dict[str, Any], characters: int) -> str:
    """Render a chat template. characters: of the chat. Raises Unreadable for a template that fails or exceeds a limit,
    MissingRequirement without jinja2."""
    if template in _stopped_templates:
        raise Stopped(_stopped_templates[template])
    longest = LONGEST_CHAT + 10 * characters
    try:
        text: str = WORKER.request("the chat template", "render", template, names, longest, characters=characters)
    except Stopped as error:
        _stopped_templates[template] = error.message
        raise
    return text

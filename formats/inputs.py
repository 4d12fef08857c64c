"""Files that are read: regular ones, of bounded size, mapped, and watched for changes.

A FIFO, a device or a socket under the name of a file is refused before anything waits for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tritpack.formats.errors import Unreadable
from tritpack.formats.huge_pages import map_file
from tritpack.formats.suggestions import near_files

LARGEST_DOCUMENT = 128 << 20
"""Bytes of the largest file that is read as a whole: the largest tokenizer.json have 40 MB."""
KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)  # fmt: skip
PATIENCE = 5.0
"""Seconds that a pipe may stay silent before its first byte."""
STDIN = Path("standard input")
"""What errors call it."""

mapped: dict[Path, int] = {}
"""The files that this process has mapped, and their sizes then: reading a page that is no longer in the file gives
SIGBUS, and converter/cli/bus_error.py finds the file here."""


def open_input(path: Path) -> io.BufferedReader:
    """Open a regular file. Raises Unreadable for what is missing, not regular, or not ours to read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: text that no file name can be
        raise _unreadable(path, error) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise Unreadable(f"is {_kind(mode)}, expected a file", path=path)
    return open(descriptor, "rb")


def map_input(path: Path, *, smallest: int = 1, what: str = "a file") -> memoryview:
    """Map a regular file for reading. smallest: fewer bytes are too few for what the file should be, `what`.

    Raises Unreadable.
    """
    with open_input(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size < smallest:  # an empty file cannot be mapped
            hint = "it is empty or truncated; download or write it again"
            raise Unreadable(f"{size} bytes are too few for {what}", path=path, hint=hint)
        try:
            view = map_file(stream.fileno())
        except OSError as error:
            raise _unreadable(path, error) from error
    mapped[path] = len(view)
    return view


def read_input(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises Unreadable, also for one that is larger than LARGEST_DOCUMENT."""
    with open_input(path) as stream:
        return _read(path, stream)


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a file, or of a pipe that somebody writes to (`<(command)`). Raises Unreadable."""
    try:
        is_pipe = stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return _decoded(path, _read_pipe(path) if is_pipe else read_input(path))


def read_stdin() -> str:
    """Return the UTF-8 text of standard input, "" if there is none. Raises Unreadable."""
    return "" if sys.stdin is None else _decoded(STDIN, _read(STDIN, sys.stdin.buffer))


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise Unreadable(f"cannot be read as UTF-8 text: {error}", path=path) from error


def _read_pipe(path: Path) -> bytes:
    """Read a pipe to its end, without waiting for somebody to open its other end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:
        if not select.select([descriptor], [], [], PATIENCE)[0]:
            raise Unreadable(f"is a pipe into which nobody wrote for {PATIENCE:g} seconds", path=path)
        os.set_blocking(descriptor, True)
        return _read(path, stream)


def _read(path: Path, stream: BinaryIO) -> bytes:
    try:
        data = stream.read(LARGEST_DOCUMENT + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > LARGEST_DOCUMENT:
        raise Unreadable(f"is larger than {LARGEST_DOCUMENT >> 20} MiB, which no such file is", path=path)
    return data


def _unreadable(path: Path, error: OSError | ValueError) -> Unreadable:
    # A device without a driver, or a socket, cannot even be opened.
    with contextlib.suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return Unreadable(f"is {_kind(mode)}, expected a file", path=path)
    hint = near_files(path) if isinstance(error, FileNotFoundError) else None
    return Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}", path=path, hint=hint)


def _kind(mode: int) -> str:
    return next((name for test, name in KINDS if test(mode)), "not a regular file")


# -- whether files change while they are read --------------------------------------------------------------------------


class Identity(NamedTuple):
    """What changes when a file is written to or replaced."""

    size: int
    modified: int  # nanoseconds
    inode: int


class Unchanged:
    """A set of files as they are now; `check` raises Unreadable if one of them was changed since."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._identities: dict[Path, Identity | None] = {}
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        """Watch one more file, as it is now."""
        self._identities[path] = _identity(path)

    def fingerprint(self) -> str:
        """What tells these files from others and from later versions of themselves, as text."""
        return repr(sorted((path.name, identity) for path, identity in self._identities.items() if identity))

    def check(self) -> None:
        for path, identity in self._identities.items():
            if _identity(path) != identity:
                raise Unreadable("was changed while it was read", path=path, hint="run the command again")


def _identity(path: Path) -> Identity | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return Identity(status.st_size, status.st_mtime_ns, status.st_ino)

"""Files that are whole or absent: atomic output, the refusal to overwrite, and hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tritpack.formats.errors import Unreadable, UsageError, WriteFailed


@contextlib.contextmanager
def atomic_output(path: Path, size: int, *, force: bool, check: Callable[[Path], None] | None = None) -> Iterator[Any]:
    """A binary stream that becomes `path` only when the block ends without an error; after one, no file is left.

    check: is given the complete temporary file before it gets its name. Raises UsageError if `path` exists and force is
    false, WriteFailed if the disk has no `size` bytes free or a write fails.
    """
    refuse_existing(path, force=force)
    path = path.resolve()  # --force on a link replaces what it points to, not the link
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        free = shutil.disk_usage(path.parent).free
        if free < size:
            raise WriteFailed(f"needs {size} bytes, {free} are free on that disk", path=path)
        with open(partial, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if check:
            check(partial)
        refuse_existing(path, force=force)  # another process may have made it meanwhile
        os.replace(partial, path)
    except OSError as error:
        raise WriteFailed(f"cannot be written: {error.strerror or error}", path=path) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def refuse_existing(path: Path, *, force: bool) -> None:
    """Refuse an output that must not be replaced. Raises UsageError if `path` exists and force is false, or is not a
    regular file (a folder, a device, a link to nowhere); WriteFailed if its folder does not exist."""
    if not path.parent.is_dir():
        raise WriteFailed(f"the folder {path.parent} does not exist", path=path)
    if path.is_dir():
        raise UsageError("is a folder, expected the name of a file to write", path=path)
    if os.path.lexists(path) and not path.is_file():
        raise UsageError("is not a regular file, so it is not replaced", path=path)
    if path.exists() and not force:
        raise UsageError("exists already", path=path, hint="pass --force to overwrite it")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises Unreadable."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while piece := stream.read(1 << 24):  # long enough for other threads to go on meanwhile
                digest.update(piece)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}", path=path) from error
    return digest.hexdigest()

"""Files that are whole or absent: atomic output, what must not be replaced, what killed runs have left, and hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tritpack.formats.errors import Unreadable, UsageError, WriteFailed
from tritpack.formats.inputs import open_input

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LONGEST_STEM = 200
"""Bytes of an output's name that its partial file carries; file systems take 255, and the rest is ours."""


@contextlib.contextmanager
def atomic_output(path: Path, size: int, *, force: bool, check: Callable[[Path], None] | None = None) -> Iterator[Any]:
    """A binary stream that becomes `path` only when the block ends without an error; after one, no file is left.

    check: is given the complete temporary file before it gets its name. The output gets the mode of the file that it
    replaces. Raises UsageError if `path` exists and force is false, WriteFailed if the disk has no `size` bytes free or
    a write fails.
    """
    refuse_existing(path, force=force)
    path = path.resolve()  # --force on a link replaces what it points to, not the link
    partial = partial_of(path)
    try:
        remove_abandoned(path)
        require_space(path, size)
        with open(partial, "wb") as stream:
            lock(stream.fileno())
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if check:
            check(partial)
        refuse_existing(path, force=force)  # another process may have made it meanwhile
        with contextlib.suppress(OSError):
            os.chmod(partial, stat.S_IMODE(path.stat().st_mode))
        os.replace(partial, path)
    except OSError as error:
        raise WriteFailed(f"cannot be written: {error.strerror or error}", path=path) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def atomic_set(
    paths: Sequence[Path], size: int, *, force: bool, check: Callable[[Path], None] | None = None
) -> Iterator[list[Path]]:
    """Temporary names for the files of a set, in a hidden folder; when the block ends without an error, the files get
    their own, the first one last. So whoever finds the first finds all of them, also after a crash.

    paths: of one folder; the first stands for the set. size: of all files. check: is given the first file, with the
    others beside it, before they get their names. Modes and errors: see atomic_output.
    """
    for path in paths:
        refuse_existing(path, force=force)
    first = paths[0].resolve()
    folder, descriptor = partial_of(first), None
    try:
        remove_abandoned(first)
        require_space(first, size)
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY)
        lock(descriptor)
        partials = [folder / path.name for path in paths]
        yield partials
        for partial in partials:
            _sync(partial)
        if check:
            check(partials[0])
        for path in paths:
            refuse_existing(path, force=force)  # another process may have made it meanwhile
        _put_in_place(partials, [first.with_name(path.name) for path in paths])
    except OSError as error:
        raise WriteFailed(f"cannot be written: {error.strerror or error}", path=paths[0]) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(partials: Sequence[Path], paths: Sequence[Path]) -> None:
    """Give the files of a set their names. An older set of the same names loses its first file before any other."""
    for partial, path in zip(partials, paths):
        with contextlib.suppress(OSError):
            os.chmod(partial, stat.S_IMODE(path.stat().st_mode))
    placed = []
    try:
        paths[0].unlink(missing_ok=True)
        for partial, path in reversed([*zip(partials, paths)]):
            if path == paths[0]:
                _sync(path.parent)
            os.replace(partial, path)
            placed.append(path)
        _sync(paths[0].parent)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_space(path: Path, size: int, free: int) -> WriteFailed:
    """Return the error for an output of `size` bytes where the disk has `free`."""
    message = f"needs {size:,} bytes, {free:,} are free on that disk"
    return WriteFailed(message, path=path, hint="make room there, or name a file on another disk")


def require_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise no_space(path, size, free)


# -- what must not be replaced -----------------------------------------------------------------------------------------


def refuse_existing(path: Path, *, force: bool, inputs: Iterable[str | Path | None] = ()) -> None:
    """Refuse an output that must not be replaced.

    inputs: files that are read, under any name or link; they are never replaced. Raises UsageError if `path` is one of
    them, exists and force is false, or is not a regular file (a folder, a device, a link to nowhere), or if no file can
    have its name; WriteFailed if its folder does not exist.
    """
    refuse_impossible(path)
    if not path.parent.is_dir():
        raise WriteFailed(f"the folder {path.parent} does not exist", path=path, hint="make the folder first")
    if path.is_dir():
        raise UsageError("is a folder, expected the name of a file to write", path=path)
    if os.path.lexists(path) and not path.is_file():
        raise UsageError("is not a regular file, so it is not replaced", path=path)
    for name in inputs:
        if name is not None and _is_same(path, Path(name)):
            raise UsageError("is an input of this command, so it is not replaced", path=path)
    if path.exists() and not force:
        raise UsageError("exists already", path=path, hint="pass --force to overwrite it")


def refuse_impossible(path: str | Path) -> None:
    """Raise UsageError for text that no file name can be: with a null character, or half of a surrogate pair."""
    try:
        os.lstat(path)
    except ValueError as error:
        raise UsageError(f"{os.fspath(path)!r} cannot be the name of a file: {error}") from error
    except OSError:  # it does not exist, say
        pass


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # one of them does not exist
        return False


# -- partial output ----------------------------------------------------------------------------------------------------


def partial_of(path: Path) -> Path:
    """The hidden name, beside `path`, of its output while this process has not completed it."""
    return path.with_name(f"{stem_of(path)}{os.getpid()}.partial")


def lock(descriptor: int) -> bool:
    """Mark a partial file or folder as being written, until the process ends. Returns False if another one has it."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    return True


def remove_abandoned(path: Path) -> None:
    """Remove the partial outputs of `path` that killed processes have left."""
    pattern = re.compile(re.escape(stem_of(path)) + r"(\d+)\.partial")
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            match = pattern.fullmatch(entry.name)
            if match and not _is_running(int(match[1])) and not is_locked(entry.path):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def stem_of(path: Path) -> str:
    """The beginning of the hidden names of partial outputs of `path`."""
    name = os.fsencode(path.name)
    return f".{path.name if len(name) <= LONGEST_STEM else hashlib.sha256(name).hexdigest()}."


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to somebody else
        return True
    return True


def is_locked(path: str) -> bool:
    """Whether a process writes it, perhaps one in another container, whose numbers mean nothing here."""
    if fcntl is None:
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


# -- hashes ------------------------------------------------------------------------------------------------------------


def hash_of_parts(hashes: Sequence[str]) -> str:
    """SHA-256 of a GGUF: that of its file; of a split set that of the lines `HASH`, one per file in order, in hex.

    So it can be made of the hashes that a download has, and does not depend on the files' names.
    """
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(f"{h}\n" for h in hashes).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises Unreadable."""
    digest = hashlib.sha256()
    try:
        with open_input(path) as stream:
            while piece := stream.read(1 << 24):  # long enough for other threads to go on meanwhile
                digest.update(piece)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}", path=path) from error
    return digest.hexdigest()

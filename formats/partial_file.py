"""An output while it is written: a hidden file beside it, written in any order, that gets its name when it is whole.

Behind the bytes of the output it holds a journal of the parts that are finished, one line of JSON each. If the process
is killed, the next one with the same key goes on from there. The journal is cut off before the file gets its name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from tritpack.formats.arrays import Bytes
from tritpack.formats.checksum import MODULUS, WORD, checksum
from tritpack.formats.errors import WriteFailed
from tritpack.formats.files import lock, no_space, refuse_existing, remove_abandoned, stem_of

READ_BYTES = 8 << 20
LONGEST_JOURNAL = 64 << 20
CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)
"""What the system says where it does not copy between these files by itself."""


class PartialFile:
    """A context manager: the output `path` of `nbytes` bytes, under another name until `place`.

    key: what the bytes depend on; a journal with another key is not continued. finished: what the journal of a run that
    was killed says of each part whose bytes are still as that run wrote them.
    Leaving the block without `place` removes the file. Only one process at a time writes an output: for a second one
    the constructor raises WriteFailed. It also raises that if the disk has no room, and UsageError if `path` exists and
    force is false.
    """

    def __init__(self, path: Path, nbytes: int, *, force: bool, key: str = "") -> None:
        refuse_existing(path, force=force)
        self.path = path.resolve()  # --force on a link replaces what it points to, not the link
        self.nbytes = nbytes
        self.finished: dict[str, dict[str, Any]] = {}
        self._force = force
        self._partial = self.path.with_name(f"{stem_of(self.path)}partial")
        self._lock = threading.Lock()
        self._sums: defaultdict[str, int] = defaultdict(int)
        with self._writing():
            remove_abandoned(self.path)
            self._descriptor = self._open()
            try:
                self._check_room()
                self._journal_end = self._continue(key) if key else nbytes
                os.ftruncate(self._descriptor, self._journal_end)
                if key and self._journal_end == nbytes:
                    self._note({"key": key})
            except BaseException:
                self._remove()
                raise

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def write(self, offset: int, data: Bytes) -> None:
        """Write bytes at an offset. Any thread may do so. Raises WriteFailed."""
        view = np.ascontiguousarray(data).data
        with self._writing():
            while view:
                if hasattr(os, "pwrite"):
                    count = os.pwrite(self._descriptor, view, offset)
                else:
                    with self._lock:
                        os.lseek(self._descriptor, offset, os.SEEK_SET)
                        count = os.write(self._descriptor, view)
                view, offset = view[count:], offset + count

    def copy(self, source: BinaryIO, start: int, offset: int, nbytes: int) -> None:
        """Copy bytes of a file from `start` on to an offset; the system does so where it can, without reading them.

        Raises WriteFailed, also if the source has become shorter.
        """
        done, copies = 0, hasattr(os, "copy_file_range")
        with self._writing():
            while done < nbytes:
                count = min(nbytes - done, READ_BYTES)
                if copies:
                    try:
                        places = (source.fileno(), self._descriptor, count, start + done, offset + done)
                        count = os.copy_file_range(*places)
                    except OSError as error:
                        if error.errno not in CANNOT_COPY:
                            raise
                        copies = False
                        continue
                else:
                    source.seek(start + done)
                    count = len(data := source.read(count))
                    self.write(offset + done, np.frombuffer(data, np.uint8))
                if not count:
                    raise OSError(f"the source ends after {start + done} bytes")
                done += count

    def write_part(self, part: str, start: int, offset: int, data: Bytes) -> None:
        """Write bytes of a part that begins at `start`, at an offset in it that is a multiple of 8."""
        self.write(start + offset, data)
        summand = checksum(np.ascontiguousarray(data), offset // WORD)
        with self._lock:
            self._sums[part] += summand

    def read(self, offset: int, nbytes: int) -> Bytes:
        """Return bytes that were written. Raises WriteFailed."""
        with self._writing(), open(os.dup(self._descriptor), "rb") as stream:
            if not hasattr(os, "preadv"):
                stream.seek(offset)
                return np.frombuffer(stream.read(nbytes), np.uint8)
            data = np.empty(nbytes, np.uint8)
            done = 0
            while done < nbytes and (count := os.preadv(stream.fileno(), [data.data[done:]], offset + done)):
                done += count
            return data[:done]

    def finish(self, part: str, start: int, nbytes: int, *, rewritten: bool = False, **facts: Any) -> None:
        """Write into the journal that a part is finished, and what a later run has to know of it.

        rewritten: bytes of the part were written twice, so that the sum that was counted is not that of the part.
        """
        total = self._sums.pop(part, 0) % MODULUS
        with self._writing():
            total = self._checksum(start, nbytes) if rewritten else total
            self._note({"part": part, "start": start, "nbytes": nbytes, "checksum": total, **facts})

    def seal(self, check: Callable[[Path], None]) -> None:
        """Cut off the journal and see that all bytes are on the disk.

        check: is given the complete file under its other name. Raises WriteFailed.
        """
        with self._writing():
            os.ftruncate(self._descriptor, self.nbytes)
            os.fsync(self._descriptor)
            check(self._partial)

    def place(self) -> None:
        """Give the sealed file its name, with the mode of the file that it replaces.

        Raises WriteFailed, and UsageError if another process has made the output meanwhile and force is false.
        """
        with self._writing():
            refuse_existing(self.path, force=self._force)
            with contextlib.suppress(OSError):
                os.chmod(self._partial, stat.S_IMODE(self.path.stat().st_mode))
            os.replace(self._partial, self.path)
            os.close(self._descriptor)
            self._descriptor = -1
            _sync_folder(self.path.parent)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteFailed(f"cannot be written: {error.strerror or error}", path=self.path) from error

    def _open(self) -> int:
        """Open and lock the partial file. Raises WriteFailed if another process has it."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        while True:
            descriptor = os.open(self._partial, flags, 0o666)
            if not lock(descriptor):
                os.close(descriptor)
                raise WriteFailed("is being written by another process", path=self.path, hint="wait until it has ended")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self._partial)):
                    return descriptor
            os.close(descriptor)  # the process that held the lock has renamed or removed this file meanwhile

    def _check_room(self) -> None:
        has = getattr(os.fstat(self._descriptor), "st_blocks", 0) * 512
        free = shutil.disk_usage(self.path.parent).free
        if free + has < self.nbytes:
            raise no_space(self.path, self.nbytes, free)

    def _remove(self) -> None:
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):  # while the lock is held, so that it is nobody else's
            self._partial.unlink()
        os.close(self._descriptor)
        self._descriptor = -1

    # -- the journal ---------------------------------------------------------------------------------------------------

    def _note(self, entry: dict[str, Any]) -> None:
        line = np.frombuffer(json.dumps(entry).encode() + b"\n", np.uint8)
        with self._lock:
            at = self._journal_end
            self._journal_end += line.size
        self.write(at, line)

    def _continue(self, key: str) -> int:
        """Read the journal of an earlier run, check the parts that it names, and return where it ends."""
        size = os.fstat(self._descriptor).st_size
        if not self.nbytes < size <= self.nbytes + LONGEST_JOURNAL:
            os.ftruncate(self._descriptor, 0)
            return self.nbytes
        entries, end = [], self.nbytes
        for line in self.read(self.nbytes, size - self.nbytes).tobytes().splitlines(keepends=True):
            try:
                entries.append(json.loads(line))
            except ValueError:  # the last one, cut short
                break
            end += len(line)
        if not entries or entries[0] != {"key": key}:
            os.ftruncate(self._descriptor, 0)
            return self.nbytes
        for entry in entries[1:]:
            if self._checksum(entry["start"], entry["nbytes"]) == entry["checksum"]:
                self.finished[entry["part"]] = entry
        return end

    def _checksum(self, start: int, nbytes: int) -> int:
        """Return the checksum of bytes of the file."""
        pieces = range(0, nbytes, READ_BYTES)
        sums = (checksum(self.read(start + at, min(READ_BYTES, nbytes - at)), at // WORD) for at in pieces)
        return sum(sums) % MODULUS


def _sync_folder(folder: Path) -> None:
    """Make a new name durable, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Another header for a GGUF file: in place where one write of one block does it, else as a new file with its name.

A process that is killed, or a machine that loses its power, leaves the old file or the new one. So a change in place is
never larger than a block, which the system and the disk write as a whole, and never moves a tensor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import WriteFailed
from tritpack.formats.gguf_header import Header
from tritpack.formats.inputs import Unchanged, open_input
from tritpack.formats.partial_file import PartialFile

BLOCK = 4096
"""Bytes of a page of memory, and of a block of a file system and a disk."""
IN_PLACE, REWRITTEN, UNCHANGED = "in place", "rewritten", "unchanged"

Patches = Iterable[tuple[int, Bytes]]
"""Offsets in the old file, and the bytes that stand there in the new one."""


def how(old: Bytes, new: bytes) -> str:
    """Return what it takes to give a file another header: UNCHANGED, IN_PLACE or REWRITTEN. old: as it stands there."""
    if len(new) != old.size:
        return REWRITTEN
    first, last = _differing(old, new)
    return UNCHANGED if last < first else IN_PLACE if first // BLOCK == last // BLOCK else REWRITTEN


def change_in_place(path: Path, old: Bytes, new: bytes, unchanged: Unchanged) -> None:
    """Write a header over that of a file, where `how` says IN_PLACE. Raises WriteFailed, and Unreadable if the file was
    changed meanwhile."""
    first, last = _differing(old, new)
    unchanged.check()
    try:
        with open(path, "r+b", buffering=0) as stream:
            stream.seek(first)
            if stream.write(new[first : last + 1]) != last + 1 - first:
                raise OSError("the disk took only a part of it")
            os.fsync(stream.fileno())
    except OSError as error:
        raise WriteFailed(f"cannot be written: {error.strerror or error}", path=path) from error


def _differing(old: Bytes, new: bytes) -> tuple[int, int]:
    """The first and the last byte that differ."""
    differs = np.flatnonzero(old != np.frombuffer(new, np.uint8))
    return (int(differs[0]), int(differs[-1])) if differs.size else (0, -1)


def write_changed(
    path: Path,
    output: Path,
    old: Header,
    header: Callable[[], bytes],
    *,
    patches: Patches = (),
    unchanged: Unchanged,
    check: Callable[[Path], None],
    force: bool,
) -> None:
    """Write a file with another header as `output`, which may be the file itself. Memory is bounded by a patch.

    header: is called twice, before and after the patches, for the same number of bytes. check: is given the complete
    file before it gets its name. Raises WriteFailed, UsageError, Unreadable if the file was changed meanwhile.
    """
    offset = len(header())
    with open_input(path) as source:
        end = max(os.fstat(source.fileno()).st_size, old.data_offset)
        with PartialFile(output, offset + end - old.data_offset, force=force) as partial:
            partial.copy(source, old.data_offset, offset, end - old.data_offset)
            for start, data in patches:
                partial.write(start - old.data_offset + offset, data)
            partial.write(0, np.frombuffer(header(), np.uint8))
            unchanged.check()
            partial.seal(check)
            partial.place()

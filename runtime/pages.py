"""The pages of the weights in memory: huge ones where the system has them, read in by all threads at once."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import MissingRequirement
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.huge_pages import BLOCK, HERE
from tritpack.formats.inputs import map_input
from tritpack.formats.partial_file import PartialFile
from tritpack.runtime.machine import available_memory

PIECE = 16 * BLOCK
"""Bytes that a thread works on at once."""
HUGE, POPULATE_READ = 14, 22
"""Advice for madvise. The second one maps the pages of a file, which are read if need be (Linux 5.14)."""
SAMPLE, SAMPLE_PART = 8 * BLOCK, BLOCK // 8
"""Bytes of a file that is written to see what the system does, and of each part."""
SMAPS = Path("/proc/self/smaps")
IN_HUGE_PAGES = ("FilePmdMapped", "AnonHugePages", "ShmemPmdMapped")


def read_in(file: GgufFile, threads: int) -> list[Bytes]:
    """Map all pages of a file, huge ones where the cache has such or reads them now; return its bytes.

    So the first token does not do it page by page. Nothing happens below one huge page, for files that the memory does
    not hold, whose first pages would be gone before they are used, and where the system is not Linux.
    """
    large = [data for data in file.mapped if data.size >= BLOCK]
    for data in large:
        _advise(data, HUGE)
    free = available_memory()
    if HERE and large and (free is None or sum(data.size for data in large) <= free):
        _in_pieces(large, threads, lambda index, piece: _advise(large[index][piece], POPULATE_READ))
    return file.mapped


def copied(file: GgufFile, threads: int) -> list[Bytes]:
    """Return the bytes of a file in memory of this process, in huge pages where the system has them.

    Places within a huge page stay. Raises MissingRequirement if there is less memory than they need.
    """
    needed, free = file.size, available_memory()
    if free is not None and needed > free:
        raise MissingRequirement(
            f"a copy of the weights needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are available",
            path=file.path,
            hint="without --no-mmap they stay in the file, whose pages the system can give back",
        )
    for data in file.mapped:
        _advise(data, HUGE)
    copies = [_aligned(data.size) for data in file.mapped]

    def copy_piece(index: int, piece: slice) -> None:
        copies[index][piece] = file.mapped[index][piece]
        file.release_bytes(index, piece.start, min(piece.stop, copies[index].size))

    _in_pieces(file.mapped, threads, copy_piece)
    for copy in copies:
        copy.flags.writeable = False
    return copies


def huge_share(data: Sequence[Bytes]) -> float | None:
    """Return which part of the memory under these bytes lies in huge pages; None where the system does not tell."""
    try:
        lines = SMAPS.read_text().splitlines()
    except OSError:
        return None
    areas = [(part.ctypes.data, part.ctypes.data + part.size) for part in data]
    inside, huge, resident = False, 0, 0
    for line in lines:
        name, _, rest = line.partition(":")
        if "-" in name.partition(" ")[0]:
            first, last = (int(number, 16) for number in line.partition(" ")[0].split("-"))
            inside = any(first < end and begin < last for begin, end in areas)
        elif inside and name == "Rss":
            resident += int(rest.split()[0])
        elif inside and name in IN_HUGE_PAGES:
            huge += int(rest.split()[0])
    return huge / resident if resident else None


def shares_here(folder: Path) -> dict[str, float | None]:
    """Return which part of a new file in this folder, and of copied weights, the system keeps in huge pages.

    The file is written in small parts and mapped, as those of models are. Raises WriteFailed.
    """
    with PartialFile(path := folder / "pages", SAMPLE, force=True) as partial:
        for at in range(0, SAMPLE, SAMPLE_PART):
            partial.write(at, np.ones(SAMPLE_PART, np.uint8))
        partial.seal(lambda written: None)
        partial.place()
    mapped, memory = np.frombuffer(map_input(path), np.uint8), _aligned(SAMPLE)
    _advise(mapped, HUGE)
    _advise(mapped, POPULATE_READ)
    memory[:] = mapped
    return {"file": huge_share([mapped]), "memory": huge_share([memory])}


def _aligned(nbytes: int) -> Bytes:
    """Return fresh memory that begins with a huge page."""
    room = np.empty(nbytes + BLOCK, np.uint8)
    _advise(room, HUGE)
    return room[-room.ctypes.data % BLOCK :][:nbytes]


def _in_pieces(files: Sequence[Bytes], threads: int, work: Callable[[int, slice], None]) -> None:
    """Do the work for each piece, given by the index of its file and its place there, on several threads."""
    pieces = [(index, slice(at, at + PIECE)) for index, data in enumerate(files) for at in range(0, data.size, PIECE)]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for _ in pool.map(lambda job: work(*job), pieces):
            pass


def _advise(data: Bytes, advice: int) -> None:
    """Tell the system about whole pages under these bytes. What it does not know, or refuses, changes nothing."""
    if HERE:
        first = data.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        _madvise()(first, data.ctypes.data + data.size - first, advice)


def _madvise() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_int
    result: Callable[[int, int, int], int] = function
    return result

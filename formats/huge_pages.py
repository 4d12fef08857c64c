"""Pages of 2 MB under files: a processor finds the weights faster in them than in pages of 4 kB.

Linux keeps a file in its cache in pieces of the size in which each part was first written or read (ext4 since 6.16, XFS
for longer), and maps a piece of 2 MB as one page if its addresses allow that. Elsewhere nothing here does
anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys

BLOCK = 2 << 20
"""Bytes of a huge page on x86-64, and on ARM with pages of 4 kB."""
HERE = sys.platform == "linux" and sys.maxsize > 1 << 32
MAP_FIXED, NO_RESERVE = 0x10, 0x4000


def map_file(descriptor: int) -> memoryview:
    """Map a file for reading, at an address that is a multiple of BLOCK if the file has as many bytes.

    Some file systems choose such an address themselves. For the others (overlays, so what lies in a container's image)
    a file is mapped over anonymous memory, which has one. The view's `obj` is the mapping. Raises OSError.
    """
    nbytes = os.fstat(descriptor).st_size
    if HERE and nbytes >= BLOCK:
        with contextlib.suppress(OSError):  # of a system that reserves memory for everything that is mapped
            room = mmap.mmap(-1, -(-nbytes // BLOCK) * BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
            address = ctypes.addressof(ctypes.c_char.from_buffer(room))
            if address % BLOCK == 0 and _map_at(address, nbytes, descriptor):  # it is since Linux 6.7
                return memoryview(room)[:nbytes].toreadonly()
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def _map_at(address: int, nbytes: int, descriptor: int) -> bool:
    """Put the pages of a file in the place of others, and return whether that worked."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    return bool(function(address, nbytes, mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, descriptor, 0) == address)


def let_go(view: memoryview, first: int, last: int) -> None:
    """Let go of the pages under a part of a mapped file: they are no longer in this process's memory."""
    if isinstance(view.obj, mmap.mmap) and hasattr(view.obj, "madvise"):
        begin = first // mmap.PAGESIZE * mmap.PAGESIZE
        view.obj.madvise(mmap.MADV_DONTNEED, begin, last - begin)

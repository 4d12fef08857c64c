"""The packers in C. They give the same bytes as the numpy ones, many times faster. They and runtime/blocks.py are put
into their slots together."""

from __future__ import annotations

import ctypes

from tritpack.formats import c_blocks
from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.errors import MissingRequirement
from tritpack.formats.layouts import c_packers
from tritpack.formats.layouts.c_packers import Tile
from tritpack.runtime.abi import LAYOUT_IDS
from tritpack.runtime.blocks import CBlocks
from tritpack.runtime.library import Library, library


class CPackers:
    """The C library as a `PackBackend`. It refuses layouts that it does not know and rows that are too long."""

    def __init__(self, c_library: Library) -> None:
        self.c = c_library.c

    def pack(self, layout: str, tiling: Tile | None, codes: Codes, body: Bytes) -> bool:
        if layout not in LAYOUT_IDS:
            return False
        shape = (LAYOUT_IDS[layout], _tile(tiling), *codes.shape)
        return bool(self.c.tp_pack(*shape, codes.ctypes.data, body.ctypes.data, body.size) == 0)

    def unpack(self, layout: str, tiling: Tile | None, body: Bytes, codes: Codes) -> bool:
        if layout not in LAYOUT_IDS:
            return False
        shape = (LAYOUT_IDS[layout], _tile(tiling), *codes.shape)
        return bool(self.c.tp_unpack(*shape, body.ctypes.data, body.size, codes.ctypes.data) == 0)


def use_c_packers() -> None:
    """Pack, unpack, encode and sum up in C from now on. Without the C library numpy is still used."""
    try:
        c_library = library()
    except MissingRequirement:
        return
    c_packers.use(CPackers(c_library))
    c_blocks.use(CBlocks(c_library))


def _tile(tiling: Tile | None) -> ctypes.Array[ctypes.c_int32] | None:
    return (ctypes.c_int32 * 3)(*tiling) if tiling else None

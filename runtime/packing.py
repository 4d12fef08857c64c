"""The packers in C, put in place of the numpy ones: the same bytes (tests/test_twins.py), many times faster."""

from __future__ import annotations

import ctypes
import dataclasses

from formats.errors import MissingRequirement
from formats.layouts import twins
from formats.layouts.twins import Tiling
from formats.ternary import Bytes, Codes
from runtime.abi import LAYOUT_IDS
from runtime.library import Library, library


class CTwins:
    """formats.layouts.twins.Twins by the C library. What C refuses (a layout it does not know, rows longer than it
    takes) is left to numpy; nothing was written then."""

    def __init__(self, c_library: Library) -> None:
        self.c = c_library.c

    def pack(self, layout: str, tiling: Tiling | None, codes: Codes, body: Bytes) -> bool:
        if layout not in LAYOUT_IDS:
            return False
        shape = (LAYOUT_IDS[layout], _tile(tiling), *codes.shape)
        return bool(self.c.tp_pack(*shape, codes.ctypes.data, body.ctypes.data, body.size) == 0)

    def unpack(self, layout: str, tiling: Tiling | None, body: Bytes, codes: Codes) -> bool:
        if layout not in LAYOUT_IDS:
            return False
        shape = (LAYOUT_IDS[layout], _tile(tiling), *codes.shape)
        return bool(self.c.tp_unpack(*shape, body.ctypes.data, body.size, codes.ctypes.data) == 0)


def install() -> None:
    """Pack and unpack in C from now on; without the library numpy goes on doing it."""
    try:
        twins.use(CTwins(library()))
    except MissingRequirement:
        return


def _tile(tiling: Tiling | None) -> ctypes.Array[ctypes.c_int32] | None:
    return (ctypes.c_int32 * 3)(*dataclasses.astuple(tiling)) if tiling else None

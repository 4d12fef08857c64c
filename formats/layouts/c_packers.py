"""The door for the packers in C: runtime/packers.py puts them here, and without them numpy does the same, only slower.

Nothing in formats/ needs a compiler, so the twins are handed in from above. They give the same bytes as the numpy
bodies (tests/runtime/test_packers.py), which are the specification.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from tritpack.formats.ternary import Bytes, Codes


@dataclasses.dataclass(frozen=True, order=True)
class Tiling:
    """The tiles in whose order TL1 and TL2 store a matrix: BM rows by BK columns, blocks of bm rows inside."""

    BM: int
    BK: int
    bm: int


class Twins(Protocol):
    """What the C library brings. Both say whether they did it: a layout they do not know is numpy's."""

    def pack(self, layout: str, tiling: Tiling | None, codes: Codes, body: Bytes) -> bool: ...
    def unpack(self, layout: str, tiling: Tiling | None, body: Bytes, codes: Codes) -> bool: ...


_twins: Twins | None = None


def use(found: Twins | None) -> None:
    """Pack and unpack with these from now on; None goes back to numpy."""
    global _twins
    _twins = found


def pack(layout: str, tiling: Tiling | None, codes: Codes, body: Bytes) -> bool:
    """Write codes (rows, cols), contiguous, into the zeroed body of a tensor. False if there is no twin for it."""
    return _twins is not None and _twins.pack(layout, tiling, codes, body)


def unpack(layout: str, tiling: Tiling | None, body: Bytes, codes: Codes) -> bool:
    """Fill codes (rows, cols), contiguous, from the body of a tensor. False if there is no twin for it."""
    return _twins is not None and _twins.unpack(layout, tiling, body, codes)

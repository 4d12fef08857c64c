"""Bit planes: four 2-bit codes per byte, as in i2_s, t2, tq2_0, q2_0, iq2_bn, hf_u8 and mlx2.

A run of 4 * width weights takes width bytes: byte p holds weights p, width + p, 2 width + p and 3 width + p. Layouts
differ in the width (1, which makes neighbours; 16; 32; a quarter of the matrix) and in which of the four is in the high
bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.arrays import Bytes, Codes

if TYPE_CHECKING:
    import numpy.typing as npt

PIECE = 1 << 18
"""Bytes that are examined together: a piece and its scratch stay in the cache."""
HIGH_FIRST, LOW_FIRST = (6, 4, 2, 0), (0, 2, 4, 6)
"""The shift of each of the four planes, in bits."""
Shifts = tuple[int, ...]


def pack_planes(codes: Codes, width: int, shifts: Shifts) -> Bytes:
    """Pack int8 codes, a multiple of 4 * width, into uint8 bytes, flat."""
    fields = (codes.view(np.uint8) + np.uint8(1)).reshape(-1, 4, width)
    out = fields[:, 0] << np.uint8(shifts[0])
    for plane in range(1, 4):
        out |= fields[:, plane] << np.uint8(shifts[plane])
    packed: Bytes = out.reshape(-1)
    return packed


def unpack_planes(data: Bytes, width: int, shifts: Shifts) -> Codes:
    """Unpack the codes that pack_planes was given, flat; a code of 3 comes out as +2."""
    planes = np.ascontiguousarray(data).reshape(-1, 1, width)
    codes: Codes = (((planes >> np.array(shifts, np.uint8)[:, None]) & 3).view(np.int8) - np.int8(1)).reshape(-1)
    return codes


def count_threes(data: npt.NDArray[np.uint8]) -> int:
    """The number of bytes of an array of any shape that hold a code of 3."""
    if data.ndim == 2:  # blocks with scales between them, several at a time
        step = max(1, PIECE // data.shape[1])
        pieces = (data[first : first + step] for first in range(0, len(data), step))
    else:
        pieces = (data[first : first + PIECE] for first in range(0, data.size, PIECE))
    return sum(_count(np.ascontiguousarray(piece).reshape(-1)) for piece in pieces)


def _count(piece: Bytes) -> int:
    whole = piece.size // 8 * 8
    words = piece[:whole].view(np.uint64)
    # A shift of whole words moves bits between bytes only into positions that the mask drops.
    if not (words & (words >> np.uint64(1)) & np.uint64(0x5555555555555555)).any() and not _threes(piece[whole:]).any():
        return 0
    return int(np.count_nonzero(_threes(piece)))


def _threes(piece: Bytes) -> Bytes:
    threes: Bytes = piece & (piece >> np.uint8(1)) & np.uint8(0x55)
    return threes

"""What the layouts with four 2-bit codes a byte share, and the block of 128 that I2_S and T2 are made of."""

from __future__ import annotations

import numpy as np

from formats.ternary import Bytes, Codes

PIECE = 1 << 18
"""Bytes looked at together: a piece and its scratch stay in the cache."""
BLOCK = 128
SHIFTS = np.array([6, 4, 2, 0], np.uint8)
"""Of the four weights of byte p of a block: p, 32 + p, 64 + p, 96 + p."""


def pack_blocks(codes: Codes) -> Bytes:
    """int8 codes, in number a multiple of 128, to uint8 blocks of 32 bytes, flat."""
    blocks = (codes.view(np.uint8) + np.uint8(1)).reshape(-1, 4, BLOCK // 4)
    out = np.zeros((len(blocks), BLOCK // 4), np.uint8)
    for group, shift in enumerate(SHIFTS):
        out |= blocks[:, group] << shift
    return out.reshape(-1)


def unpack_blocks(data: Bytes) -> Codes:
    """The codes of whole blocks, int8, flat: what pack_blocks was given. A code of 3 comes out as 2."""
    body = data.reshape(-1, 1, BLOCK // 4)
    codes: Codes = (((body >> SHIFTS[:, None]) & 3).view(np.int8) - np.int8(1)).reshape(-1)
    return codes


def illegal_code(body: Bytes, cols: int) -> str | None:
    """Where blocks in rows of `cols` weights hold a code of 3, in words; None if all are legal."""
    if not (threes := bytes_with_three(body)):
        return None
    byte, count = threes
    pair = next(g for g, shift in enumerate(SHIFTS) if (int(body[byte]) >> int(shift)) & 3 == 3)
    row, col = divmod(byte // 32 * BLOCK + 32 * pair + byte % 32, cols)
    return f"code 3 at row {row}, column {col} ({count} bytes hold one); only 0, 1, 2 are legal"


def bytes_with_three(body: Bytes) -> tuple[int, int] | None:
    """(index of the first byte that holds a code of 3, how many bytes do), or None if all codes are legal."""
    bad = [first for first in range(0, body.size, PIECE) if _any_three(body[first : first + PIECE])]
    if not bad:
        return None
    places = [first + np.flatnonzero(_threes(body[first : first + PIECE])) for first in bad]
    return int(places[0][0]), sum(len(each) for each in places)


def _threes(piece: Bytes) -> Bytes:
    threes: Bytes = piece & (piece >> np.uint8(1)) & np.uint8(0x55)
    return threes


def _any_three(piece: Bytes) -> bool:
    whole = piece.size // 8 * 8
    words = piece[:whole].view(np.uint64)
    # A shift of whole words moves bits between bytes only into positions that the mask drops.
    found = (words & (words >> np.uint64(1)) & np.uint64(0x5555555555555555)).any()
    return bool(found or _threes(piece[whole:]).any())

"""What the layouts with four 2-bit codes a byte share."""

from __future__ import annotations

import numpy as np

from formats.ternary import Bytes

PIECE = 1 << 18
"""Bytes looked at together: a piece and its scratch stay in the cache."""


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

"""Trits: five ternary digits per byte, as base-3 fixed-point fractions. The layouts t158, tq1_0, ptq1_0 and iq1_bn.

Five codes 0, 1, 2 make a number q below 243; the byte is 256 q / 243 rounded up. Then 3 times the byte, divided by 256,
gives the first digit, and the remainder of that product is the byte of the digits after it. This needs no table and no
division.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.arrays import Bytes, Codes

if TYPE_CHECKING:
    import numpy.typing as npt

PIECE = 1 << 20
"""Bytes that are examined together."""
POWERS = (81, 27, 9, 3, 1)
"""Weights of the digits, most significant first."""


def pack_trits(codes: npt.NDArray[np.int8]) -> Bytes:
    """Pack int8 codes (n, digits <= 5, width), most significant first, into bytes (n, width). Digits that are missing
    at the low end are stored as 0 and stand for no weight."""
    number = np.zeros((codes.shape[0], codes.shape[2]), np.uint16)
    for digit in range(codes.shape[1]):
        number += (codes[:, digit].view(np.uint8) + np.uint8(1)) * np.uint16(POWERS[digit])
    return byte_of(number)


def byte_of(number: npt.NDArray[np.uint16]) -> Bytes:
    """The byte of a number below 243."""
    return ((number * np.uint32(256) + np.uint32(242)) // np.uint32(243)).astype(np.uint8)


def unpack_trits(data: Bytes, digits: int) -> Codes:
    """Unpack bytes (n, width) to codes (n, digits, width), the inverse of pack_trits."""
    out = np.empty((data.shape[0], digits, data.shape[1]), np.int8)
    left = data.astype(np.uint16)
    for digit in range(digits):
        left *= np.uint16(3)
        np.subtract(left >> 8, 1, out=out[:, digit], dtype=np.int8, casting="unsafe")
        left &= np.uint16(0xFF)
    return out


@functools.cache
def _legal(digits: int) -> bytes:
    return byte_of(np.arange(3**digits, dtype=np.uint16) * np.uint16(3 ** (5 - digits))).tobytes()


def count_noncanonical(data: npt.NDArray[np.uint8], digits: int) -> int:
    """The number of bytes that are not the canonical form of so many trits."""
    if digits == 5 and _all_canonical(data):
        return 0
    return count_others(data, _legal(digits))


def _all_canonical(data: npt.NDArray[np.uint8]) -> bool:
    """Whether every byte is the canonical form of five trits: 243 x = 256 q + e has e < 243 for those and no others.
    A product modulo 256 is ten times as fast as a search."""
    piece = PIECE // 8  # stays in the cache between the product and the search for its maximum
    step = max(1, piece // max(1, data[0].size)) if data.ndim > 1 and len(data) else piece
    pieces = (data[first : first + step] for first in range(0, len(data), step))
    return all((piece * np.uint8(243)).max(initial=0) < 243 for piece in pieces)


def count_others(data: npt.NDArray[np.uint8], legal: bytes) -> int:
    """The number of bytes of an array of any shape that are not in `legal`. bytes.translate runs at 1 GB/s, three times
    as fast as a numpy lookup."""
    step = max(1, PIECE // max(1, data[0].size)) if data.ndim > 1 and len(data) else PIECE
    return sum(len(data[first : first + step].tobytes().translate(None, legal)) for first in range(0, len(data), step))

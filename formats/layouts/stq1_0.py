"""STQ1_0 of AngelSlim (llama.cpp PR 22836): 256 weights in 42 bytes, of which exactly one in four is zero.

It is read and not written: no engine here runs it, and every layout with a scale per 256 weights holds the same codes.
A group is four weights of a run of 64, each 16 after the other: group 16 r + i has weights 64 r + i + 16 p, p = 0 to 3.
The block has 4 bits per group in 32 bytes, low bits first, then a bit per group in 8 bytes, then the float16 scale.
"""

from __future__ import annotations

import functools

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.errors import Unsupported
from tritpack.formats.layouts.bases import BlockScales

GROUPS = 64


@functools.cache
def patterns() -> Codes:
    """Return the codes of a group by 16 * its bit + its 4 bits, int8 (32, 4).

    Bits 3-2 are the place of the zero. Of the three others the first is +1, the second -1 if bit 0 is set, the third -1
    if bit 1 is set; the group's bit turns all signs round.
    """
    table = np.zeros((32, 4), np.int8)
    for index, pattern in enumerate(table):
        others = [place for place in range(4) if place != index >> 2 & 3]
        first = -1 if index & 16 else 1
        pattern[others] = first, -first if index & 1 else first, -first if index & 2 else first
    return table


class STQ1(BlockScales):
    """Blocks of 256 weights; every pattern of bits is legal."""

    name = "stq1_0"
    block = 256
    block_nbytes = 42
    scale_first = False

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        raise Unsupported("stq1_0 is read and not written", hint="t158 holds the same codes and scales")

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        stored = self.code_bytes(body)
        index = np.empty((len(stored), GROUPS), np.uint8)
        index[:, ::2], index[:, 1::2] = stored[:, :32] & 15, stored[:, :32] >> 4
        index |= np.unpackbits(stored[:, 32:], axis=1, bitorder="little") << np.uint8(4)
        groups = patterns()[index].reshape(-1, 4, 16, 4)  # run, group of the run, weight of the group
        return groups.swapaxes(2, 3).reshape(rows, cols)

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        return 0

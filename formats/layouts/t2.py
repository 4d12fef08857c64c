"""T2, tritpack's own: 2-bit codes in I2_S's blocks, for rows of any length and scales of any granularity.

Rows are padded to whole blocks with zero weights, so that the kernels of I2_S run it.
"""

from __future__ import annotations

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import GridScales
from tritpack.formats.layouts.planes import HIGH_FIRST, count_threes, pack_planes, unpack_planes

BLOCK = 128


class T2(GridScales):
    """32 bytes of header, the scales padded to a multiple of 32 bytes, rows * padded(cols) / 4 bytes of codes."""

    name = "t2"
    row_unit = 1
    magic = b"T2\x01\x00"
    unit = 32

    def row_nbytes(self, cols: int) -> int:
        return padded(cols) // 4

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        rows, cols = codes.shape
        whole = np.zeros((rows, padded(cols)), np.int8)
        whole[:, :cols] = codes
        body[:] = pack_planes(whole, BLOCK // 4, HIGH_FIRST)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        return unpack_planes(body, BLOCK // 4, HIGH_FIRST).reshape(rows, padded(cols))[:, :cols]

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        return count_threes(body)

    def bad_padding(self, data: Bytes, rows: int, cols: int) -> str | None:
        if cols % BLOCK:
            last = self.body(data, rows, cols).reshape(rows, -1)[:, -BLOCK // 4 :]
            if unpack_planes(last, BLOCK // 4, HIGH_FIRST).reshape(rows, BLOCK)[:, cols % BLOCK :].any():
                return f"the padding after its rows of {cols} weights is not zero"
        return super().bad_padding(data, rows, cols)


def padded(cols: int) -> int:
    """Columns of a stored row: the next multiple of 128."""
    return -(-cols // BLOCK) * BLOCK

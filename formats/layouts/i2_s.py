"""I2_S, the layout of bitnet.cpp: 128 codes in 32 bytes, one float32 scale per tensor in a 32-byte trailer.

The canonical order is the one in every published file. bitnet.cpp has written two other orders under the same type id,
which cannot be told apart by their bytes. They are read on explicit request only, to repair such a file.
"""

from __future__ import annotations

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import TRAILER, TrailingScale
from tritpack.formats.layouts.layout import Blocks
from tritpack.formats.layouts.planes import HIGH_FIRST, count_threes, pack_planes, unpack_planes


class I2S(TrailingScale):
    """rows * cols / 4 + 32 bytes."""

    name = "i2_s"
    row_unit = 1
    block = 128

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"rows of {cols} weights are not a multiple of {self.block}" if cols % self.block else None

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return rows * cols // 4 + TRAILER

    def width(self, cols: int) -> int:
        """The width of the bit planes."""
        return self.block // 4

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        body[:] = pack_planes(codes, self.width(codes.shape[1]), HIGH_FIRST)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        return unpack_planes(body, self.width(cols), HIGH_FIRST).reshape(rows, cols)

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        return count_threes(body)


class I2SArm(I2S):
    """The order that bitnet.cpp has written on ARM since November 2025: 64 codes in 16 bytes."""

    name = "i2_s_arm"
    block = 64


class I2SRows(I2S):
    """The order that bitnet.cpp writes when built without activation parallelism: four rows of one column in a byte."""

    name = "i2_s_rows4"
    row_unit = 4

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"{rows} rows are not a multiple of 4" if rows % 4 else None

    def width(self, cols: int) -> int:
        return cols

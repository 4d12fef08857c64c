"""I2_S, the layout of bitnet.cpp: 128 codes in 32 bytes, one float32 scale a tensor in a 32-byte trailer.

The canonical order is the one in every published file. bitnet.cpp has written two others under the same type id, which
cannot be told apart by their bytes: they are read on explicit request only, to repair such a file.
"""

from __future__ import annotations

import numpy as np

from tritpack.formats.layouts.layout import Blocks, Layout
from tritpack.formats.layouts.two_bit import HIGH_FIRST, count_threes, pack_planes, unpack_planes
from tritpack.formats.ternary import Bytes, Codes, Scales, TernaryTensor

TRAILER = 32


class TrailingScale(Layout):
    """One float32 scale a tensor, in the last 32 bytes; the 28 behind it MUST be ignored by readers."""

    def held(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        return (1, 1)

    def body(self, data: Bytes, rows: int, cols: int) -> Bytes:
        return data[:-TRAILER]

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:
        out[-TRAILER:][:4] = tensor.scales.reshape(1).astype("<f4").view(np.uint8)

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        return np.frombuffer(data[-TRAILER:][:4].tobytes(), "<f4").astype(np.float32).reshape(1, 1)


class I2S(TrailingScale):
    """rows * cols / 4 + 32 bytes."""

    name = "i2_s"
    block = 128

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"rows of {cols} weights are not a multiple of {self.block}" if cols % self.block else None

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return rows * cols // 4 + TRAILER

    def width(self, cols: int) -> int:
        """Of the bit planes."""
        return self.block // 4

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        body[:] = pack_planes(codes, self.width(codes.shape[1]), HIGH_FIRST)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        return unpack_planes(body, self.width(cols), HIGH_FIRST).reshape(rows, cols)

    def illegal_bytes(self, body: Bytes, rows: int, cols: int) -> int:
        return count_threes(body)


class I2SArm(I2S):
    """What bitnet.cpp has written on ARM since November 2025: 64 codes in 16 bytes."""

    name = "i2_s_arm"
    block = 64


class I2SRows(I2S):
    """What bitnet.cpp writes when built without activation parallelism: four rows of one column in a byte."""

    name = "i2_s_rows4"

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"{rows} rows are not a multiple of 4" if rows % 4 else None

    def width(self, cols: int) -> int:
        return cols

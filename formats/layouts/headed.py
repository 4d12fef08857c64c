"""What our own two layouts share: a header that says how the scales tile the matrix, the scales, then the codes."""

from __future__ import annotations

import struct
from typing import ClassVar

import numpy as np

from tritpack.formats.layouts.layout import Blocks, Layout
from tritpack.formats.ternary import Bytes, Scales, TernaryTensor

HEADER = 32


class Headed(Layout):
    """Any row length, scales of any granularity as float32."""

    magic: ClassVar[bytes]
    unit: ClassVar[int]
    """Header and scales together are a whole number of these bytes."""

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return None

    def held(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        return scale_blocks

    def row_nbytes(self, cols: int) -> int:
        """Bytes of one row's codes."""
        raise NotImplementedError

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return self._codes_offset(scale_blocks) + rows * self.row_nbytes(cols)

    def stored_nbytes(self, rows: int, cols: int, head: Bytes) -> int | None:
        blocks = self._blocks(rows, cols, head)
        return None if blocks is None else self.nbytes(rows, cols, blocks)

    def body(self, data: Bytes, rows: int, cols: int) -> Bytes:
        return data[data.size - rows * self.row_nbytes(cols) :]

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:
        out[:12] = np.frombuffer(self.magic + struct.pack("<II", *tensor.scale_blocks), np.uint8)
        out[HEADER:][: 4 * tensor.scales.size] = np.ascontiguousarray(tensor.scales, "<f4").reshape(-1).view(np.uint8)

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        blocks = self._blocks(rows, cols, data) or (1, 1)
        stored = np.frombuffer(data[HEADER:][: 4 * blocks[0] * blocks[1]].tobytes(), "<f4")
        return stored.astype(np.float32).reshape(blocks)

    def reserved(self, data: Bytes, rows: int, cols: int) -> str | None:
        blocks = self._blocks(rows, cols, data) or (1, 1)
        behind = data[HEADER + 4 * blocks[0] * blocks[1] : self._codes_offset(blocks)]
        return "bytes that are reserved are not zero" if data[12:HEADER].any() or behind.any() else None

    def _codes_offset(self, blocks: Blocks) -> int:
        return -(-(HEADER + 4 * blocks[0] * blocks[1]) // self.unit) * self.unit

    def _blocks(self, rows: int, cols: int, head: Bytes) -> Blocks | None:
        if head.size < HEADER or head[:4].tobytes() != self.magic:
            return None
        row_blocks, col_blocks = struct.unpack("<II", head[4:12].tobytes())
        tiles = row_blocks > 0 and col_blocks > 0 and rows % row_blocks == 0 and cols % col_blocks == 0
        return (row_blocks, col_blocks) if tiles else None

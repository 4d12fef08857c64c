"""Base classes: where the layouts keep their scales. What a layout adds is how codes become bytes.

TrailingScale: one scale after the codes. BlockScales: one in every block of a row. RowScales: one before every row.
GridScales: any number of them, after a header that gives their grid.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tritpack.formats.arrays import Bytes, Codes, Scales
from tritpack.formats.layouts.layout import Blocks, Layout, scales_by_block
from tritpack.formats.ternary import TernaryTensor

if TYPE_CHECKING:
    import numpy.typing as npt

TRAILER = 32
"""Bytes after the codes of a TrailingScale layout."""
HEADER = 32
"""Bytes before the scales of a GridScales layout."""


class TrailingScale(Layout):
    """One float32 scale per tensor, in the last 32 bytes. Readers MUST ignore the 28 bytes after it."""

    def nearest_grid(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        return (1, 1)

    def body(self, data: Bytes, rows: int, cols: int) -> Bytes:
        return data[:-TRAILER]

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:
        out[-TRAILER:][:4] = tensor.scales.reshape(1).astype("<f4").view(np.uint8)

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        return np.frombuffer(data[-TRAILER:][:4].tobytes(), "<f4").astype(np.float32).reshape(1, 1)


class BlockScales(Layout):
    """Blocks of `block` weights of one row, each with a float16 scale before or after its code bytes."""

    block: ClassVar[int]
    block_nbytes: ClassVar[int]
    scale_first: ClassVar[bool]
    half_scales = True

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"rows of {cols} weights are not a multiple of {self.block}" if cols % self.block else None

    def nearest_grid(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        row_blocks, col_blocks = scale_blocks
        whole_blocks = cols // col_blocks % self.block == 0
        return row_blocks, col_blocks if whole_blocks else cols // self.block

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return rows * cols // self.block * self.block_nbytes

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:
        stored = scales_by_block(tensor, self.block).astype("<f2")
        self._scale_bytes(out)[:] = stored.reshape(-1, 1).view(np.uint8)

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        stored = np.ascontiguousarray(self._scale_bytes(data)).view("<f2")
        return stored.astype(np.float32).reshape(rows, cols // self.block)

    def code_bytes(self, body: Bytes) -> Bytes:
        """The code bytes of every block, (blocks, bytes), as a view."""
        blocks = body.reshape(-1, self.block_nbytes)
        return blocks[:, 2:] if self.scale_first else blocks[:, :-2]

    def _scale_bytes(self, body: Bytes) -> Bytes:
        blocks = body.reshape(-1, self.block_nbytes)
        return blocks[:, :2] if self.scale_first else blocks[:, -2:]


class RowScales(Layout):
    """ik_llama.cpp's runs of `run` rows: the scales of the run's rows, then its blocks of 64 weights."""

    run: ClassVar[int] = 1
    block_nbytes: ClassVar[int]
    scale_dtype: ClassVar[str]

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        if cols % 64:
            return f"rows of {cols} weights are not a multiple of 64"
        return f"{rows} rows are not a multiple of {self.run}" if rows % self.run else None

    def nearest_grid(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        return scale_blocks[0], 1

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return rows * (np.dtype(self.scale_dtype).itemsize + cols // 64 * self.block_nbytes)

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:
        stored = scales_by_block(tensor, tensor.shape[1]).astype(self.scale_dtype)
        self._runs(out, tensor.shape[0])[:, : self._header] = stored.reshape(-1, self.run).view(np.uint8)

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        stored = np.ascontiguousarray(self._runs(data, rows)[:, : self._header]).view(self.scale_dtype)
        return stored.astype(np.float32).reshape(rows, 1)

    def code_bytes(self, body: Bytes, rows: int) -> Bytes:
        """The code bytes of every run, (runs, bytes), as a view."""
        return self._runs(body, rows)[:, self._header :]

    @property
    def _header(self) -> int:
        return self.run * np.dtype(self.scale_dtype).itemsize

    def _runs(self, data: Bytes, rows: int) -> Bytes:
        return data.reshape(rows // self.run, -1)


class GridScales(Layout):
    """Our own layouts: a header with the grid of the scales, the scales as float32, then rows of any length."""

    magic: ClassVar[bytes]
    unit: ClassVar[int]
    """Header and scales together take a multiple of this many bytes."""

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return None

    def nearest_grid(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        return scale_blocks

    def row_nbytes(self, cols: int) -> int:
        """Bytes of one row's codes."""
        raise NotImplementedError

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return self._codes_offset(scale_blocks) + rows * self.row_nbytes(cols)

    def stored_nbytes(self, rows: int, cols: int, head: bytes) -> int | None:
        blocks = self._grid(rows, cols, head)
        return None if blocks is None else self.nbytes(rows, cols, blocks)

    def body(self, data: Bytes, rows: int, cols: int) -> Bytes:
        return data[data.size - rows * self.row_nbytes(cols) :]

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:
        out[:12] = np.frombuffer(self.magic + struct.pack("<II", *tensor.scale_blocks), np.uint8)
        out[HEADER:][: 4 * tensor.scales.size] = np.ascontiguousarray(tensor.scales, "<f4").reshape(-1).view(np.uint8)

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        blocks = self._grid(rows, cols, bytes(data[:HEADER])) or (1, 1)
        stored = np.frombuffer(data[HEADER:][: 4 * blocks[0] * blocks[1]].tobytes(), "<f4")
        return stored.astype(np.float32).reshape(blocks)

    def bad_padding(self, data: Bytes, rows: int, cols: int) -> str | None:
        blocks = self._grid(rows, cols, bytes(data[:HEADER])) or (1, 1)
        after_scales = data[HEADER + 4 * blocks[0] * blocks[1] : self._codes_offset(blocks)]
        return "bytes that are reserved are not zero" if data[12:HEADER].any() or after_scales.any() else None

    def _codes_offset(self, blocks: Blocks) -> int:
        return -(-(HEADER + 4 * blocks[0] * blocks[1]) // self.unit) * self.unit

    def _grid(self, rows: int, cols: int, head: bytes) -> Blocks | None:
        """The grid that the header gives; None if it is another layout's header or does not tile the matrix."""
        if len(head) < HEADER or head[:4] != self.magic:
            return None
        row_blocks, col_blocks = struct.unpack("<II", head[4:12])
        tiles = row_blocks > 0 and col_blocks > 0 and rows % row_blocks == 0 and cols % col_blocks == 0
        return (row_blocks, col_blocks) if tiles else None


def staged(codes: Codes, stages: tuple[tuple[int, int], ...], block: int) -> list[npt.NDArray[np.int8]]:
    """Blocks of codes cut into stages: (blocks, digits, width) each, for stages of (width, digits)."""
    flat, parts, first = codes.reshape(-1, block), [], 0
    for width, digits in stages:
        parts.append(flat[:, first : first + width * digits].reshape(-1, digits, width))
        first += width * digits
    return parts

"""What the block layouts of the ggml world share: a float16 scale in every block, or a scale in front of every row."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tritpack.formats.layouts.layout import Blocks, Layout, scales_by_block
from tritpack.formats.ternary import Bytes, Codes, Scales, TernaryTensor


class BlockScales(Layout):
    """Blocks of `block` weights along a row, each with a float16 scale in front of its code bytes or behind them."""

    block: ClassVar[int]
    block_nbytes: ClassVar[int]
    scale_first: ClassVar[bool]
    half_scales = True

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"rows of {cols} weights are not a multiple of {self.block}" if cols % self.block else None

    def held(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        row_blocks, col_blocks = scale_blocks
        fits = cols // col_blocks % self.block == 0
        return row_blocks, col_blocks if fits else cols // self.block

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return rows * cols // self.block * self.block_nbytes

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:
        stored = scales_by_block(tensor, self.block).astype("<f2")
        self._scale_bytes(out)[:] = stored.reshape(-1, 1).view(np.uint8)

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        stored = np.ascontiguousarray(self._scale_bytes(data)).view("<f2")
        return stored.astype(np.float32).reshape(rows, cols // self.block)

    def code_bytes(self, body: Bytes) -> npt.NDArray[np.uint8]:
        """A view of the code bytes of every block, (blocks, bytes)."""
        blocks = body.reshape(-1, self.block_nbytes)
        return blocks[:, 2:] if self.scale_first else blocks[:, :-2]

    def _scale_bytes(self, body: Bytes) -> npt.NDArray[np.uint8]:
        blocks = body.reshape(-1, self.block_nbytes)
        return blocks[:, :2] if self.scale_first else blocks[:, -2:]


class RowScales(Layout):
    """ik_llama.cpp: runs of `run` rows, each with the scales of its rows in front; then blocks of 64 weights."""

    run: ClassVar[int] = 1
    block_nbytes: ClassVar[int]
    scale_dtype: ClassVar[str]

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        if cols % 64:
            return f"rows of {cols} weights are not a multiple of 64"
        return f"{rows} rows are not a multiple of {self.run}" if rows % self.run else None

    def held(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        return scale_blocks[0], 1

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return rows * (np.dtype(self.scale_dtype).itemsize + cols // 64 * self.block_nbytes)

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:
        stored = scales_by_block(tensor, tensor.shape[1]).astype(self.scale_dtype)
        self._runs(out, tensor.shape[0])[:, : self._header] = stored.reshape(-1, self.run).view(np.uint8)

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        stored = np.ascontiguousarray(self._runs(data, rows)[:, : self._header]).view(self.scale_dtype)
        return stored.astype(np.float32).reshape(rows, 1)

    def code_bytes(self, body: Bytes, rows: int) -> npt.NDArray[np.uint8]:
        """A view of the code bytes of every run, (runs, bytes)."""
        return self._runs(body, rows)[:, self._header :]

    @property
    def _header(self) -> int:
        return self.run * np.dtype(self.scale_dtype).itemsize

    def _runs(self, data: Bytes, rows: int) -> npt.NDArray[np.uint8]:
        return data.reshape(rows // self.run, -1)


def staged(codes: Codes, stages: tuple[tuple[int, int], ...], block: int) -> list[npt.NDArray[np.int8]]:
    """Blocks of codes cut into stages: (blocks, digits, width) each, for stages of (width, digits)."""
    flat, parts, first = codes.reshape(-1, block), [], 0
    for width, digits in stages:
        parts.append(flat[:, first : first + width * digits].reshape(-1, digits, width))
        first += width * digits
    return parts

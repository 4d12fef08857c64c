"""hf_u8, the packed form of transformers checkpoints: four codes per byte, a quarter of the matrix apart.

The scale is a tensor of its own (`weight_scale`), so pack drops it and unpack gives a scale of one. config.json says
whether the stored number multiplies or divides (converter/storage/packed.py reads it).
"""

from __future__ import annotations

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.layout import Blocks, Layout
from tritpack.formats.layouts.planes import LOW_FIRST, count_threes, pack_planes, unpack_planes


class HfU8(Layout):
    """rows * cols / 4 bytes; the checkpoint shapes them (rows / 4, cols)."""

    name = "hf_u8"
    holds_scales = False

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"{rows} rows are not a multiple of 4" if rows % 4 else None

    def nearest_grid(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        return (1, 1)

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return rows * cols // 4

    def body(self, data: Bytes, rows: int, cols: int) -> Bytes:
        return data.reshape(-1)

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        body[:] = pack_planes(codes, codes.size // 4, LOW_FIRST)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        return unpack_planes(body, rows * cols // 4, LOW_FIRST).reshape(rows, cols)

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        return count_threes(body)

"""MLX's affine 2-bit weights: 16 codes per uint32, low bits first.

Scales and biases are tensors of their own, so pack drops the scales and unpack gives a scale of one. The biases are
minus the scales, which makes scale * code + bias ternary.
"""

from __future__ import annotations

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.hf_u8 import HfU8
from tritpack.formats.layouts.layout import Blocks
from tritpack.formats.layouts.planes import LOW_FIRST, pack_planes, unpack_planes

ONE_MORE = 0x55
"""Added to each byte where other formats store codes plus 2 (compressed-tensors, ONNX Runtime): nothing is carried."""


class Mlx2(HfU8):
    """rows * cols / 4 bytes; the checkpoint has them as uint32 (rows, cols / 16)."""

    name = "mlx2"

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"rows of {cols} weights are not a multiple of 32" if cols % 32 else None

    def nearest_grid(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        return scale_blocks

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        body[:] = pack_planes(codes, 1, LOW_FIRST)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        return unpack_planes(body, 1, LOW_FIRST).reshape(rows, cols)

"""TQ2_0 of llama.cpp: 256 weights in 66 bytes, two halves of four bit planes, then the float16 scale."""

from __future__ import annotations

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import BlockScales
from tritpack.formats.layouts.planes import LOW_FIRST, count_threes, pack_planes, unpack_planes


class TQ2(BlockScales):
    """Blocks of 256 weights."""

    name = "tq2_0"
    block = 256
    block_nbytes = 66
    scale_first = False
    width = 32
    """The width of the bit planes."""

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        self.code_bytes(body)[:] = pack_planes(codes, self.width, LOW_FIRST).reshape(-1, self.block_nbytes - 2)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        return unpack_planes(self.code_bytes(body), self.width, LOW_FIRST).reshape(rows, cols)

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        return count_threes(self.code_bytes(body))

"""IQ2_BN of ik_llama.cpp: a float32 scale per row, 64 weights in 16 bytes. IQ2_BN_R4 interleaves four rows of it."""

from __future__ import annotations

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import RowScales
from tritpack.formats.layouts.planes import LOW_FIRST, count_threes, pack_planes, unpack_planes


class IQ2BN(RowScales):
    """Rows of 4 + cols / 4 bytes."""

    name = "iq2_bn"
    block_nbytes = 16
    scale_dtype = "<f4"

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        self.code_bytes(body, codes.shape[0])[:] = pack_planes(codes, 16, LOW_FIRST).reshape(codes.shape[0], -1)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        return unpack_planes(self.code_bytes(body, rows), 16, LOW_FIRST).reshape(rows, cols)

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        return count_threes(self.code_bytes(body, rows))


class IQ2BNR4(IQ2BN):
    """Byte 16 l + 4 k + i of a block of 4 x 64 has, of row k, weights 16 l + i, + 4, + 8 and + 12."""

    name = "iq2_bn_r4"
    run = 4

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        rows, cols = codes.shape
        # (runs, row, block, l, plane, i) -> (runs, block, l, plane, row, i): planes of 16 = 4 rows x 4 weights
        interleaved = codes.reshape(rows // 4, 4, cols // 64, 4, 4, 4).transpose(0, 2, 3, 4, 1, 5)
        packed = pack_planes(np.ascontiguousarray(interleaved), 16, LOW_FIRST)
        self.code_bytes(body, rows)[:] = packed.reshape(rows // 4, -1)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        interleaved = unpack_planes(self.code_bytes(body, rows), 16, LOW_FIRST)
        codes = interleaved.reshape(rows // 4, cols // 64, 4, 4, 4, 4).transpose(0, 4, 1, 2, 3, 5)
        return np.ascontiguousarray(codes).reshape(rows, cols)

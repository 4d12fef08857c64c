"""IQ1_BN of ik_llama.cpp: a float16 scale per row, 64 weights in 13 bytes.

A byte has five trits, least significant first: bytes 3 g, 3 g + 1, 3 g + 2 have weights 16 g to 16 g + 14, and the last
byte weights 15, 31, 47 and 63.
"""

from __future__ import annotations

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import RowScales
from tritpack.formats.layouts.trits import byte_of, count_noncanonical, count_others, pack_trits


class IQ1BN(RowScales):
    """Rows of 2 + 13 * cols / 64 bytes."""

    name = "iq1_bn"
    block_nbytes = 13
    scale_dtype = "<f2"
    half_scales = True

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        groups = codes.reshape(-1, 4, 16)
        fives = groups[:, :, :15].reshape(-1, 12, 5)[:, :, ::-1].transpose(0, 2, 1)
        last = groups[:, ::-1, 15]
        # Least significant first, so of four trits the missing digit is the most significant one.
        number = (last.view(np.uint8) + np.uint8(1)) @ np.array([27, 9, 3, 1], np.uint16)
        packed = np.concatenate([pack_trits(fives), byte_of(number)[:, None]], axis=1)
        self.code_bytes(body, codes.shape[0])[:] = packed.reshape(codes.shape[0], -1)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        stored = np.ascontiguousarray(self.code_bytes(body, rows)).reshape(-1, 13)
        number = (stored * np.uint16(243)) >> 8
        out = np.empty((len(stored), 4, 16), np.int8)
        fives = out[:, :, :15].reshape(-1, 12, 5)  # a copy: the 16th weight of a group stands apart
        left = number[:, :12]
        for digit in range(5):
            fives[:, :, digit] = (left % 3).astype(np.int8) - 1
            left = left // 3
        out[:, :, :15] = fives.reshape(-1, 4, 15)
        left = number[:, 12]
        for group in range(4):
            out[:, group, 15] = (left % 3).astype(np.int8) - 1
            left = left // 3
        return out.reshape(rows, cols)

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        stored = np.ascontiguousarray(self.code_bytes(body, rows)).reshape(-1, 13)
        fourth = byte_of(np.arange(81, dtype=np.uint16)).tobytes()
        return count_noncanonical(stored[:, :12], 5) + count_others(stored[:, 12], fourth)

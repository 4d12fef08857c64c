"""TQ1_0 of llama.cpp (256 weights in 54 bytes), and PTQ1_0, its form with a scale every 128 (PrismML, 28 bytes).

A byte has five trits, most significant first; its weights are a stage's width apart. In the last stage a byte has four.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import BlockScales, staged
from tritpack.formats.layouts.trits import count_noncanonical, pack_trits, unpack_trits


class TQ1(BlockScales):
    """Blocks of 256 weights: the stages, each (bytes, trits per byte), then the scale."""

    name = "tq1_0"
    block = 256
    block_nbytes = 54
    scale_first = False
    stages: ClassVar[tuple[tuple[int, int], ...]] = ((32, 5), (16, 5), (4, 4))

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        parts = [pack_trits(part) for part in staged(codes, self.stages, self.block)]
        self.code_bytes(body)[:] = np.concatenate(parts, axis=1)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        out = np.empty((rows * cols // self.block, self.block), np.int8)
        stored, first, at = self.code_bytes(body), 0, 0
        for width, digits in self.stages:
            part = unpack_trits(stored[:, first : first + width], digits)
            out[:, at : at + digits * width] = part.reshape(len(out), -1)
            first, at = first + width, at + digits * width
        return out.reshape(rows, cols)

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        stored, fours = self.code_bytes(body), self.stages[-1][0]
        return count_noncanonical(stored[:, :-fours], 5) + count_noncanonical(stored[:, -fours:], 4)


class PTQ1(TQ1):
    """Blocks of 128 weights."""

    name = "ptq1_0"
    block = 128
    block_nbytes = 28
    stages = ((16, 5), (8, 5), (2, 4))

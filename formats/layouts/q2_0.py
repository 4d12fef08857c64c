"""Q2_0 of llama.cpp (64 weights in 18 bytes) and PQ2_0, its form with a scale every 128 (PrismML, 34 bytes).

The float16 scale comes first, then four neighbours per byte, low bits first. In these formats a code of 3 means +2
scales; ternary models never use it, and it is refused.
"""

from __future__ import annotations

from tritpack.formats.layouts.tq2_0 import TQ2


class Q2(TQ2):
    """Blocks of 64 weights."""

    name = "q2_0"
    block = 64
    block_nbytes = 18
    scale_first = True
    width = 1


class PQ2(Q2):
    """Blocks of 128 weights."""

    name = "pq2_0"
    block = 128
    block_nbytes = 34

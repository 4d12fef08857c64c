"""Absmean, which makes master weights ternary: m = max(mean|w|, 1e-5), codes = clip(rint(w / m), -1, 1).

Formula: AutoBitLinear of transformers' BitNet integration; the paper is arXiv 2402.17764.
"""

from __future__ import annotations

import math

import numpy as np

from tritpack.formats import c_blocks
from tritpack.formats.arrays import F64, Bytes, Codes
from tritpack.formats.float_types import decode

FLOOR = 1e-5
"""The smallest scale that absmean gives."""
LANES = 16


def abs_sums(stored: str, data: Bytes, rows: int, cols: int) -> F64:
    """Return the sum of |w| per row, float64 (rows,), of the bytes of (rows, cols) floats of the plain type `stored`.

    The order is fixed: element i goes to lane i mod 16, then the lanes are added as a tree. So a sum is the same on any
    CPU and with any number of threads, and does not depend on how the rows of a tensor are cut into blocks.
    """
    sums = np.zeros(rows, np.float64)
    c = c_blocks.backend()
    if c is not None and c.abs_sums(stored, rows, cols, data, sums):
        return sums
    magnitudes = np.abs(decode(stored, data, rows, cols))
    lanes = np.zeros((rows, LANES), np.float64)
    for first in range(0, cols, LANES):
        part = magnitudes[:, first : first + LANES]
        lanes[:, : part.shape[1]] += part
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def scale_of(sums: F64, count: int) -> np.float32 | None:
    """Return the scale m of `count` weights by the `abs_sums` of all their rows, in any order; None if a weight is not
    finite. Rows are added exactly and the mean is rounded once."""
    if not np.isfinite(sums).all():
        return None
    return np.float32(max(math.fsum(sums) / count, FLOOR))


def codes_of(stored: str, data: Bytes, rows: int, cols: int, scale: np.float32, out: Codes | None = None) -> Codes:
    """Return codes clip(round_half_even(w * (1 / scale)), -1, 1), int8 (rows, cols), in `out` if that is given."""
    codes = np.empty((rows, cols), np.int8) if out is None else out
    reciprocal = np.float32(1) / scale
    c = c_blocks.backend()
    if c is None or not c.absmean_codes(stored, data, float(reciprocal), codes):
        with np.errstate(over="ignore"):
            np.clip(np.rint(decode(stored, data, rows, cols) * reciprocal), -1, 1, out=codes, casting="unsafe")
    return codes

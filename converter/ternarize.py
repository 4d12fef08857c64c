"""From what a checkpoint stores to TernaryTensor: unpacking, or absmean on float masters. Never both.

Formulas: transformers' BitNet integration (AutoBitLinear, BitLinear); the paper is arXiv 2402.17764.
"""

from __future__ import annotations

import numpy as np

from converter.families import Recognition
from converter.sources import StoredTensor
from formats.errors import Unreadable
from formats.layouts import hf_u8
from formats.ternary import TernaryTensor

ABSMEAN_FLOOR = 1e-5
PIECE = 1 << 22
"""Elements widened to float32 at a time."""


def ternarize(
    weight: StoredTensor, scale: StoredTensor | None, rows: int, cols: int, known: Recognition
) -> TernaryTensor:
    """Codes and multiplier of one linear of (rows, cols). Raises Unreadable, naming the tensor."""
    if known.form == "online":
        return absmean(weight)
    if scale is None:
        raise Unreadable(f"tensor {weight.name!r} is packed but the checkpoint has no {weight.name}_scale")
    if int(np.prod(scale.shape, dtype=np.int64)) != 1:
        raise Unreadable(f"tensor {scale.name!r} has shape {list(scale.shape)}, expected one element")
    stored = np.float32(scale.rows_f32(0, 1).reshape(-1)[0])
    if not np.isfinite(stored) or stored <= 0:
        raise Unreadable(f"tensor {scale.name!r} is {stored}, expected a positive number")
    multiplier = stored if known.scale_multiplies else np.float32(1) / stored
    if problems := hf_u8.check(weight.data, rows, cols):
        raise Unreadable(f"tensor {weight.name!r}: {problems[0]}")
    return TernaryTensor.per_tensor(hf_u8.unpack(weight.data, rows, cols).codes, multiplier)


def absmean(weight: StoredTensor) -> TernaryTensor:
    """m = max(mean|w|, 1e-5), codes = clip(round_half_even(w * (1 / m)), -1, 1), scale m.

    The mean is taken in float64 over fixed pieces and rounded once, so that it does not depend on any thread count.
    """
    rows, cols = weight.shape
    step = max(1, PIECE // cols)
    spans = [(first, min(first + step, rows)) for first in range(0, rows, step)]
    total = sum(float(np.abs(weight.rows_f32(*span)).sum(dtype=np.float64)) for span in spans)
    if not np.isfinite(total):
        raise Unreadable(f"tensor {weight.name!r} holds a value that is not finite")
    scale = np.float32(max(total / (rows * cols), ABSMEAN_FLOOR))
    reciprocal = np.float32(1) / scale
    codes = np.empty((rows, cols), np.int8)
    for first, last in spans:
        codes[first:last] = np.clip(np.rint(weight.rows_f32(first, last) * reciprocal), -1, 1)
    return TernaryTensor.per_tensor(codes, scale)

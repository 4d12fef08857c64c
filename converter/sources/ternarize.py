"""From what a checkpoint stores to TernaryTensor: unpacking, absmean of float masters, or recovery of floats that are
ternary already. Never two of them.

Formulas: transformers' BitNet integration (AutoBitLinear, BitLinear), mlx's affine quantisation; the paper is arXiv
2402.17764. A tensor that makes no sense raises Unreadable or Unsupported with its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.sources.checkpoint import FLOATS, StoredTensor
from tritpack.formats.arrays import Codes
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.layouts import catalog
from tritpack.formats.ternary import TernaryTensor, coarsest, coarsest_both

Bits = npt.NDArray[np.unsignedinteger[Any]]
INFINITE = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000}
"""The bit pattern of infinity; larger ones are NaN."""
ABSMEAN_FLOOR = 1e-5
PIECE = 1 << 22
"""Elements widened to float32 at a time."""
SMALLEST_GROUP = 16
"""Fewer weights than this under one scale prove nothing: any float is ternary in groups of one."""


def unpack(
    weight: StoredTensor, scale: StoredTensor | None, rows: int, cols: int, *, multiplies: bool
) -> TernaryTensor:
    """Codes of a transformers linear, packed in uint8 or unpacked as floats -1, 0, 1, and its `weight_scale`."""
    multiplier = packed_scale(weight, scale, multiplies)
    if weight.dtype in FLOATS:
        return TernaryTensor.per_tensor(_plain_codes(weight), multiplier)
    layout = catalog.LAYOUTS["hf_u8"]
    if problems := layout.check(weight.data, rows, cols):
        raise Unreadable(f"tensor {weight.name!r}: {problems[0]}")
    return TernaryTensor.per_tensor(layout.unpack(weight.data, rows, cols).codes, multiplier)


def packed_scale(weight: StoredTensor, scale: StoredTensor | None, multiplies: bool) -> np.float32:
    """The multiplier that a packed tensor's `weight_scale` stands for."""
    if scale is None:
        raise Unreadable(f"tensor {weight.name!r} is packed but the checkpoint has no {weight.name}_scale")
    if int(np.prod(scale.shape, dtype=np.int64)) != 1:
        raise Unreadable(f"tensor {scale.name!r} has shape {list(scale.shape)}, expected one element")
    stored = np.float32(scale.rows_f32(0, 1).reshape(-1)[0])
    if not np.isfinite(stored) or stored <= 0:
        raise Unreadable(f"tensor {scale.name!r} is {stored}, expected a positive number")
    with np.errstate(over="ignore"):
        multiplier = stored if multiplies else np.float32(1) / stored
    if not np.isfinite(multiplier):
        raise Unreadable(f"tensor {scale.name!r} is {stored}, too small to divide by")
    return multiplier


def _plain_codes(weight: StoredTensor) -> Codes:
    codes = np.empty(weight.shape, np.int8)
    for first, last in _spans(*weight.shape):
        values = weight.rows_f32(first, last)
        if not np.isin(values, (-1, 0, 1)).all():
            raise Unreadable(
                f"tensor {weight.name!r} is stored as {weight.dtype} beside a weight_scale but holds other values than "
                "-1, 0 and 1"
            )
        codes[first:last] = values
    return codes


def absmean(weight: StoredTensor) -> TernaryTensor:
    """m = max(mean|w|, 1e-5), codes = clip(round_half_even(w * (1 / m)), -1, 1), scale m.

    The mean is taken in float64 over fixed pieces and rounded once, so that it does not depend on any thread count.
    """
    rows, cols = weight.shape
    spans = list(_spans(rows, cols))
    total = sum(float(np.abs(weight.rows_f32(*span)).sum(dtype=np.float64)) for span in spans)
    if not np.isfinite(total):
        raise Unreadable(f"tensor {weight.name!r} holds a value that is not finite")
    scale = np.float32(max(total / (rows * cols), ABSMEAN_FLOOR))
    reciprocal = np.float32(1) / scale
    codes = np.empty((rows, cols), np.int8)
    for first, last in spans:
        codes[first:last] = np.clip(np.rint(weight.rows_f32(first, last) * reciprocal), -1, 1)
    return TernaryTensor.per_tensor(codes, scale)


def recover(weight: StoredTensor) -> TernaryTensor | None:
    """Codes and scales of floats that are ternary already, exactly; None if they are not.

    The scales are the largest blocks in which all non-zeros have one magnitude: the tensor, shards of rows or columns,
    rows, or groups of consecutive inputs. A block of zeros has the scale 0. Raises Unreadable for NaN and infinity.
    """
    rows, cols = weight.shape
    blocks = next((n for n in _divisions(cols) if _one_magnitude(weight, n)), None)
    if blocks is None:
        return None
    codes = np.empty((rows, cols), np.int8)
    scales = np.empty((rows, blocks), np.float32)
    for first, last in _spans(rows, cols):
        bits = weight.rows_bits(first, last)
        magnitudes = _magnitudes(weight, bits)
        nonzero = magnitudes != 0
        negative = (nonzero & (bits != magnitudes)).view(np.int8)
        codes[first:last] = nonzero.view(np.int8) - negative - negative
        scales[first:last] = weight.widened(magnitudes.reshape(last - first, blocks, -1).max(-1))
    return TernaryTensor(codes, coarsest(scales, zero_fits=True))


def _divisions(cols: int) -> list[int]:
    """Into how many equal pieces a row may fall, fewest first."""
    return [n for n in range(1, max(1, cols // SMALLEST_GROUP) + 1) if cols % n == 0]


def _one_magnitude(weight: StoredTensor, blocks: int) -> bool:
    """Whether each of `blocks` pieces of each row holds one magnitude beside zero. A few rows, asked first, mostly
    settle it."""
    rows, cols = weight.shape
    for first, last in [(0, min(rows, 8)), *_spans(rows, cols)]:
        magnitudes = _magnitudes(weight, weight.rows_bits(first, last)).reshape(last - first, blocks, -1)
        if not ((magnitudes == 0) | (magnitudes == magnitudes.max(-1, keepdims=True))).all():
            return False
    return True


def _magnitudes(weight: StoredTensor, bits: Bits) -> Bits:
    """Bit patterns without their signs: they order and equal each other as the magnitudes do, with nothing converted.
    Raises Unreadable for NaN and infinity."""
    magnitudes = bits & bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    if magnitudes.size and magnitudes.max() >= INFINITE[weight.dtype]:
        raise Unreadable(f"tensor {weight.name!r} holds a value that is not finite")
    return magnitudes


def not_ternary(weight: StoredTensor) -> Unsupported:
    """The refusal of a plain float tensor, with how far from ternary it was found to be."""
    rows, cols = weight.shape
    groups = _divisions(cols)[-1]
    sample = weight.rows_f32(0, min(rows, max(1, PIECE // cols)))
    magnitudes = np.abs(sample)
    pieces = magnitudes.reshape(len(sample), groups, -1)
    whole = ((pieces == 0) | (pieces == pieces.max(-1, keepdims=True))).all(-1)
    found = (
        f"of the groups of {cols // groups} inputs in its first {len(sample)} rows, {whole.sum()} of {whole.size} hold "
        "one magnitude beside zero"
    )
    if whole.mean() > 0.5:
        return Unsupported(
            f"tensor {weight.name!r} is not ternary throughout: {found}",
            hint="most of it is ternary, so the checkpoint is damaged or half converted; fetch it again",
        )
    mean = max(float(magnitudes.mean(dtype=np.float64)), ABSMEAN_FLOOR)
    rounded = np.clip(np.rint(sample / mean), -1, 1) * mean
    power = float(np.square(sample, dtype=np.float64).sum())
    loss = np.sqrt(float(np.square(sample - rounded, dtype=np.float64).sum()) / power) if power else 0.0
    return Unsupported(
        f"tensor {weight.name!r} is not ternary: {found}, and rounding it to three values would change it by "
        f"{100 * loss:.0f} % of its norm",
        hint="if these are masters of a BitNet model (Falcon-E's prequantized revision, say), pass --quantize absmean; "
        "an ordinary float model becomes rubbish by it",
    )


def unpack_mlx(
    weight: StoredTensor, scales: StoredTensor | None, biases: StoredTensor | None, cols: int
) -> TernaryTensor:
    """MLX affine 2-bit: 16 codes a uint32, low bits first, w = scale * q + bias; ternary means bias = -scale."""
    for part, kind in ((scales, "scales"), (biases, "biases")):
        if part is None:
            raise Unreadable(f"tensor {weight.name!r} is packed but the checkpoint has no {kind} for it")
    assert scales is not None and biases is not None
    rows = weight.shape[0]
    if weight.shape != (rows, cols // 16) or cols % 16:
        raise Unreadable(f"tensor {weight.name!r} has shape {list(weight.shape)}, expected {[rows, cols // 16]}")
    for part in (scales, biases):
        if (
            len(part.shape) != 2
            or 0 in part.shape
            or part.shape[0] != rows
            or part.shape != scales.shape
            or cols % part.shape[1]
        ):
            raise Unreadable(f"tensor {part.name!r} of shape {list(part.shape)} does not tile {rows} x {cols} weights")
    scale, bias = scales.rows_f32(0, rows), biases.rows_f32(0, rows)
    if not np.isfinite(scale).all() or (scale < 0).any():
        raise Unreadable(f"tensor {scales.name!r} holds a scale that is negative or not finite")
    if not np.array_equal(bias, -scale):
        raise Unsupported(f"tensor {biases.name!r} is not minus {scales.name!r}: these 2-bit weights are not ternary")
    packed = weight.data.view("<u4").reshape(rows, -1, 1)
    codes = np.empty((rows, cols), np.int8)
    for first, last in _spans(rows, cols):
        two_bits = (packed[first:last] >> np.arange(0, 32, 2, dtype=np.uint32)) & np.uint32(3)
        if (two_bits == 3).any():
            row, word, _ = (int(i) for i in np.argwhere(two_bits == 3)[0])
            raise Unsupported(
                f"tensor {weight.name!r} uses the fourth code (3) in row {first + row}, word {word}: "
                "these 2-bit weights are not ternary"
            )
        codes[first:last] = two_bits.reshape(last - first, cols).astype(np.int8) - np.int8(1)
    return TernaryTensor(codes, coarsest_both(scale))


def _spans(rows: int, cols: int) -> Iterator[tuple[int, int]]:
    step = max(1, PIECE // max(cols, 1))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)

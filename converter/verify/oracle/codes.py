"""Reads one tensor of a checkpoint as int8 codes and float32 multipliers, in each of the ways that families store them.

Scales have the shape (row_blocks, col_blocks): equal blocks of rows and of columns share one. The code shares nothing
with converter/sources, converter/storage and formats/layouts, on purpose.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.tensors import F32, Rows, Tensor
from tritpack.formats.errors import Unreadable, Unsupported

I8 = npt.NDArray[np.int8]
Coded = tuple[I8, F32]
SMALLEST_GROUP = 16
"""Fewer values of one magnitude than this prove nothing, and no format has smaller groups."""
SAMPLED_ROWS = 4
PIECE = 1 << 18
"""Values that are quantised at a time."""


@dataclasses.dataclass(frozen=True)
class CodedRows:
    """A linear that is decoded some rows at a time, so that pieces stay in the cache. Illegal codes come out as +2.

    rows: returns the codes of these rows, int8 (rows, cols). scales: float32 (1, 1).
    """

    rows: Callable[[Rows], I8]
    scales: F32


def absmean(tensor: Tensor) -> Coded:
    """Master weights, as transformers' `online` linears quantise them: the mean in float64, rounded once."""
    coded = absmean_rows(tensor)
    step = max(1, PIECE // tensor.shape[1])
    pieces = [coded.rows(slice(first, first + step)) for first in range(0, tensor.shape[0], step)]
    return np.concatenate(pieces), coded.scales


def absmean_rows(tensor: Tensor) -> CodedRows:
    """The same, some rows at a time."""
    rows, cols = tensor.shape
    step = max(1, PIECE // cols)
    total = math.fsum(_magnitude(tensor.floats(slice(first, first + step))) for first in range(0, rows, step))
    mean = np.maximum(np.float32(total / (rows * cols)), np.float32(1e-5))
    threshold = _first_to_round_up(mean)

    def compared(some: Rows) -> I8:
        """bfloat16 by its bits, which order values of one sign: those that round to 1 begin at `threshold`."""
        bits = tensor.array(some)
        codes: I8 = ((bits & 0x7FFF) >= threshold).view(np.int8)
        negative = (bits >= threshold | 0x8000).view(np.int8)
        codes -= negative
        codes -= negative
        return codes

    def quantised(some: Rows) -> I8:
        weights = tensor.floats(some)
        weights *= np.float32(1) / mean
        np.rint(weights, out=weights)
        np.clip(weights, -1, 1, out=weights)
        return weights.astype(np.int8)

    return CodedRows(compared if tensor.kind == "BF16" else quantised, np.full((1, 1), mean, np.float32))


def _first_to_round_up(mean: np.float32) -> int:
    """The bits of the smallest bfloat16 that `quantised` takes to 1."""
    values = (np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return int(np.searchsorted(np.rint(values * (np.float32(1) / mean)), np.float32(1)))


def _magnitude(weights: F32) -> float:
    """The sum of all magnitudes, in float64. Overwrites `weights`."""
    return float(np.abs(weights, out=weights).sum(dtype=np.float64))


def scaled(tensor: Tensor, scale: Tensor, *, multiplies: bool) -> Coded:
    """Codes with a weight_scale: four rows to a byte, a quarter of the matrix apart, or unpacked as -1, 0, 1."""
    multiplier = _multiplier(scale, multiplies=multiplies)
    if tensor.kind == "U8":
        packed: npt.NDArray[np.uint8] = tensor.array()
        codes = _less_one(tensor, _quarters(packed))
    else:
        values = tensor.floats()
        codes = values.astype(np.int8)
        if not np.array_equal(codes, values) or np.abs(values).max() > 1:
            raise Unsupported("it has a weight_scale, but values other than -1, 0 and 1", tensor=tensor.name)
    return codes, multiplier


def scaled_rows(tensor: Tensor, scale: Tensor, *, multiplies: bool) -> CodedRows | None:
    """The same, some rows at a time; None for codes that are not packed."""
    if tensor.kind != "U8":
        return None
    packed: npt.NDArray[np.uint8] = tensor.array()

    def unpacked(some: Rows) -> I8:
        if isinstance(some, slice):
            fields = np.empty((some.stop - some.start, packed.shape[1]), np.uint8)
            for quarter in range(4):
                first, last = (min(max(row - quarter * len(packed), 0), len(packed)) for row in (some.start, some.stop))
                start = quarter * len(packed) + first - some.start
                if first < last:
                    np.right_shift(packed[first:last], np.uint8(2 * quarter), out=fields[start : start + last - first])
        else:
            fields = packed[some % len(packed)] >> (2 * (some // len(packed))).astype(np.uint8)[:, None]
        fields &= 3
        codes: I8 = fields.view(np.int8)
        codes -= 1
        return codes

    return CodedRows(unpacked, _multiplier(scale, multiplies=multiplies))


def _multiplier(scale: Tensor, *, multiplies: bool) -> F32:
    stored = scale.floats()
    if stored.size != 1 or not stored.reshape(-1)[0] > 0:
        raise Unreadable(f"shape {list(scale.shape)} is not one positive number", tensor=scale.name)
    with np.errstate(over="ignore"):
        multiplier = stored.reshape(1, 1) if multiplies else np.float32(1) / stored.reshape(1, 1)
    if not np.isfinite(multiplier).all():
        raise Unreadable("it is too small to divide by", tensor=scale.name)
    return multiplier


def _quarters(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(rows / 4, cols) bytes to codes (rows, cols): the lowest bits of all bytes are the first quarter of the rows."""
    codes = np.empty((4, *packed.shape), np.uint8)
    for quarter, bits in zip(codes, (0, 2, 4, 6)):
        np.right_shift(packed, bits, out=quarter)
        np.bitwise_and(quarter, 3, out=quarter)
    return codes.reshape(-1, packed.shape[1])


def mlx(tensor: Tensor, scales: Tensor, biases: Tensor, rows: slice | npt.NDArray[np.int64] = slice(None)) -> Coded:
    """MLX's affine 2-bit groups, w = scale * q + bias: sixteen codes to a word, the lowest bits first."""
    scale, bias = scales.floats(rows), biases.floats(rows)
    if not np.array_equal(bias, -scale):
        raise Unsupported("it is not ternary: its biases are not its negated scales", tensor=tensor.name)
    if (scale < 0).any():
        raise Unsupported("it has negative scales", tensor=tensor.name)
    octets = np.ascontiguousarray(tensor.array(rows)).view(np.uint8)
    codes = octets[:, :, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    return _less_one(tensor, codes.reshape(len(octets), -1).astype(np.uint8, copy=False)), scale


def pack_quantized(tensor: Tensor, scales: Tensor, shape: Tensor) -> Coded:
    """compressed-tensors' 2-bit integers, stored plus 2 in words of sixteen, the lowest bits first; scales by rows and
    groups."""
    rows, cols = tensor.shape[0], tensor.shape[1] * 16
    if shape.kind != "I64" or shape.raw.view("<i8").tolist() != [rows, cols]:
        raise Unreadable(f"it is not the shape {[rows, cols]} of the codes beside it", tensor=shape.name)
    scale = scales.floats()
    if (scale < 0).any():
        raise Unsupported("it has negative scales", tensor=scales.name)
    words: npt.NDArray[np.uint32] = tensor.array()
    stored = np.stack([words >> np.uint32(2 * place) & np.uint32(3) for place in range(16)], axis=-1)
    if stored.min(initial=2) == 0:
        raise Unsupported("it is not ternary: it holds the integer -2", tensor=tensor.name)
    return stored.reshape(rows, cols).astype(np.int8) - np.int8(2), scale


def _less_one(tensor: Tensor, codes: npt.NDArray[np.uint8]) -> I8:
    """Stored codes 0, 1, 2 as -1, 0, +1. Overwrites `codes`."""
    if codes.max(initial=0) == 3:
        raise Unreadable("it holds the code 3, which stands for no ternary value", tensor=tensor.name)
    signed: I8 = codes.view(np.int8)
    signed -= 1
    return signed


class Values(Protocol):
    """A matrix of floats: its shape, and all rows in order, some at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def chunks(self) -> Iterator[F32]: ...


def recovered(tensor: Values) -> Coded | None:
    """Floats that are ternary already: exactly their codes and scales, in the largest blocks within which all non-zero
    values have one magnitude. None if there are no such blocks."""
    rows, cols = tensor.shape
    groups = (_peaks(tensor.chunks(), count) for count in _group_counts(cols))
    peaks = next((group for group in groups if group is not None), None)
    if peaks is None:
        return None
    codes = np.concatenate([np.sign(chunk).astype(np.int8) for chunk in tensor.chunks()])
    for blocks in (n for n in range(1, rows + 1) if rows % n == 0):
        scales = _one_magnitude(peaks.reshape(blocks, rows // blocks, -1).swapaxes(1, 2))
        if scales is not None:
            return codes, scales
    raise AssertionError("a block of one row always fits")


def looks_ternary(tensor: Tensor) -> bool:
    """Whether a few rows could be recovered. It is cheap, and plain floats do not pass by accident."""
    rows, cols = tensor.shape
    sample = tensor.floats(np.linspace(0, rows - 1, SAMPLED_ROWS).astype(np.int64))
    return any(_peaks([sample], n) is not None for n in _group_counts(cols))


def _group_counts(cols: int) -> Iterator[int]:
    return (n for n in range(1, max(cols // SMALLEST_GROUP, 1) + 1) if cols % n == 0)


def _peaks(chunks: Iterable[F32], groups: int) -> F32 | None:
    """The magnitude within each of `groups` groups of a row, float32 (rows, groups); None if a group has several."""
    parts = []
    for chunk in chunks:
        peaks = _one_magnitude(np.abs(chunk).reshape(len(chunk), groups, -1))
        if peaks is None:
            return None
        parts.append(peaks)
    return np.concatenate(parts)


def _one_magnitude(values: F32) -> F32 | None:
    """The maxima along the last axis, if each value there is the maximum or 0; else None."""
    peaks: F32 = values.max(-1, keepdims=True)
    return peaks[..., 0] if ((values == peaks) | (values == 0)).all() else None

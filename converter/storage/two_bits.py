"""Words of sixteen 2-bit fields, low bits first: what MLX and compressed-tensors pack a row of codes into."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritpack.converter.storage.storage import StoredLinear, spans
from tritpack.formats.arrays import F32, Codes
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.safetensors_reader import StoredTensor
from tritpack.formats.ternary import TernaryTensor


def unpack_words(weight: StoredTensor, rows: int, cols: int, zero: int) -> Codes:
    """Return the codes, int8 (rows, cols), of words (rows, cols / 16). zero: the field that stands for 0.

    Raises Unsupported for a field that is neither of zero - 1, zero, zero + 1.
    """
    packed = weight.data.view("<u4").reshape(rows, -1, 1)
    codes = np.empty((rows, cols), np.int8)
    fourth = (zero + 2) % 4
    for first, last in spans(rows, cols):
        fields = (packed[first:last] >> np.arange(0, 32, 2, dtype=np.uint32)) & np.uint32(3)
        if (fields == fourth).any():
            row, word, _ = (int(i) for i in np.argwhere(fields == fourth)[0])
            count = sum(_count(packed[start:end], fourth) for start, end in spans(rows, cols))
            raise Unsupported(
                f"has the fourth code ({fourth}) in row {first + row}, word {word}, and {count} times in all: these "
                "2-bit weights are not ternary",
                tensor=weight.name,
            )
        codes[first:last] = fields.reshape(last - first, cols).astype(np.int8) - np.int8(zero)
    return codes


def _count(words: npt.NDArray[np.uint32], field: int) -> int:
    """Return how many fields of some words have a value."""
    return int(((words >> np.arange(0, 32, 2, dtype=np.uint32)) & np.uint32(3) == field).sum())


def stored_scales(ternary: TernaryTensor, groups: int) -> F32:
    """Return a scale per row and group, float32 (rows, groups), of a tensor that has as many or fewer."""
    scales = np.repeat(ternary.scales, len(ternary.codes) // len(ternary.scales), axis=0)
    return np.repeat(scales, groups // scales.shape[1], axis=1)


def group_scales(linear: StoredLinear, scales: StoredTensor) -> F32:
    """Return scales that tile the linear by rows and groups, float32 (rows, groups). Raises Unreadable."""
    rows, cols = linear.shape
    shape = scales.shape
    if len(shape) != 2 or 0 in shape or shape[0] != rows or cols % shape[1]:
        raise Unreadable(f"of shape {list(shape)} does not tile {rows} x {cols} weights", tensor=scales.name)
    values = scales.rows_f32(0, rows)
    if not np.isfinite(values).all() or (values < 0).any():
        raise Unreadable("holds a scale that is negative or not finite", tensor=scales.name)
    return values

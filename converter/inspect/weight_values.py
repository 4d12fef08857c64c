"""What values the weights of one float tensor take: one magnitude besides zero, two, a few levels, or any."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.storage.storage import spans
from tritpack.converter.storage.ternary_floats import SMALLEST_GROUP, magnitudes_of
from tritpack.formats.absmean import FLOOR
from tritpack.formats.arrays import F32, Bits
from tritpack.formats.safetensors_reader import StoredTensor

GROUPS = (256, 128, 64)
"""Sizes of groups whose shares are given."""
SAMPLE = 8
"""Rows that are read of a tensor by default."""
LEVEL_GROUP = 128
"""Weights among which distinct values are counted."""
MOST_LEVELS = 16
"""Distinct values of a group that tell rounded weights from others: more are no sign of 4 bits."""
NEAR = 0.05
"""Relative distance to the nearest ternary matrix up to which weights count as nearly ternary."""

TERNARY, NEARLY, FOUR_VALUED, PARTLY = "ternary", "nearly_ternary", "four_valued", "partly_ternary"
FEW_LEVELS, CONTINUOUS, ZERO = "few_levels", "continuous", "zero"


@dataclasses.dataclass(frozen=True)
class Values:
    """kind: one of the words above. granularity: what one scale covers, of a ternary tensor. rows: how many were read.
    ternary_rows, ternary_groups: the share of those that are not all zero which hold one magnitude besides zero; None
    for groups that do not divide a row. distance: to the nearest ternary matrix with a scale per group (or row), as a
    part of the norm. levels: the most distinct values in a group. zero: the share of zeros."""

    kind: str
    rows: int
    granularity: str | None
    ternary_rows: float
    ternary_groups: dict[str, float | None]
    distance: float
    levels: int
    zero: float


def values_of(tensor: StoredTensor, *, whole: bool, together: bool = False) -> Values:
    """Return what values a tensor of floats (rows, cols) takes, from SAMPLE of its rows or from the whole.

    together: take the rows of the sample from one place, which is one request where the tensor is on a server. Raises
    Unreadable for values that are not finite.
    """
    rows, cols = tensor.rows, tensor.shape[-1]
    sample = _sample(tensor, min(rows, SAMPLE), together)
    uniform = _Uniform(tensor, cols)
    for first, last in spans(rows, cols) if whole else ():
        uniform.add(tensor.rows_bits(first, last))
        tensor.release()
    if not whole:
        uniform.add(sample)
    floats = tensor.widened(sample)
    levels = _levels(floats)
    distance = _distance(floats)
    shares = {str(size): uniform.share(size) for size in GROUPS}
    kind = _kind(uniform, floats, distance, levels)
    return Values(
        kind=kind,
        rows=uniform.rows,
        granularity=uniform.granularity() if kind == TERNARY else None,
        ternary_rows=uniform.share(cols) or 0.0,
        ternary_groups=shares,
        distance=0.0 if kind == TERNARY else distance,
        levels=levels,
        zero=uniform.zeros / max(1, uniform.rows * cols),
    )


def _sample(tensor: StoredTensor, count: int, together: bool) -> Bits:
    if together:
        first = (tensor.rows - count) // 2
        return tensor.rows_bits(first, first + count)
    places = np.unique(np.linspace(0, tensor.rows - 1, count).astype(int))
    return np.concatenate([tensor.rows_bits(place, place + 1) for place in places.tolist()])


class _Uniform:
    """Counts the pieces of rows that hold one magnitude besides zero, for pieces of several sizes."""

    def __init__(self, tensor: StoredTensor, cols: int) -> None:
        self._tensor = tensor
        parts = {cols // count for count in range(1, 9) if cols % count == 0}
        sizes = {size for size in (*GROUPS, 32, SMALLEST_GROUP) if cols % size == 0}
        self._counts = {size: [0, 0] for size in sorted(parts | sizes, reverse=True) if size >= SMALLEST_GROUP}
        self._counts.setdefault(cols, [0, 0])
        self._magnitudes: set[int] = set()
        self._cols = cols
        self._reported = {cols, *GROUPS}
        self.rows = self.zeros = 0

    def add(self, bits: Bits) -> None:
        magnitudes = magnitudes_of(self._tensor, bits)
        self.rows += len(bits)
        self.zeros += int(np.count_nonzero(magnitudes == 0))
        for size, counted in self._counts.items():
            if counted[0] < counted[1] and size not in self._reported:
                continue  # this tensor is not divided like that
            blocks = magnitudes.reshape(-1, size)
            largest = blocks.max(1)
            used = blocks[largest > 0]
            right = ((used == 0) | (used == used.max(1, keepdims=True))).all(1) if len(used) else np.zeros(0, bool)
            counted[0] += int(right.sum())
            counted[1] += len(right)
            if size == self._cols and len(self._magnitudes) < 2:
                self._magnitudes |= set(np.unique(largest[largest > 0])[:2].tolist())

    def share(self, size: int) -> float | None:
        right, used = self._counts.get(size, (0, 0))
        return right / used if used else None

    @property
    def best(self) -> int | None:
        """The largest size of which every piece holds one magnitude."""
        return next((size for size, (right, used) in self._counts.items() if used and right == used), None)

    def granularity(self) -> str:
        best = self.best
        if best == self._cols:
            return "tensor" if len(self._magnitudes) < 2 else "row"
        return f"group {best}"


def _kind(uniform: _Uniform, floats: F32, distance: float, levels: int) -> str:
    if not floats.any():
        return ZERO
    if uniform.best is not None:
        return TERNARY
    if _is_four_valued(floats):
        return FOUR_VALUED
    if distance < NEAR:
        return NEARLY
    if (uniform.share(LEVEL_GROUP) or uniform.share(min(GROUPS)) or 0.0) > 0.5:
        return PARTLY
    return FEW_LEVELS if levels <= MOST_LEVELS and floats.shape[1] >= LEVEL_GROUP else CONTINUOUS


def _pieces(floats: F32, size: int) -> F32:
    cols = floats.shape[1]
    return floats.reshape(-1, size if cols % size == 0 else cols)


def _is_four_valued(floats: F32) -> bool:
    """Whether each row, or each group, holds -s, 0, s and 2 s alone, with 2 s of one sign: what Q2_0 can hold."""
    for size in (floats.shape[1], *GROUPS):
        pieces = _pieces(floats, size)
        magnitudes = np.abs(pieces)
        smallest = np.where(magnitudes > 0, magnitudes, np.inf).min(1, keepdims=True)
        double = magnitudes == 2 * smallest
        signs = np.sign(pieces[double])
        if signs.size and ((magnitudes == 0) | (magnitudes == smallest) | double).all() and (signs == signs[0]).all():
            return True
    return False


def _levels(floats: F32) -> int:
    ordered = np.sort(_pieces(floats + np.float32(0), LEVEL_GROUP), axis=1)
    return int((np.diff(ordered, axis=1) != 0).sum(1).max(initial=0)) + 1


def _distance(floats: F32) -> float:
    """Return the distance to the codes of absmean with the scale that fits them best, in parts of the norm."""
    pieces: npt.NDArray[Any] = _pieces(floats, LEVEL_GROUP).astype(np.float64)
    mean = np.maximum(np.abs(pieces).mean(1, keepdims=True), FLOOR * np.finfo(np.float32).eps)
    codes = np.clip(np.rint(pieces / mean), -1, 1)
    scale = (pieces * codes).sum(1, keepdims=True) / np.maximum((codes * codes).sum(1, keepdims=True), 1)
    power = float(np.square(pieces).sum())
    return float(np.sqrt(np.square(pieces - scale * codes).sum() / power)) if power else 0.0

"""Compares the values of two float tensors piece by piece: how far apart they are, and which rounding explains it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.diff.side import Comparable, in_step
from tritpack.converter.verify.compare.foreign import allowed_distance
from tritpack.formats import float_types
from tritpack.formats.arrays import F32, Bytes
from tritpack.formats.errors import TritpackError
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.names import BLOCK_FLOATS

SHORT_FLOATS = ("f16", "bf16")


@dataclasses.dataclass(frozen=True)
class FloatsComparison:
    """What some rows of two float tensors have shown.

    of, differing: values whose bits differ as float32: 0 and -0 do, and two NaNs may. first: [row, column] of the first
    that differs, and it in A and in B.
    max_abs, max_rel: the largest difference, and the largest relative to the value of A; over finite values.
    not_finite: values of A and of B that are no numbers, where they differ.
    """

    of: int = 0
    differing: int = 0
    first: tuple[int, int, float, float] | None = None
    max_abs: float = 0.0
    max_rel: float = 0.0
    not_finite: tuple[int, int] = (0, 0)

    def merged(self, other: FloatsComparison) -> FloatsComparison:
        """Return the comparison of these rows and of those after them."""
        return FloatsComparison(
            self.of + other.of,
            self.differing + other.differing,
            self.first or other.first,
            max(self.max_abs, other.max_abs),
            max(self.max_rel, other.max_rel),
            (self.not_finite[0] + other.not_finite[0], self.not_finite[1] + other.not_finite[1]),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures; `first` is null where none differs."""
        return {
            "of": self.of,
            "differing": self.differing,
            "share": self.differing / self.of if self.of else 0.0,
            "first": None if self.first is None else dict(zip(("row", "column", "a", "b"), self.first)),
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "not_finite": dict(zip("ab", self.not_finite)),
        }


def compare_floats(a: Comparable, b: Comparable, first: int, last: int) -> FloatsComparison:
    """Compare the rows from first to last of two tensors of one shape. Raises Unreadable."""
    if same_rows(a, b, first, last):
        return FloatsComparison((last - first) * (a.shape[-1] if a.shape else 1))
    result = FloatsComparison()
    row = first
    has_signed_zeros = not (a.is_ternary or b.is_ternary)
    for ours, theirs in in_step(a.rows(first, last), b.rows(first, last)):
        if not has_signed_zeros:  # a code has one zero
            ours, theirs = ours + np.float32(0), theirs + np.float32(0)
        result = result.merged(_compare(row, ours, theirs))
        row += len(ours)
    return result


def same_rows(a: Comparable, b: Comparable, first: int, last: int) -> bool:
    """Whether some rows of two tensors of floats are stored alike."""
    stored, other = a.stored(), b.stored()
    if a.layout != b.layout or stored is None or other is None or a.is_ternary:
        return False
    rows = math.prod(a.shape[:-1])
    part = slice(first * a.nbytes // rows, last * a.nbytes // rows)
    return np.array_equal(stored[part], other[part])


def _compare(row: int, a: F32, b: F32) -> FloatsComparison:
    """Compare some rows, of which the first is `row`."""
    wrong = _bits(a) != _bits(b)
    if not wrong.any():
        return FloatsComparison(a.size)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(b.astype(np.float64) - a)
    finite = np.isfinite(distance)
    used = finite & (a != 0)
    first, column = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
    return FloatsComparison(
        a.size,
        int(np.count_nonzero(wrong)),
        (row + first, column, float(a[first, column]), float(b[first, column])),
        float(distance[finite].max(initial=0)),
        float((distance[used] / np.abs(a[used])).max(initial=0)),
        (int(np.count_nonzero(~np.isfinite(a))), int(np.count_nonzero(~np.isfinite(b)))),
    )


# -- rounding ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Roundings:
    """Which roundings explain how two float tensors differ.

    kinds: (`b`, X) where B is A rounded to the type X, (`a`, X) where A is B rounded. near: whether all values lie
    within the steps of the types that they are stored in, as they do where two encoders rounded the same values. Two
    tensors of one type have neither: nothing tells their rounding from damage.
    """

    kinds: frozenset[tuple[str, str]]
    near: bool

    def merged(self, other: Roundings) -> Roundings:
        """Return what explains these rows and others."""
        return Roundings(self.kinds & other.kinds, self.near and other.near)

    @property
    def best(self) -> tuple[str, str] | None:
        """(side, type) of the coarsest rounding that explains all; None if none does."""
        order = list(FLOAT_TYPES)
        return max(self.kinds, key=lambda entry: (order.index(entry[1]), entry), default=None)


def roundings(a: Comparable, b: Comparable, first: int, last: int) -> Roundings:
    """Say which roundings explain the difference of the rows from first to last. Raises Unreadable."""
    if a.layout == b.layout:
        return Roundings(frozenset(), near=False)
    result = Roundings(frozenset(_candidates(a, b)), near=True)
    for ours, theirs in in_step(a.rows(first, last), b.rows(first, last)):
        sides = {"a": (theirs, ours), "b": (ours, theirs)}
        kinds = frozenset((side, kind) for side, kind in result.kinds if _is_rounded(*sides[side], kind))
        near = result.near and _within_steps(ours, theirs, _steps(a, ours) + _steps(b, theirs))
        result = Roundings(kinds, near)
        if not kinds and not near:
            break
    return result


def _candidates(a: Comparable, b: Comparable) -> Iterator[tuple[str, str]]:
    """Yield which roundings could explain a difference: to the type of a side, or to a shorter plain type, whose values
    a longer one may hold."""
    for name, side in (("a", a), ("b", b)):
        kinds = (side.layout,) if side.layout in BLOCK_FLOATS else SHORT_FLOATS
        yield from ((name, kind) for kind in kinds if not side.is_ternary)


def _is_rounded(exact: F32, rounded: F32, kind: str) -> bool:
    """Whether some rows are others, rounded to a type. Rows that are rounded twice to the same type are themselves."""
    try:
        data, _ = float_types.encode_rows(kind, "f32", _bytes_of(exact), *exact.shape)
    except TritpackError:  # a value that the type does not hold, or rows that are no whole blocks
        return False
    return np.array_equal(_bits(float_types.decode_rows(kind, data, *exact.shape)), _bits(rounded))


def _steps(side: Comparable, values: F32) -> F32:
    """How far rounding to the type of a side may have moved each value, by the step of the block that holds it: values
    that are rounded already are encoded again, which gives that block or a finer one."""
    if side.is_ternary or side.layout not in FLOAT_TYPES:
        return np.zeros_like(values)
    try:
        data, _ = float_types.encode_rows(side.layout, "f32", _bytes_of(values), *values.shape)
    except TritpackError:
        return np.zeros_like(values)
    allowed = allowed_distance(side.layout, data, *values.shape)
    return allowed * np.float32(0.5 if side.layout in SHORT_FLOATS else 1)  # a plain type rounds to the nearest


def _within_steps(a: F32, b: F32, allowed: F32) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        return bool((np.abs(a - b) <= allowed).all())


def _bits(values: F32) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


def _bytes_of(values: F32) -> Bytes:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)

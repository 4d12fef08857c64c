"""Compares the codes and scales of two ternary tensors piece by piece: how many differ, where, and in what ratio."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.diff.side import Comparable, in_step
from tritpack.formats import float_types
from tritpack.formats.arrays import Codes, Scales
from tritpack.formats.errors import TritpackError
from tritpack.formats.ternary import TernaryTensor, granularity, scales_differ

CONSTANT = 1e-5
"""Relative: ratios of scales that differ by less are one ratio."""


@dataclasses.dataclass
class CodesComparison:
    """What all codes of two tensors of one shape have shown.

    differing: codes that differ. first: [row, column] of the first one, and its codes in A and in B. rows: that hold a
    differing one. columns: bool (cols,), likewise. negated: whether each code of B is that of A with its sign changed.
    nonzero: codes that are not zero, of A and of B. sha256: of the codes of A and of B, in the order in which they were
    compared. stored_sha256: of the codes as each file holds them, where that is another order.
    """

    shape: tuple[int, int]
    differing: int = 0
    first: tuple[int, int, int, int] | None = None
    rows: int = 0
    columns: npt.NDArray[np.bool_] | None = None
    negated: bool = True
    nonzero: tuple[int, int] = (0, 0)
    sha256: tuple[str, str] = ("", "")
    stored_sha256: tuple[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the figures; `first` is null where none differs."""
        size = max(1, self.shape[0] * self.shape[1])
        first = None
        if self.first is not None:
            row, column, a, b = self.first
            first = {"row": row, "column": column, "a": a, "b": b}
        in_checkpoint_order = {} if self.stored_sha256 is None else {"codes_sha256_hf": dict(zip("ab", self.sha256))}
        return {
            "of": size,
            "differing": self.differing,
            "share": self.differing / size,
            "first": first,
            "rows": self.rows,
            "columns": 0 if self.columns is None else int(np.count_nonzero(self.columns)),
            "zero_share": dict(zip("ab", (1 - count / size for count in self.nonzero))),
            "codes_sha256": dict(zip("ab", self.stored_sha256 or self.sha256)),
            **in_checkpoint_order,
        }


def compare_codes(a: Comparable, b: Comparable) -> CodesComparison:
    """Compare all codes of two tensors of one shape, whose rows have one order. Raises Unreadable for illegal ones."""
    pairs = ((codes, codes) for codes in a.codes()) if same_bytes(a, b) else in_step(a.codes(), b.codes())
    return compare_pieces(_matrix(a), pairs)


def _matrix(tensor: Comparable) -> tuple[int, int]:
    """Return (rows, cols) of a tensor of however many dimensions."""
    return math.prod(tensor.shape[:-1]), tensor.shape[-1]


def same_bytes(a: Comparable, b: Comparable) -> bool:
    """Whether two tensors are stored alike, so that all that they hold is equal."""
    if a.layout != b.layout or a.nbytes != b.nbytes:
        return False
    stored, other = a.stored(), b.stored()
    return stored is not None and other is not None and np.array_equal(stored, other)


def compare_pieces(shape: tuple[int, int], pairs: Iterable[tuple[Codes, Codes]]) -> CodesComparison:
    """Compare codes that are given in pieces of the same rows, in order."""
    result = CodesComparison(shape)
    hash_a, hash_b = hashlib.sha256(), None
    row, nonzero_a, nonzero_b = 0, 0, 0
    for a, b in pairs:
        is_same = a is b or np.array_equal(a, b)
        count = int(np.count_nonzero(a))
        nonzero_a += count
        nonzero_b += count if is_same else int(np.count_nonzero(b))
        result.negated = result.negated and (not count if is_same else np.array_equal(a, -b))
        if not is_same and hash_b is None:
            hash_b = hash_a.copy()
        hash_a.update(np.ascontiguousarray(a).data)
        if hash_b is not None:
            hash_b.update(np.ascontiguousarray(b).data)
        if not is_same:
            _count(result, row, a, b)
        row += len(a)
    result.nonzero = nonzero_a, nonzero_b
    result.sha256 = hash_a.hexdigest(), (hash_b or hash_a).hexdigest()
    return result


def _count(result: CodesComparison, row: int, a: Codes, b: Codes) -> None:
    """Add what differs in a piece, whose first row is `row`."""
    wrong = a != b
    touched = wrong.any(1)
    if result.first is None:
        place = int(touched.argmax())
        column = int(wrong[place].argmax())
        result.first = row + place, column, int(a[place, column]), int(b[place, column])
    result.differing += int(np.count_nonzero(wrong))
    result.rows += int(np.count_nonzero(touched))
    columns = wrong.any(0)
    result.columns = columns if result.columns is None else result.columns | columns


# -- scales ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ScalesComparison:
    """Two tensors' scales. differing, of: blocks with a code that is not zero, in the coarsest blocks that divide those
    of both. ratio: (least, median, largest) of B's scale by A's over all blocks; None where none differs. examples: A's
    and B's scale in the first block that differs, and in those where their ratio is least and largest. grids: the
    granularity of A's and of B's. sizes: of A's and of B's, (least, largest). roundings: (`b`, X) where every scale of
    B is A's rounded to the type X, (`a`, X) where every scale of A is B's rounded."""

    differing: int
    of: int
    ratio: tuple[float, float, float] | None
    examples: tuple[tuple[float, float], ...]
    grids: tuple[str, str]
    sizes: tuple[tuple[float, float], tuple[float, float]]
    roundings: frozenset[tuple[str, str]] = frozenset()

    @property
    def is_constant(self) -> bool:
        """Whether the scales differ and all are larger by one factor."""
        return self.ratio is not None and self.ratio[2] - self.ratio[0] <= CONSTANT * self.ratio[1]

    def as_json(self) -> dict[str, Any]:
        """Return the figures. `ratio` is null where no scale differs."""
        sides = {
            side: {"granularity": grid, "least": least, "largest": largest}
            for side, grid, (least, largest) in zip("ab", self.grids, self.sizes)
        }
        ratio = None
        if self.ratio is not None:
            ratio = {**dict(zip(("least", "median", "largest"), self.ratio)), "constant": self.is_constant}
        return {**sides, "differing": self.differing, "of": self.of, "ratio": ratio}


def compare_scales(a: Comparable, b: Comparable) -> ScalesComparison:
    """Compare the scales of two tensors of one shape, whose rows have one order."""
    shape = _matrix(a)
    ours, theirs = a.scales(), b.scales()
    if np.array_equal(ours, theirs):
        return _compared(shape, ours, theirs, np.zeros(ours.shape, np.bool_), ours, theirs)
    if ours.size == theirs.size == 1:
        return _compared(shape, ours, theirs, ours != theirs, ours, theirs)
    return scales_of(a.ternary(), b.ternary())


def scales_of(a: TernaryTensor, b: TernaryTensor) -> ScalesComparison:
    """Compare the scales of two whole tensors of one shape."""
    differing, fine_a, fine_b = scales_differ(a, b)
    return _compared(a.shape, a.scales, b.scales, differing, fine_a, fine_b)


def _compared(
    shape: tuple[int, int], a: Scales, b: Scales, differing: npt.NDArray[np.bool_], fine_a: Scales, fine_b: Scales
) -> ScalesComparison:
    ratio: tuple[float, float, float] | None = None
    examples: tuple[tuple[float, float], ...] = ()
    roundings: frozenset[tuple[str, str]] = frozenset()
    if differing.any():
        examples = _examples(fine_a[differing], fine_b[differing])
        used = differing | (fine_a == fine_b)
        roundings = frozenset(_roundings(fine_a[used], fine_b[used]))
        used &= fine_a > 0
        shares = fine_b[used].astype(np.float64) / fine_a[used]
        if shares.size:
            ratio = float(shares.min()), float(np.median(shares)), float(shares.max())
    return ScalesComparison(
        int(np.count_nonzero(differing)),
        int(fine_a.size),
        ratio,
        examples,
        (granularity(shape, _blocks(a)), granularity(shape, _blocks(b))),
        ((float(a.min()), float(a.max())), (float(b.min()), float(b.max()))),
        roundings,
    )


def _examples(a: Scales, b: Scales) -> tuple[tuple[float, float], ...]:
    """Return the first of some scales that differ, and those whose ratio is least and largest; of A and of B."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = b.astype(np.float64) / a
    places = dict.fromkeys((0, int(ratios.argmin()), int(ratios.argmax())))
    return tuple((float(a[place]), float(b[place])) for place in places)


def _roundings(a: Scales, b: Scales) -> Iterator[tuple[str, str]]:
    """Yield which roundings give all scales of one side from those of the other."""
    for side, exact, rounded in (("b", a, b), ("a", b, a)):
        stored = np.ascontiguousarray(exact, np.float32).reshape(1, -1)
        for kind in ("f16", "bf16"):
            try:
                data, _ = float_types.encode_rows(kind, "f32", stored.reshape(-1).view(np.uint8), *stored.shape)
            except TritpackError:  # a scale that the type does not hold
                continue
            if np.array_equal(float_types.decode_rows(kind, data, *stored.shape)[0], rounded):
                yield side, kind


def _blocks(scales: Scales) -> tuple[int, int]:
    return scales.shape[0], scales.shape[1]

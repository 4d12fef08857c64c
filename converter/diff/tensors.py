"""Compares all tensors of two sides, on all cores, and says of each pair how it differs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.diff.codes import (
    CodesComparison,
    ScalesComparison,
    compare_codes,
    compare_pieces,
    compare_scales,
    same_bytes,
    scales_of,
)
from tritpack.converter.diff.floats import FloatsComparison, Roundings, compare_floats, roundings
from tritpack.converter.diff.side import Comparable, Side
from tritpack.converter.verify.findings import Finding
from tritpack.formats.errors import TritpackError, Unsupported
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime.machine import usable_cores

VALUES_AT_ONCE = 1 << 22
"""Floats that are a task of their own."""
MEMORY = 768 << 20
"""Bytes that all comparing threads may use together."""
BYTES_PER_WEIGHT = 4
"""Bytes that comparing one weight needs at most where two whole tensors are decoded."""


@dataclasses.dataclass
class Pair:
    """One tensor on both sides, and what comparing it has shown.

    a, b: None where a side does not have it. order: (rows of A, rows of B) in the order of a checkpoint, where the two
    files order them differently. codes, scales: of two ternary tensors. floats: of all others. rounding: of floats that
    differ. damage: why a side, `a` or `b`, cannot be decoded. finding: the difference in words.
    """

    name: str
    a: Comparable | None
    b: Comparable | None
    order: tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None] | None = None
    codes: CodesComparison | None = None
    scales: ScalesComparison | None = None
    floats: FloatsComparison | None = None
    rounding: Roundings | None = None
    damage: dict[str, str] | None = None
    finding: Finding | None = None

    @property
    def both(self) -> tuple[Comparable, Comparable]:
        """Both tensors of a pair that has them."""
        assert self.a is not None and self.b is not None
        return self.a, self.b

    @property
    def is_rounded(self) -> bool:
        """Whether rounding to the types that the sides are stored in explains all that differs."""
        return self.rounding is not None and (self.rounding.best is not None or self.rounding.near)

    @property
    def differs(self) -> bool:
        """Whether the two hold other values."""
        if self.a is None or self.b is None or self.damage is not None or self.a.shape != self.b.shape:
            return True
        counts = [part.differing for part in (self.codes, self.scales, self.floats) if part is not None]
        return any(counts) or not counts

    @property
    def verdict(self) -> str:
        """`equal`, `rounded`, `differs`, `only_in_a` or `only_in_b`."""
        if self.b is None:
            return "only_in_a"
        if self.a is None:
            return "only_in_b"
        return "equal" if not self.differs else "rounded" if self.is_rounded else "differs"

    @property
    def is_ternary(self) -> bool:
        """Whether each side that has the tensor has it as codes."""
        return all(side is None or side.is_ternary for side in (self.a, self.b))

    def as_json(self) -> dict[str, Any]:
        """Return the row of `diff --json`."""
        sides = {side: tensor for side, tensor in (("a", self.a), ("b", self.b)) if tensor is not None}
        row: dict[str, Any] = {
            "name": self.name,
            "verdict": self.verdict,
            "ternary": self.is_ternary,
            "shape": {side: list(tensor.shape) for side, tensor in sides.items()},
            "layout": {side: tensor.layout for side, tensor in sides.items()},
            "nbytes": {side: tensor.nbytes for side, tensor in sides.items()},
            "kind": None if self.finding is None else self.finding.kind.value,
            "sentence": None if self.finding is None else self.finding.sentence,
        }
        if self.damage is not None:
            row["damage"] = self.damage
        if self.codes is not None:
            row["codes"] = self.codes.as_json()
        if self.scales is not None:
            row["scales"] = self.scales.as_json()
        if self.floats is not None:
            row["values"] = self.floats.as_json()
            if self.rounding is not None:
                best = self.rounding.best
                row["values"]["rounded"] = None if best is None else dict(zip(("side", "type"), best))
                row["values"]["within_steps"] = self.rounding.near
        return row


def compare_tensors(a: Side, b: Side, progress: Callable[[str, int, int], None]) -> list[Pair]:
    """Compare all tensors, in the order of A, then those that only B has. progress: gets the name of a pair that was
    compared, the bytes of both sides so far, and all of them."""
    names = [*a.tensors, *(name for name in b.tensors if name not in a.tensors)]
    pairs = [Pair(name, a.tensors.get(name), b.tensors.get(name), _order(a, b, name)) for name in names]
    shared = [pair for pair in pairs if pair.a is not None and pair.b is not None and pair.a.shape == pair.b.shape]
    largest = max((math.prod(pair.both[0].shape) for pair in shared if pair.is_ternary), default=1)
    threads = max(1, min(usable_cores(), MEMORY // (BYTES_PER_WEIGHT * largest)))
    total = sum(side.nbytes for pair in shared for side in pair.both)
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        tasks = [(pair, [pool.submit(task) for task in _tasks(pair)]) for pair in shared]
        for pair, futures in tasks:
            _gather(pair, [future.result for future in futures])
            done += sum(side.nbytes for side in pair.both)
            progress(pair.name, done, total)
        rounded = [
            (pair, [pool.submit(roundings, *pair.both, *rows) for rows in _row_ranges(*pair.both)])
            for pair in shared
            if pair.floats is not None and pair.floats.differing
        ]
        for pair, parts in rounded:
            pair.rounding = functools.reduce(Roundings.merged, (part.result() for part in parts))
    return pairs


def _order(a: Side, b: Side, name: str) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None] | None:
    """Return how each side orders the rows of a tensor; None where both do alike."""
    if a.spec is None or b.spec is None:
        return None
    orders = a.spec.row_order(name), b.spec.row_order(name)
    first, second = orders
    if first is None or second is None:
        return None if first is second else orders
    return None if np.array_equal(first, second) else orders


Part = tuple[CodesComparison, ScalesComparison] | FloatsComparison


def _tasks(pair: Pair) -> Iterator[Callable[[], Part]]:
    """Yield what compares a pair of one shape, in parts that may run at the same time. They raise TritpackError."""
    a, b = pair.both
    if a.is_ternary and b.is_ternary:
        yield lambda: _releasing(pair, lambda: _compare_ternary(pair))
    elif a.readable and b.readable:
        for first, last in _row_ranges(a, b):
            compare = functools.partial(compare_floats, a, b, first, last)
            yield functools.partial(_releasing, pair, compare)
    else:
        yield lambda: _releasing(pair, lambda: _compare_bytes(pair))


def _releasing(pair: Pair, compare: Callable[[], Part]) -> Part:
    try:
        return compare()
    finally:
        for side in pair.both:
            side.release()


def _gather(pair: Pair, parts: Sequence[Callable[[], Part]]) -> None:
    """Put the results of a pair's tasks into it, or why a side cannot be decoded."""
    if not parts:  # it has no values
        pair.floats = FloatsComparison()
    try:
        for part in parts:
            result = part()
            if not isinstance(result, FloatsComparison):
                pair.codes, pair.scales = result
            else:
                pair.floats = result if pair.floats is None else pair.floats.merged(result)
    except TritpackError:
        pair.codes = pair.scales = pair.floats = None
        pair.damage = {side: text for side, tensor in zip("ab", pair.both) if (text := _damage(tensor)) is not None}


def _damage(tensor: Comparable) -> str | None:
    """Say why a tensor cannot be decoded; None if it can."""
    try:
        if tensor.is_ternary:
            tensor.scales()
            for _ in tensor.codes():
                pass
        elif not tensor.readable:
            return f"it is stored as {tensor.layout}, whose values cannot be decoded here"
        else:
            for _ in tensor.rows(0, math.prod(tensor.shape[:-1])):
                pass
    except TritpackError as error:
        return error.message
    return None


def _compare_ternary(pair: Pair) -> tuple[CodesComparison, ScalesComparison]:
    a, b = pair.both
    if pair.order is None:
        codes, scales = compare_codes(a, b), compare_scales(a, b)
    else:
        ours, theirs = in_checkpoint_order(pair)
        codes = compare_pieces(ours.shape, [(ours.codes, theirs.codes)])
        codes.stored_sha256 = a.ternary().codes_sha256(), b.ternary().codes_sha256()
        scales = scales_of(ours, theirs)
    if not any(codes.nonzero):
        scales = dataclasses.replace(scales, differing=0, ratio=None, examples=())
    return codes, scales


def in_checkpoint_order(pair: Pair) -> tuple[TernaryTensor, TernaryTensor]:
    """Return both tensors of a ternary pair with rows in one order: a checkpoint's, where the two sides order them
    differently, else that of both."""
    orders = pair.order or (None, None)
    ours, theirs = (
        side.ternary() if order is None else side.ternary().with_rows(np.argsort(order))
        for side, order in zip(pair.both, orders)
    )
    return ours, theirs


def _compare_bytes(pair: Pair) -> FloatsComparison:
    """Compare two tensors that cannot be decoded here. Raises Unsupported where their bytes differ."""
    a, b = pair.both
    if same_bytes(a, b):
        return FloatsComparison(math.prod(a.shape))
    raise Unsupported("cannot be decoded here")


def _row_ranges(a: Comparable, b: Comparable) -> list[tuple[int, int]]:
    """Return the rows of two tensors in ranges that are a task each; codes are decoded as a whole."""
    rows, cols = math.prod(a.shape[:-1]), a.shape[-1] if a.shape else 1
    step = rows if a.is_ternary or b.is_ternary else max(1, VALUES_AT_ONCE // max(1, cols))
    return [(first, min(first + step, rows)) for first in range(0, rows, max(1, step))]

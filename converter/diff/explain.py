"""Says in words how tensors differ, and which known mistake turns one into the other. B is described against A."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tritpack.converter.diff.side import Comparable, Side
from tritpack.converter.diff.tensors import Pair, in_checkpoint_order
from tritpack.converter.verify.diagnoses import (
    Diagnosis,
    explain_codes,
    explain_norm,
    explain_rows,
    explain_scale,
)
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.formats.arrays import F32

MAX_UNEXPLAINED = 8
"""Tensors whose codes differ for no reason that is known; of further ones the reason is not searched for."""
REMARKS = {
    Kind.CODES_ZERO: "all codes of B are zero: an empty tensor",
    Kind.ROWS_PERMUTED: "B has A's rows in the rotary order of GGUF's llama",
    Kind.ROWS_NOT_PERMUTED: "A has B's rows in the rotary order of GGUF's llama",
    Kind.ROWS_REORDERED: "rows permuted: B has A's rows in another order",
    Kind.COLUMNS_REORDERED: "columns permuted: B has A's columns in another order",
    Kind.SCALE_LOST: "B's scale is 1: lost",
}
"""What diff says where verify knows which side is right, and diff does not."""
ROUNDED = (Kind.SCALE_FLOAT16, Kind.SCALE_BFLOAT16)


class Explainer:
    """Finds the difference of each pair of tensors in words. a, b: the two sides. pairs: all tensors, compared."""

    def __init__(self, a: Side, b: Side, pairs: Sequence[Pair]) -> None:
        self.a, self.b, self.pairs = a, b, pairs
        self._holders = {pair.codes.sha256[0]: pair.name for pair in pairs if pair.codes is not None}
        both = [pair for pair in pairs if pair.a is not None and pair.b is not None and pair.is_ternary]
        # Of models of different sizes, what looks like a shifted or permuted matrix is chance, or one random stream.
        self._same_sizes = all(pair.both[0].shape == pair.both[1].shape for pair in both)
        self._unexplained = 0

    def explain(self, pair: Pair) -> Finding | None:
        """Return how a pair differs; None if it does not."""
        if not pair.differs:
            return None
        if pair.a is None or pair.b is None:
            only, kind = ("B", Kind.TENSOR_UNEXPECTED) if pair.a is None else ("A", Kind.TENSOR_MISSING)
            return _finding(pair, kind, f"only {only} has it")
        if pair.a.shape != pair.b.shape:
            shapes = f"its shape is {list(pair.a.shape)} in A and {list(pair.b.shape)} in B"
            return _finding(pair, Kind.SHAPE_DIFFERS, shapes)
        if pair.damage is not None:
            why = "; ".join(f"in {side.upper()}: {sentence}" for side, sentence in pair.damage.items())
            return _finding(pair, Kind.TENSOR_INVALID, f"it cannot be decoded, {why}")
        try:
            if pair.codes is not None and pair.codes.differing:
                return self._codes(pair)
            return self._scales(pair) if pair.scales is not None else _floats(pair, self._other_norms(pair))
        finally:
            for side in pair.both:
                side.release()

    # -- ternary tensors -----------------------------------------------------------------------------------------------

    def _codes(self, pair: Pair) -> Finding:
        codes, scales = pair.codes, pair.scales
        assert codes is not None and codes.first is not None and scales is not None
        (rows, cols), (row, column, a, b) = codes.shape, codes.first
        figures = codes.as_json()
        sentence = (
            f"{codes.differing} of {rows * cols} codes differ ({_share(figures['share'])}), in {codes.rows} of {rows} "
            f"rows and {figures['columns']} of {cols} columns, first at [{row}, {column}]: {a} in A, {b} in B"
        )
        diagnosis = self._diagnose(pair)
        remark = REMARKS.get(diagnosis.kind, diagnosis.remark)
        beside = "; the scales differ as well" if scales.differing else ""
        return _finding(pair, diagnosis.kind, Diagnosis(diagnosis.kind, remark).explain(sentence) + beside)

    def _diagnose(self, pair: Pair) -> Diagnosis:
        codes = pair.codes
        assert codes is not None
        if codes.negated:
            return Diagnosis(Kind.CODES_NEGATED, "flipped: every sign is the other one")
        holder = self._holders.get(codes.sha256[1])
        if holder is not None and holder != pair.name:
            return Diagnosis(Kind.CODES_OF_OTHER_TENSOR, f"B has here the codes that A has in {holder!r}")
        if not self._same_sizes or self._unexplained >= MAX_UNEXPLAINED:
            return Diagnosis(Kind.CODES_DIFFER)
        ours, theirs = in_checkpoint_order(pair)
        rotary = pair.name.split(".")[-2:-1] in (["attn_q"], ["attn_k"])
        spec = self.a.spec or self.b.spec
        diagnosis = explain_codes(
            theirs.codes,
            ours.codes,
            head_dim=spec.head_dim if spec is not None and rotary else None,
            other_orders=pair.both[1].other_orders() if pair.order is None else (),
            other_tensors=(),
        )
        self._unexplained += diagnosis.kind is Kind.CODES_DIFFER
        return diagnosis

    def _scales(self, pair: Pair) -> Finding:
        scales, codes = pair.scales, pair.codes
        assert scales is not None and codes is not None and scales.examples
        a, b = scales.examples[0]
        subject = "its scale is" if scales.of == 1 else f"{scales.differing} of {scales.of} scales differ, the first is"
        sentence = f"{subject} {a:.9g} in A and {b:.9g} in B"
        ratio = scales.ratio
        if ratio is not None and scales.of > 1:
            by = f"{ratio[1]:.6g}" if scales.is_constant else f"{ratio[0]:.6g} to {ratio[2]:.6g}"
            sentence += f", {by} times as large" + (" in every block" if scales.is_constant else "")
        diagnosis = self._diagnose_scales(pair)
        return _finding(pair, diagnosis.kind, diagnosis.explain(sentence), ratio=b / a if a else None)

    def _diagnose_scales(self, pair: Pair) -> Diagnosis:
        """Explain B's scales by A's or, where that fails, A's by B's. What is said holds for all of them."""
        scales = pair.scales
        assert scales is not None
        if scales.roundings:
            side, kind = min(scales.roundings, key=lambda entry: (entry[0] != "b", entry[1] != "f16"))
            this, other = ("B", "A") if side == "b" else ("A", "B")
            name = {"f16": "float16", "bf16": "bfloat16"}[kind]
            subject = f"{this}'s is {other}'s" if scales.of == 1 else f"each of {this}'s is {other}'s"
            if pair.both[0].layout == pair.both[1].layout:
                layout = pair.both[0].layout
                remark = f"{subject} rounded to {name}, which no type explains: both are stored as {layout}"
                return Diagnosis(Kind.SCALE_DIFFERS, remark)
            rounding = Kind.SCALE_FLOAT16 if kind == "f16" else Kind.SCALE_BFLOAT16
            return Diagnosis(rounding, f"{subject} rounded to {name}")
        diagnoses = [self._diagnose_scale(pair, a, b) for a, b in scales.examples]
        if len({diagnosis.kind for diagnosis in diagnoses}) > 1:
            return Diagnosis(Kind.SCALE_DIFFERS)
        return diagnoses[0]

    def _diagnose_scale(self, pair: Pair, a: float, b: float) -> Diagnosis:
        """Explain a scale of B by A's or, where that fails, A's by B's."""
        codes, scales = pair.codes, pair.scales
        assert codes is not None and scales is not None
        nonzero = codes.nonzero[0] / (codes.shape[0] * codes.shape[1])
        diagnosis = explain_scale(b, a, nonzero, lambda: self._other_scales(pair) if scales.of == 1 else ())
        named = self._named(diagnosis, nonzero, "B", "A")
        if named is not None:
            return named
        reverse = explain_scale(a, b, nonzero, lambda: ())
        named = self._named(reverse, nonzero, "A", "B")
        if named is None and diagnosis.kind in ROUNDED:  # the first, where not every scale is rounded
            return Diagnosis(Kind.SCALE_DIFFERS)
        return named or diagnosis

    def _named(self, diagnosis: Diagnosis, nonzero: float, this: str, other: str) -> Diagnosis | None:
        """Return a diagnosis in the words of diff; None for one that only gives a ratio."""
        remarks = {
            Kind.SCALE_INVERTED: "inverted: 1 / scale, as where a checkpoint divides by what the other multiplies with",
            Kind.SCALE_SQUARED: f"{this}'s is {other}'s squared: it was multiplied in twice",
            Kind.SCALE_LOST: f"{this}'s is 1: the scale was lost",
            Kind.SCALE_ABSMEAN_TWICE: f"shrunk: {this}'s is {other}'s times {nonzero:.6g}, the share of codes that are "
            "not zero, as where absmean is taken of weights that are ternary already",
            Kind.SCALE_OF_OTHER_TENSOR: f"in B it is {diagnosis.remark}",
        }
        remark = remarks.get(diagnosis.kind)
        return None if remark is None else Diagnosis(diagnosis.kind, remark)

    def _other_scales(self, pair: Pair) -> Iterator[tuple[str, float]]:
        """Yield names and scales of A's other tensors of one scale; the same linear in other layers comes first."""
        others = [other for other in self.pairs if other is not pair and other.scales is not None]
        for other in sorted(others, key=lambda other: other.name.split(".")[-2:] != pair.name.split(".")[-2:]):
            assert other.scales is not None
            least, largest = other.scales.sizes[0]
            if least == largest:
                yield other.name, least

    # -- floats --------------------------------------------------------------------------------------------------------

    def _other_norms(self, pair: Pair) -> Iterator[tuple[str, F32]]:
        """Yield names and values of A's other norms."""
        for other in self.pairs:
            if other is not pair and other.a is not None and len(other.a.shape) == 1 and other.a.readable:
                yield other.name, np.concatenate([*other.a.rows(0, 1)])[0]


def _floats(pair: Pair, other_norms: Iterator[tuple[str, F32]]) -> Finding:
    floats = pair.floats
    assert floats is not None and floats.first is not None
    a, b = pair.both
    row, column, ours, theirs = floats.first
    place = f"[{row}, {column}]" if len(a.shape) > 1 else f"{column}"
    sentence = (
        f"{floats.differing} of {floats.of} values differ ({_share(floats.differing / floats.of)}), at most by "
        f"{floats.max_abs:.3g}, first at {place}: {ours:.9g} in A, {theirs:.9g} in B"
    )
    if math.isnan(ours) and math.isnan(theirs):
        sentence += " with other bits"
    if (said := _rounding(pair)) is not None:
        return _finding(pair, Kind.VALUES_ROUNDED, f"{sentence} ({said})")
    if len(a.shape) == 1:
        values = [np.concatenate([*side.rows(0, 1)])[0] for side in (a, b)]
        diagnosis = explain_norm(values[1], values[0], lambda: other_norms)
        if diagnosis.kind is Kind.NORM_DIFFERS:  # the sentence says how many values do
            diagnosis = Diagnosis(diagnosis.kind)
        return _finding(pair, diagnosis.kind, diagnosis.explain(sentence))
    rows = [next(side.rows(row, math.prod(a.shape[:-1]))) for side in (a, b)]
    count = min(map(len, rows))
    diagnosis = explain_rows(rows[1][:count], rows[0][:count])
    if diagnosis.kind is Kind.TABLE_DIFFERS and _row_hashes(a) == _row_hashes(b):
        diagnosis = Diagnosis(Kind.TABLE_ROWS_REORDERED, "rows permuted: B has A's rows in another order")
    return _finding(pair, diagnosis.kind, diagnosis.explain(sentence))


def _row_hashes(table: Comparable) -> list[int]:
    """Return hashes of all rows, sorted, so that those of the same rows in another order are equal."""
    return sorted(hash(row.tobytes()) for rows in table.rows(0, math.prod(table.shape[:-1])) for row in rows)


def _rounding(pair: Pair) -> str | None:
    """Say which rounding explains all that differs in a tensor of floats; None if none does."""
    if pair.rounding is None:
        return None
    if (best := pair.rounding.best) is not None:
        side, kind = best
        this, other = ("B", "A") if side == "b" else ("A", "B")
        return f"{this} is {other} rounded to {kind}"
    a, b = pair.both
    return f"within the steps of {a.layout} and {b.layout}: rounded by another encoder" if pair.rounding.near else None


def _share(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.3g} %"


def _finding(pair: Pair, kind: Kind, sentence: str, **figures: object) -> Finding:
    return Finding(kind, f"tensor {pair.name!r}: {sentence}", pair.name, figures)

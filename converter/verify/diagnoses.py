"""What most likely went wrong, from what differs: the mistakes that converters really make, by name.

Each function gives a kind and a remark. They run only when something differs, so they may take their time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.findings import Kind
from tritpack.formats.arrays import F32, I8

NamedCodes = Iterable[tuple[str, I8]]

SHIFT_SAMPLE = 96
"""Codes whose place is searched for: a run of so many is not found by accident."""
HALF_HEAD_ROWS = "the rotary order of GGUF's llama"

CARRIERS = np.concatenate(
    [
        np.arange(0, 80).reshape(5, 16).T.reshape(-1),
        np.arange(80, 120).reshape(5, 8).T.reshape(-1),
        np.arange(120, 128).reshape(4, 2).T.reshape(-1),
    ]
)
"""Where the trits of a group of PTQ1_0 lie, byte by byte and from the first digit of each."""


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """kind: what is wrong. remark: the same in words, or "" where the kind says no more than that values differ."""

    kind: Kind
    remark: str = ""

    def explain(self, sentence: str) -> str:
        """The sentence with the remark in brackets."""
        return f"{sentence} ({self.remark})" if self.remark else sentence


def explain_codes(
    codes: I8, expected: I8, *, head_dim: int | None, other_orders: NamedCodes, other_tensors: NamedCodes
) -> Diagnosis:
    """Compare int8 codes of one shape that differ.

    head_dim: of q and k, whose rows may be permuted. other_orders: what the stored bytes give in other byte orders.
    other_tensors: codes of the source's other tensors of this shape.
    """
    wrong = codes != expected
    if np.count_nonzero(wrong) == 1:
        return Diagnosis(Kind.CODE_DIFFERS, "a single one")
    if not codes.any():
        return Diagnosis(Kind.CODES_ZERO, "all of them are zero: an empty tensor")
    if np.array_equal(codes, -expected):
        return Diagnosis(Kind.CODES_NEGATED, "every sign is flipped")
    for name, reordered in other_orders:
        if np.array_equal(reordered, expected):
            hint = f"they are right if read in the order of {name}: `tritpack repack --read-as {name}` mends that"
            return Diagnosis(Kind.BYTE_ORDER, hint)
    if any(np.array_equal(codes, _within_groups(expected, order)) for order in (CARRIERS, np.argsort(CARRIERS))):
        remark = "the trits of a byte of PTQ1_0 were taken for neighbours, and they lie 16, 8 or 2 weights apart"
        return Diagnosis(Kind.TRITS_CARRIER_MAJOR, f"{remark}; tritpack convert SOURCE makes it anew")
    if (diagnosis := _explain_by_axes(codes, expected, head_dim)) is not None:
        return diagnosis
    for name, others in other_tensors:
        if np.array_equal(codes, others):
            return Diagnosis(Kind.CODES_OF_OTHER_TENSOR, f"these are the codes of {name}")
    return _explain_by_shift(codes, expected, wrong) or _explain_by_extent(wrong)


def _within_groups(codes: I8, order: npt.NDArray[np.int64]) -> I8:
    """The codes with the columns of each group of 128 in another order; as they are if there are no such groups."""
    rows, cols = codes.shape
    return codes if cols % len(order) else codes.reshape(rows, -1, len(order))[:, :, order].reshape(rows, cols)


def _explain_by_axes(codes: I8, expected: I8, head_dim: int | None) -> Diagnosis | None:
    """Rows, columns or values in another order."""
    if head_dim is not None and len(codes) % head_dim == 0:
        order = np.arange(len(codes)).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)
        if np.array_equal(codes, expected[order]):
            remark = f"the rows are in {HALF_HEAD_ROWS}, which this model must not have"
            return Diagnosis(Kind.ROWS_PERMUTED, remark)
        if np.array_equal(codes[order], expected):
            remark = f"the rows are not in {HALF_HEAD_ROWS}, which this architecture needs"
            return Diagnosis(Kind.ROWS_NOT_PERMUTED, remark)
    if len(codes) % 4 == 0:
        quarters = np.arange(len(codes)).reshape(4, -1).T.reshape(-1)
        if np.array_equal(codes, expected[quarters]) or np.array_equal(codes[quarters], expected):
            rows = "rows that share a byte in the checkpoint, a quarter of the matrix apart"
            remark = f"{rows}, were taken for neighbours"
            return Diagnosis(Kind.ROWS_QUARTERED, remark)
    for by in (1, -1):
        if np.array_equal(codes, np.roll(expected, by, axis=0)):
            remark = f"the rows lie 1 further {'down' if by > 0 else 'up'} than they should"
            return Diagnosis(Kind.ROWS_SHIFTED, remark)
    if sorted(map(bytes, codes)) == sorted(map(bytes, expected)):
        return Diagnosis(Kind.ROWS_REORDERED, "the same rows in another order")
    if np.array_equal(codes[:, ::-1], expected):
        return Diagnosis(Kind.COLUMNS_REVERSED, "the columns are in reverse order")
    if sorted(map(bytes, codes.T)) == sorted(map(bytes, expected.T)):
        return Diagnosis(Kind.COLUMNS_REORDERED, "the same columns in another order")
    for by in (1, 2):
        if np.array_equal((codes + by + 1) % 3 - 1, expected):
            remark = "the codes stand for other values: -1, 0 and +1 are mapped in a circle"
            return Diagnosis(Kind.CODES_REMAPPED, remark)
    if np.array_equal(codes.reshape(expected.shape[::-1]).T, expected):
        return Diagnosis(Kind.CODES_TRANSPOSED, "the matrix is transposed")
    return None


def _explain_by_shift(codes: I8, expected: I8, wrong: npt.NDArray[np.bool_]) -> Diagnosis | None:
    """Whether everything from the first difference on lies somewhere else, and by how much."""
    flat, want = np.ascontiguousarray(codes).reshape(-1), np.ascontiguousarray(expected).reshape(-1)
    first, cols = int(wrong.reshape(-1).argmax()), codes.shape[1]
    sample = want[first : first + SHIFT_SAMPLE].tobytes()
    at = flat.tobytes().find(sample)
    if at < 0 or at == first or len(sample) < SHIFT_SAMPLE or want.tobytes().count(sample) > 1:
        return None
    size = want.size - max(first, at)
    left = np.count_nonzero(flat[at : at + size] != want[first : first + size])
    if left > size // 100 or 10 * left >= np.count_nonzero(wrong):
        return None
    by = at - first
    unit = f"{by // cols} rows" if by % cols == 0 else f"{by} places"
    remark = f"all of them from there on lie {unit} further than they should: an offset or a tile is wrong"
    return Diagnosis(Kind.CODES_SHIFTED, remark)


def _explain_by_extent(wrong: npt.NDArray[np.bool_]) -> Diagnosis:
    rows, cols = np.flatnonzero(wrong.any(1)), np.flatnonzero(wrong.any(0))
    box = (int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1)
    if box[0] < wrong.shape[0] or box[1] < wrong.shape[1]:
        remark = f"all within rows {rows[0]} to {rows[-1]}, columns {cols[0]} to {cols[-1]}"
    elif wrong.mean() > 0.4:
        remark = "nothing in common: other weights, or another order of the codes"
    else:
        remark = ""
    return Diagnosis(Kind.CODES_DIFFER, remark)


def explain_scale(
    scale: float, expected: float, nonzero: float, other_scales: Callable[[], Iterable[tuple[str, float]]]
) -> Diagnosis:
    """Compare two scales that differ; what explains a scale exactly is tried first.

    nonzero: the share of the codes under it that are not zero. other_scales: names and scales of the source's other
    tensors.
    """
    if np.float32(scale) == np.float32(np.float16(expected)):
        return Diagnosis(Kind.SCALE_FLOAT16, "rounded to float16")
    if np.float32(scale) == _bfloat16(expected):
        return Diagnosis(Kind.SCALE_BFLOAT16, "rounded to bfloat16")
    if not expected:
        return Diagnosis(Kind.SCALE_DIFFERS)
    if abs(scale / expected - 1) < 1e-5:
        return Diagnosis(Kind.SCALE_DIFFERS, f"a relative change of {abs(scale / expected - 1):.1e}")
    for name, other in other_scales():
        if np.float32(scale) == np.float32(other):
            return Diagnosis(Kind.SCALE_OF_OTHER_TENSOR, f"the scale of {name}: stale, or from another tensor")
    return _explain_by_formula(scale, expected, nonzero) or Diagnosis(
        Kind.SCALE_DIFFERS, f"{scale / expected:.4g} times as large"
    )


def _explain_by_formula(scale: float, expected: float, nonzero: float) -> Diagnosis | None:
    if abs(expected - 1) > 0.01:  # else nothing tells these from a small error
        if scale == 1:
            return Diagnosis(Kind.SCALE_LOST, "the scale was lost")
        if np.isclose(scale * expected, 1, rtol=1e-3):
            return Diagnosis(Kind.SCALE_INVERTED, "inverted: it multiplies where it should divide, or the reverse")
        if np.isclose(scale, expected * expected, rtol=1e-3):
            return Diagnosis(Kind.SCALE_SQUARED, "squared: it was multiplied in twice")
    if nonzero and np.isclose(scale, expected * nonzero, rtol=1e-3):
        return Diagnosis(Kind.SCALE_ABSMEAN_TWICE, "shrunk by the share of non-zeros: absmean was taken twice")
    return None


def _bfloat16(value: float) -> np.float32:
    """Rounded to the nearest, ties to even."""
    bits = int(np.float32(value).view(np.uint32))
    return np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def explain_norm(factors: F32, expected: F32, other_norms: Callable[[], Iterable[tuple[str, F32]]]) -> Diagnosis:
    """Compare the factors of a norm, float32 (size,), with other ones. other_norms: the source's other norms."""
    if not np.isfinite(factors).all():
        return Diagnosis(Kind.NOT_FINITE, "it is not finite")
    if np.array_equal(factors, expected + np.float32(1)):
        return Diagnosis(Kind.NORM_PLUS_ONE, "1 was added where the norm must not have it, or twice")
    if np.allclose(factors, expected - np.float32(1), rtol=0, atol=1e-6):
        return Diagnosis(Kind.NORM_MINUS_ONE, "1 was not added: the checkpoint has what this norm adds to 1")
    if (factors == 1).all():
        return Diagnosis(Kind.NORM_LOST, "all are 1: the norm was lost")
    for name, values in other_norms():
        if np.array_equal(factors, values):
            return Diagnosis(Kind.NORM_OF_OTHER_TENSOR, f"these are the values of {name}")
    return Diagnosis(Kind.NORM_DIFFERS, f"{np.count_nonzero(factors != expected)} of {factors.size} values differ")


def explain_rows(rows: F32, expected: F32) -> Diagnosis:
    """Compare the same rows, float32 (n, cols), of an embedding or head that differ."""
    if not np.isfinite(rows).all():
        return Diagnosis(Kind.NOT_FINITE, "there are values that are not finite")
    if not rows.any():
        return Diagnosis(Kind.TABLE_ZERO, "it is all zeros")
    for by, direction in ((1, "further down"), (-1, "further up")):
        moved, original = (rows[by:], expected[:-by]) if by > 0 else (rows[:by], expected[-by:])
        if len(moved) and np.mean((moved == original).all(1)) > 0.9:
            return Diagnosis(Kind.TABLE_ROWS_SHIFTED, f"the rows lie {abs(by)} {direction} than they should")
    return Diagnosis(Kind.TABLE_DIFFERS)

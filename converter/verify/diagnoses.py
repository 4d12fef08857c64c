"""What most likely went wrong, from what differs: the mistakes that converters really make, by name.

Each function gives a remark in brackets to put behind a finding, or "" where nothing known fits. They run only when
something differs, so they may take their time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

I8 = npt.NDArray[np.int8]
F32 = npt.NDArray[np.float32]
Candidates = Iterable[tuple[str, I8]]

SHIFT_SAMPLE = 96
"""Codes that are looked for elsewhere: with three values each no accident finds them."""
HALF_HEAD_ROWS = "the rotary order of GGUF's llama"


def of_codes(found: I8, expected: I8, *, head_dim: int | None, other_orders: Candidates, others: Candidates) -> str:
    """found, expected: different codes of one shape. head_dim: of q and k, whose rows may be permuted.

    other_orders: how else the stored bytes could be read. others: codes of the source's other tensors of this shape."""
    wrong = found != expected
    if np.count_nonzero(wrong) == 1:
        return " (a single one)"
    if not found.any():
        return " (all of them are zero: an empty tensor)"
    if np.array_equal(found, -expected):
        return " (every sign is flipped)"
    for name, codes in other_orders:
        if np.array_equal(codes, expected):
            return f" (they are right if read in the order of {name}: `tritpack repack --read-as {name}` mends that)"
    if remark := _rows(found, expected, head_dim):
        return remark
    if np.array_equal(found.reshape(expected.shape[::-1]).T, expected):
        return " (the matrix is transposed)"
    for name, codes in others:
        if np.array_equal(found, codes):
            return f" (these are the codes of {name})"
    return _shift(found, expected, wrong) or _extent(wrong)


def _rows(found: I8, expected: I8, head_dim: int | None) -> str:
    rows = len(found)
    if head_dim is not None and rows % head_dim == 0:
        order = np.arange(rows).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)
        if np.array_equal(found, expected[order]):
            return f" (the rows are in {HALF_HEAD_ROWS}, which this model must not have)"
        if np.array_equal(found[order], expected):
            return f" (the rows are not in {HALF_HEAD_ROWS}, which this architecture needs)"
    if rows % 4 == 0:
        quarters = np.arange(rows).reshape(4, -1).T.reshape(-1)
        if np.array_equal(found, expected[quarters]) or np.array_equal(found[quarters], expected):
            return (
                " (rows that share a byte in the checkpoint, a quarter of the matrix apart, were taken for neighbours)"
            )
    for by in (1, -1):
        if np.array_equal(found, np.roll(expected, by, axis=0)):
            return f" (the rows lie 1 further {'down' if by > 0 else 'up'} than they should)"
    if sorted(map(bytes, found)) == sorted(map(bytes, expected)):
        return " (the same rows in another order)"
    if np.array_equal(found[:, ::-1], expected):
        return " (the columns are in reverse order)"
    for by in (1, 2):
        if np.array_equal((found + by + 1) % 3 - 1, expected):
            return " (the codes stand for other values: -1, 0 and +1 are mapped in a circle)"
    return ""


def _shift(found: I8, expected: I8, wrong: npt.NDArray[np.bool_]) -> str:
    """Whether everything from the first difference on lies somewhere else, by how much."""
    flat, want = np.ascontiguousarray(found).reshape(-1), np.ascontiguousarray(expected).reshape(-1)
    first, cols = int(wrong.reshape(-1).argmax()), found.shape[1]
    sample = want[first : first + SHIFT_SAMPLE].tobytes()
    at = flat.tobytes().find(sample)
    if at < 0 or at == first or len(sample) < SHIFT_SAMPLE or want.tobytes().count(sample) > 1:
        return ""
    size = want.size - max(first, at)
    left = np.count_nonzero(flat[at : at + size] != want[first : first + size])
    if left > size // 100 or 10 * left >= np.count_nonzero(wrong):
        return ""
    by = at - first
    unit = f"{by // cols} rows" if by % cols == 0 else f"{by} places"
    return f" (all of them from there on lie {unit} further than they should: an offset or a tile is wrong)"


def _extent(wrong: npt.NDArray[np.bool_]) -> str:
    rows, cols = np.flatnonzero(wrong.any(1)), np.flatnonzero(wrong.any(0))
    box = (int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1)
    if box[0] < wrong.shape[0] or box[1] < wrong.shape[1]:
        return f" (all within rows {rows[0]} to {rows[-1]}, columns {cols[0]} to {cols[-1]})"
    if wrong.mean() > 0.4:
        return " (nothing in common: other weights, or another order of the codes)"
    return ""


def of_scale(found: float, expected: float, codes: I8, others: Callable[[], Iterable[tuple[str, float]]]) -> str:
    """others: names and scales of the source's other tensors. What explains a scale exactly is tried first."""
    for kind, rounded in (("float16", np.float32(np.float16(expected))), ("bfloat16", _bfloat16(expected))):
        if np.float32(found) == rounded:
            return f" (rounded to {kind})"
    if not expected or abs(found / expected - 1) < 1e-5:
        return f" (off by {abs(found / expected - 1):.1e} of it)" if expected else ""
    for name, scale in others():
        if np.float32(found) == np.float32(scale):
            return f" (the scale of {name}: stale, or from another tensor)"
    if abs(expected - 1) > 0.01:  # else nothing tells these from a small error
        if found == 1:
            return " (the scale was lost)"
        if np.isclose(found * expected, 1, rtol=1e-3):
            return " (inverted)"
        if np.isclose(found, expected * expected, rtol=1e-3):
            return " (squared: it was multiplied in twice)"
    share = np.count_nonzero(codes) / codes.size
    if share and np.isclose(found, expected * share, rtol=1e-3):
        return " (shrunk by the share of non-zeros: absmean was taken twice)"
    return f" ({found / expected:.4g} times as large)"


def _bfloat16(value: float) -> np.float32:
    """Rounded to the nearest, ties to even."""
    bits = int(np.float32(value).view(np.uint32))
    return np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def of_norm(found: F32, expected: F32, others: Callable[[], Iterable[tuple[str, F32]]]) -> str:
    """found, expected: different factors of one norm. others: the source's other norms."""
    if not np.isfinite(found).all():
        return " (it is not finite)"
    if np.array_equal(found, expected + np.float32(1)):
        return " (1 was added, as Gemma's norms have it and these must not)"
    if np.allclose(found, expected - np.float32(1), rtol=0, atol=1e-6):
        return " (1 was not added, as Gemma's norms need)"
    if (found == 1).all():
        return " (all are 1: the norm was lost)"
    for name, values in others():
        if np.array_equal(found, values):
            return f" (these are the values of {name})"
    return f" ({np.count_nonzero(found != expected)} of {found.size} values differ)"


def of_rows(found: F32, expected: F32) -> str:
    """found, expected: the same rows (n, cols) of an embedding or head, different."""
    if not np.isfinite(found).all():
        return " (there are values that are not finite)"
    if not found.any():
        return " (it is all zeros)"
    for by in (1, -1):
        mine, theirs = (found[by:], expected[:-by]) if by > 0 else (found[:by], expected[-by:])
        if len(mine) and np.mean((mine == theirs).all(1)) > 0.9:
            return f" (the rows lie {abs(by)} {'further down' if by > 0 else 'further up'} than they should)"
    return ""

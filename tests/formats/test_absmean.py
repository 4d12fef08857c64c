"""Absmean on blocks of rows: the sums do not depend on how rows are cut, and the mean is rounded once."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tritpack.formats.absmean import FLOOR, abs_sums, codes_of, scale_of
from tritpack.formats.float_types import PLAIN_FLOATS, encode


def sample(rows: int, cols: int) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((rows, cols)) * 0.05).astype(np.float32)


@pytest.mark.parametrize("stored", PLAIN_FLOATS)
def test_sums_do_not_depend_on_blocks(stored: str) -> None:
    data = encode(stored, sample(12, 100))
    whole, size = abs_sums(stored, data, 12, 100), data.size // 12
    for step in (1, 5, 12):
        parts = [
            abs_sums(stored, data[r * size : (r + step) * size], min(step, 12 - r), 100) for r in range(0, 12, step)
        ]
        assert np.array_equal(np.concatenate(parts), whole), step


def test_the_order_of_a_row() -> None:
    """Written out: sixteen lanes, one tree."""
    row = sample(1, 90) * np.float32(10) ** np.arange(-20, 25, 0.5, dtype=np.float32)
    lanes = [0.0] * 16
    for index, value in enumerate(row[0]):
        lanes[index % 16] += abs(float(value))
    for half in (8, 4, 2, 1):
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    assert abs_sums("f32", encode("f32", row), 1, 90).tolist() == lanes


def test_the_scale_is_the_exact_mean_rounded() -> None:
    values = sample(40, 333)
    sums = abs_sums("f32", encode("f32", values), 40, 333)
    exact = sum(Fraction(abs(float(value))) for value in values.reshape(-1)) / values.size
    assert scale_of(sums, values.size) == scale_of(sums[::-1], values.size) == np.float32(float(exact))
    assert scale_of(np.zeros(3), 30) == np.float32(FLOOR)
    assert scale_of(np.array([1.0, math.nan]), 30) is None and scale_of(np.array([math.inf]), 30) is None


def test_halves_round_to_even() -> None:
    scale = np.float32(0.25)
    values = np.array([[0.125, -0.125, np.nextafter(np.float32(0.125), np.float32(1)), 9, -0.0, -3]], np.float32)
    codes = codes_of("f32", encode("f32", values), 1, 6, scale)
    assert codes.dtype == np.int8 and codes.tolist() == [[0, 0, 1, 1, 0, -1]]
    out = np.full((1, 6), 7, np.int8)
    assert codes_of("f32", encode("f32", values), 1, 6, scale, out) is out and np.array_equal(out, codes)

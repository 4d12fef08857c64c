"""The oracle's own rounding of scales gives what the converter's gives, which it neither imports nor is handed."""

from __future__ import annotations

import numpy as np
import pytest

from tritpack.converter.targets import scale_rounding
from tritpack.converter.verify.oracle.rounding import StoredScales, round_scales
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.ternary import TernaryTensor

SHAPE = (64, 1536)
GRIDS = [(1, 1), (64, 1), (2, 1), (32, 1), (1, 2), (64, 3), (64, 6), (4, 12), (64, 12), (64, 24), (64, 48), (64, 1536)]
"""(row_blocks, col_blocks): a scale per tensor, row, shard, and group of 512 down to 1."""


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_scales_are_rounded_as_the_converter_rounds_them(name: str, grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(grid[0] * 7919 + grid[1])
    codes = rng.integers(-1, 2, SHAPE).astype(np.int8)
    codes[:2] = 0  # blocks without any scale of their own
    codes[:, :128] = 0
    scales = rng.uniform(1e-3, 3, grid).astype(np.float32)
    layout = LAYOUTS[name]
    finest = layout.nearest_grid(*SHAPE, SHAPE)
    ours = round_scales((codes, scales), StoredScales(finest, layout.half_scales))
    expected = scale_rounding.rounded(TernaryTensor(codes, scales), layout).scales
    assert ours.dtype == np.float32 and ours.shape == expected.shape
    assert np.array_equal(ours.view(np.uint32), expected.view(np.uint32))


def test_float16_that_overflows_is_infinite_as_in_the_converter() -> None:
    codes, scales = np.ones((1, 256), np.int8), np.full((1, 1), 1e5, np.float32)
    assert np.isinf(round_scales((codes, scales), StoredScales((1, 1), float16=True))).all()

"""Scales that a layout cannot hold: on request they are made coarser and rounded to what it stores.

`loss` gives the change as a figure.
"""

from __future__ import annotations

import numpy as np

from tritpack.formats.arrays import Scales
from tritpack.formats.layouts.layout import Layout, spread
from tritpack.formats.ternary import TernaryTensor


def rounded(tensor: TernaryTensor, layout: Layout) -> TernaryTensor:
    """The tensor with scales that the layout holds exactly; the same object if it holds them as they are."""
    stored = layout.as_stored(_coarsened(tensor, layout))
    return tensor if stored is tensor.scales else TernaryTensor(tensor.codes, stored)


def vanishes(tensor: TernaryTensor, layout: Layout) -> bool:
    """Whether a scale would be stored as 0, so that its weights were lost."""
    scales = _coarsened(tensor, layout)
    return bool(((layout.as_stored(scales) == 0) & (scales > 0)).any())


def _coarsened(tensor: TernaryTensor, layout: Layout) -> Scales:
    grid = layout.nearest_grid(*tensor.shape, tensor.scale_blocks)
    return tensor.scales if grid == tensor.scale_blocks else fold(tensor, grid)


def fold(tensor: TernaryTensor, blocks: tuple[int, int]) -> Scales:
    """Coarser scales, float32 (row_blocks, col_blocks). That of a block is the mean of the scales of its codes that are
    not zero, which has the least squared error of the weights."""
    rows, cols = tensor.shape
    fine_rows, fine_cols = (int(np.lcm(a, b)) for a, b in zip(tensor.scale_blocks, blocks))
    tiles = (tensor.codes != 0).reshape(fine_rows, rows // fine_rows, fine_cols, cols // fine_cols)
    weights = np.count_nonzero(tiles, axis=(1, 3)).astype(np.float64)
    scales = spread(tensor.scales, fine_rows, fine_cols)
    shape = (blocks[0], fine_rows // blocks[0], blocks[1], fine_cols // blocks[1])
    total = weights.reshape(shape).sum((1, 3))
    mean = (weights * scales).reshape(shape).sum((1, 3)) / np.maximum(total, 1)
    return np.asarray(np.where(total > 0, mean, scales.reshape(shape).max((1, 3))), np.float32)


def loss(before: TernaryTensor, after: TernaryTensor) -> float:
    """The largest relative change of a scale."""
    rows, cols = (int(np.lcm(a, b)) for a, b in zip(before.scale_blocks, after.scale_blocks))
    old, new = spread(before.scales, rows, cols), spread(after.scales, rows, cols)
    used = old > 0
    return float(np.abs(new[used].astype(np.float64) / old[used] - 1).max(initial=0))

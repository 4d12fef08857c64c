"""What storing makes of values: the oracle's own rounding of scales and tables, told as plain data what FILE stores.

Independent of converter/targets/scale_rounding.py by intention; a test holds the two equal. Tables are rounded by
formats/float_types.py, the specification of those types.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.codes import Coded
from tritpack.converter.verify.oracle.tensors import F32, Rows
from tritpack.formats import float_types


@dataclasses.dataclass(frozen=True)
class StoredScales:
    """finest: the finest (row_blocks, col_blocks) that the file's layout holds for this matrix.
    float16: whether it stores scales as float16."""

    finest: tuple[int, int]
    float16: bool


@dataclasses.dataclass(frozen=True)
class StoredTable:
    """The float type of an embedding or head. data: its bytes, uint8 (rows, bytes of a row), where the weights rung has
    found them right, so that nothing has to be encoded again, or where another encoder chose them: how it rounds is not
    known, and the weights rung judges them by distance."""

    float_type: str
    data: npt.NDArray[np.uint8] | None = None


@dataclasses.dataclass(frozen=True)
class StoredTypes:
    """How a file stores what the oracle reads exactly; tensors that are not named here are stored exactly.

    scales: by GGUF name of a linear, without `.weight`. tables: by `token_embd` or `output`.
    """

    scales: dict[str, StoredScales] = dataclasses.field(default_factory=dict)
    tables: dict[str, StoredTable] = dataclasses.field(default_factory=dict)


EXACTLY = StoredTypes()


def decode_rows(table: StoredTable, rows: Rows, cols: int) -> F32:
    """Rows of a table as its bytes have them, float32 (n, cols)."""
    assert table.data is not None
    data = table.data[rows]
    return float_types.decode(table.float_type, data, len(data), cols)


def round_rows(rows: F32, float_type: str) -> F32:
    """float32 (n, cols) after they were stored as that type."""
    return float_types.decode(float_type, float_types.encode(float_type, rows), *rows.shape)


def round_scales(coded: Coded, stored: StoredScales) -> F32:
    """The scales of a matrix after they were stored: folded to what the layout holds, then rounded."""
    codes, scales = coded
    row_blocks = 1 if stored.finest[0] == 1 else scales.shape[0]
    col_blocks = scales.shape[1] if stored.finest[1] % scales.shape[1] == 0 else stored.finest[1]
    if (row_blocks, col_blocks) != scales.shape:
        scales = _fold(codes, scales, row_blocks, col_blocks)
    if stored.float16:
        with np.errstate(over="ignore"):
            scales = scales.astype(np.float16).astype(np.float32)
    return scales


def _fold(codes: npt.NDArray[np.int8], scales: F32, row_blocks: int, col_blocks: int) -> F32:
    """One scale for each larger block: the mean over its codes that are not zero, which has the least squared error; in
    a block of zeros the largest scale. float32 (row_blocks, col_blocks)."""
    # Tiles fine enough for both grids have one old scale and belong to one new block.
    rows, cols = np.lcm(scales.shape[0], row_blocks), np.lcm(scales.shape[1], col_blocks)
    nonzero = np.count_nonzero(codes.reshape(rows, codes.shape[0] // rows, cols, -1), axis=(1, 3)).astype(np.float64)
    by_tile = scales.repeat(rows // scales.shape[0], 0).repeat(cols // scales.shape[1], 1)
    grid = (row_blocks, rows // row_blocks, col_blocks, cols // col_blocks)
    count = nonzero.reshape(grid).sum((1, 3))
    total = (nonzero * by_tile).reshape(grid).sum((1, 3))
    largest = by_tile.reshape(grid).max((1, 3))
    folded: F32 = np.where(count > 0, total / np.maximum(count, 1), largest).astype(np.float32)
    return folded

"""TL1 of bitnet.cpp (ARM): two weights per nibble, 3 a + b + 4, in tiles of BM rows by BK columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import TRAILER
from tritpack.formats.layouts.layout import Blocks
from tritpack.formats.layouts.tiling import Tiled, Tiling, tile_rows

if TYPE_CHECKING:
    import numpy.typing as npt


class TL1(Tiled):
    """rows * cols / 4 + 32 bytes. A byte has four neighbours of one row; the bytes of 16 rows stand together."""

    name = "tl1"
    inner = (32, 64)

    @classmethod
    def illegal_tiling(cls, rows: int, cols: int, tiling: Tiling) -> str | None:
        BM, BK, bm = tiling.BM, tiling.BK, tiling.bm
        if cols % 8:
            return f"rows of {cols} weights are not a multiple of 8"
        if bm not in cls.inner:
            return f"bm is {bm}, expected 32 or 64"
        if rows % BM or cols % BK:
            return f"tiles of {BM} x {BK} do not divide {rows} x {cols}"
        if BM % bm or BK % (256 // bm):
            return f"tiles of {BM} x {BK} are not made of blocks of {bm} x {256 // bm}"
        return None

    @classmethod
    def rule(cls, rows: int, cols: int) -> Tiling | None:
        BK = next((size for size in (128, 64, 32, 16, 8) if cols % size == 0), None)
        return Tiling(tile_rows(rows), BK, 32) if BK else None

    def no_rule(self, cols: int) -> str:
        return f"rows of {cols} weights are not a multiple of 8"

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        return rows * cols // 4 + TRAILER

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        rows, cols = codes.shape
        quads = codes.reshape(*_grid(rows, cols, self.tiling_of(rows, cols)), 4).transpose(0, 4, 1, 5, 2, 6, 3, 7)
        body[:] = pack_pairs(quads).reshape(-1)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        t, i, s, e, u, j, q = _grid(rows, cols, self.tiling_of(rows, cols))
        return unpack_pairs(body).reshape(t, u, i, j, s, q, e, 4).transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(rows, cols)

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        return int(np.count_nonzero((body > 0x8F) | (body & 15 > 8)))


def _grid(rows: int, cols: int, tiling: Tiling) -> tuple[int, ...]:
    """The lengths of the axes: rows as (tile, block, sub-block, 16), columns as (tile, block, quads of 4)."""
    BM, BK, bm = tiling.BM, tiling.BK, tiling.bm
    by = 256 // bm
    return rows // BM, BM // bm, bm // 16, 16, cols // BK, BK // by, by // 4


def pack_pairs(quads: npt.NDArray[np.int8]) -> Bytes:
    """Pack int8 codes (..., 4) into bytes, the first pair in the high nibble."""
    pairs = (3 * quads[..., 0::2] + quads[..., 1::2] + 4).view(np.uint8)
    return np.asarray(pairs[..., 0] << 4 | pairs[..., 1], np.uint8)


def unpack_pairs(data: Bytes) -> npt.NDArray[np.int8]:
    """Unpack bytes (...) to codes (..., 4); a nibble above 8 gives two codes of +2."""
    nibbles: npt.NDArray[np.int8] = np.stack([data >> 4, data & 15], axis=-1).view(np.int8)
    values = np.stack([nibbles // 3 - 1, nibbles % 3 - 1], axis=-1)
    values[nibbles > 8] = 2
    return np.asarray(values.reshape(*data.shape, 4), np.int8)

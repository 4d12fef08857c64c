"""TL2 of bitnet.cpp (x86): three weights per nibble and sign bit, in tiles of BM rows by BK columns.

The columns that whole tiles hold (`threes`) are stored as nibbles |9 a + 3 b + c| and then as sign bits; the others as
in TL1. The body's size does not depend on the tiling, so there is padding after it.
"""

from __future__ import annotations

import itertools

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import TRAILER
from tritpack.formats.layouts.layout import Blocks
from tritpack.formats.layouts.tiling import LONGEST_TILE, Tiled, Tiling, tile_rows
from tritpack.formats.layouts.tl1 import pack_pairs, unpack_pairs

ROW_ORDER = [*range(8), *range(16, 24), *range(8, 16), *range(24, 32)]
"""The order of the 32 rows whose bytes stand together."""
SIGN_BITS = range(15, -1, -2)
"""The bits of the triples of 24 columns, for the first 16 of 32 rows; those of the other 16 are one bit below."""


class TL2(Tiled):
    """About 1.68 bits per weight: nibbles, signs, pairs, zeros up to a multiple of 32, then 32 bytes with the scale."""

    name = "tl2"
    inner = (32,)

    @classmethod
    def illegal_tiling(cls, rows: int, cols: int, tiling: Tiling) -> str | None:
        BM, BK, bm = tiling.BM, tiling.BK, tiling.bm
        if bm != 32:
            return f"bm is {bm}, expected 32"
        if rows % BM or BM % 32:
            return f"tiles of {BM} rows do not divide {rows} into blocks of 32"
        if cols < 256:
            return f"rows of {cols} weights are shorter than 256"
        if cols < BK or BK % 24 or cols % BK % 32 or cols % BK > 256:
            return f"tiles of {BK} columns do not cut {cols} into whole blocks of 24 and a rest of 32, 64, ... 256"
        return None

    @classmethod
    def rule(cls, rows: int, cols: int) -> Tiling | None:
        if rows % 32 or cols < 256:
            return None
        widths = itertools.chain([96], range(24, min(cols, LONGEST_TILE) + 1, 24))
        width = next((width for width in widths if cols % width % 32 == 0 and cols % width <= 256), None)
        return None if width is None else Tiling(tile_rows(rows), width, 32)

    def no_rule(self, cols: int) -> str:
        if cols < 256:
            return f"rows of {cols} weights are shorter than 256"
        return f"rows of {cols} weights are not made of blocks of 24 and a rest of 32, 64, ... 256"

    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        body = (cols - 256) * rows // 3 * 5 // 8 + 256 * rows // 2 * 4 // 8
        return (body + 31) // 32 * 32 + TRAILER

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        rows, cols = codes.shape
        BM, BK = (tiling := self.tiling_of(rows, cols)).BM, tiling.BK
        threes, nibble_part, sign_part, pair_part = _parts(rows, cols, BK)
        t, i, u = rows // BM, BM // 32, threes // BK
        values = codes[:, :threes].reshape(t, i, 32, u, BK // 3, 3).astype(np.int8) @ np.array([9, 3, 1], np.int8)
        nibbles = np.abs(values).astype(np.uint8).reshape(t, i, 32, u, BK // 6, 2)
        first = (nibbles[..., 0] << 4 | nibbles[..., 1])[:, :, ROW_ORDER].transpose(0, 3, 1, 4, 2)
        signs = (values < 0).reshape(t, i, 2, 16, u, BK // 24, 8)
        words = (signs[:, :, 0].astype(np.uint16) << 1 | signs[:, :, 1]) << (np.array(SIGN_BITS) - 1)
        words = words.sum(-1, dtype=np.uint16).transpose(0, 3, 1, 4, 2)
        last = (
            codes[:, threes:]
            .reshape(t, i, 32, (cols - threes) // 32, 8, 4)[:, :, ROW_ORDER]
            .transpose(0, 3, 1, 4, 2, 5)
        )
        body[nibble_part] = first.reshape(-1)
        body[sign_part] = np.ascontiguousarray(words, "<u2").reshape(-1).view(np.uint8)
        body[pair_part] = pack_pairs(last).reshape(-1)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        BM, BK = (tiling := self.tiling_of(rows, cols)).BM, tiling.BK
        threes, nibble_part, sign_part, pair_part = _parts(rows, cols, BK)
        t, i, u = rows // BM, BM // 32, threes // BK
        first = body[nibble_part].reshape(t, u, i, BK // 6, 32)[..., np.argsort(ROW_ORDER)]
        nibbles = np.stack([first >> 4, first & 15], axis=-1).transpose(0, 2, 4, 1, 3, 5).reshape(t, i, 32, u, BK // 3)
        words = np.ascontiguousarray(body[sign_part]).view("<u2").reshape(t, u, i, BK // 24, 16, 1)
        bits = np.array(SIGN_BITS)
        signs = np.stack([words >> bits & 1, words >> (bits - 1) & 1], axis=3)  # t u i 2 24s 16 8
        minus = signs.transpose(0, 2, 3, 5, 1, 4, 6).reshape(t, i, 32, u, BK // 3).astype(bool)
        values = np.where(minus, 13 - nibbles.astype(np.int8), nibbles.astype(np.int8) + 13)
        triples = np.stack([values // 9 - 1, values // 3 % 3 - 1, values % 3 - 1], axis=-1).astype(np.int8)
        triples[nibbles > 13] = 2
        out = np.empty((rows, cols), np.int8)
        out[:, :threes] = triples.reshape(rows, threes)
        last = unpack_pairs(body[pair_part]).reshape(t, (cols - threes) // 32, i, 8, 32, 4)
        last = last[:, :, :, :, np.argsort(ROW_ORDER)].transpose(0, 2, 4, 1, 3, 5)
        out[:, threes:] = last.reshape(rows, cols - threes)
        return out

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        _, nibble_part, _, pair_part = _parts(rows, cols, self.tiling_of(rows, cols).BK)
        nibbles, pairs = body[nibble_part], body[pair_part]
        return int(
            np.count_nonzero((nibbles > 0xDF) | (nibbles & 15 > 13))
            + np.count_nonzero((pairs > 0x8F) | (pairs & 15 > 8))
        )

    def bad_padding(self, data: Bytes, rows: int, cols: int) -> str | None:
        body = self.body(data, rows, cols)
        _, _, sign_part, pair_part = _parts(rows, cols, self.tiling_of(rows, cols).BK)
        if body[pair_part.stop :].any():
            return "the padding after its codes is not zero"
        packed_again = np.zeros_like(body)
        self.fill(self.codes_of(body, rows, cols), packed_again)
        if not np.array_equal(packed_again[sign_part], body[sign_part]):
            return "a sign bit is set for a triple of zeros, where no packer sets one"
        return None


def _parts(rows: int, cols: int, BK: int) -> tuple[int, slice, slice, slice]:
    """The columns in threes, and the nibbles, signs and pairs of the body."""
    threes = cols // BK * BK
    signs = rows * threes // 6
    pairs = signs + rows * threes // 24
    return threes, slice(0, signs), slice(signs, pairs), slice(pairs, pairs + rows * (cols - threes) // 4)

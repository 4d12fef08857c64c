"""Writes layouts.json: known-answer vectors packed weight by weight from the wording of formats/README.md.

Imports nothing of ours on purpose. Run: python tests/golden/generate_layouts.py
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TENSOR_SCALE = 0.037109375
F32_ONLY = 0.3333333432674408  # the f32 next to 1 / 3, which f16 does not hold

# What a layout can hold: columns and rows are a multiple of these.
COLUMNS = {
    "i2_s": 128,
    "i2_s_arm": 64,
    "i2_s_rows4": 1,
    "t2": 1,
    "t158": 1,
    "tl1": 8,
    "tl2": 8,
    "tq1_0": 256,
    "ptq1_0": 128,
    "tq2_0": 256,
    "q2_0": 64,
    "pq2_0": 128,
    "iq1_bn": 64,
    "iq2_bn": 64,
    "iq2_bn_r4": 64,
    "hf_u8": 1,
    "mlx2": 32,
}
ROWS = {"i2_s_rows4": 4, "tl1": 32, "tl2": 32, "iq2_bn_r4": 4, "hf_u8": 4}
SCALE_A_TENSOR = ("i2_s", "i2_s_arm", "i2_s_rows4", "tl1", "tl2", "hf_u8")
SCALE_A_ROW = ("iq1_bn", "iq2_bn", "iq2_bn_r4")
SCALE_A_BLOCK = ("tq1_0", "ptq1_0", "tq2_0", "q2_0", "pq2_0", "mlx2")
SCALE_IN_F16 = ("tq1_0", "ptq1_0", "tq2_0", "q2_0", "pq2_0", "iq1_bn")


@dataclass
class Matrix:
    """Codes of 0, 1 and 2, and one scale for each of scale_blocks[0] x scale_blocks[1] cells, in row order."""

    codes: list[list[int]]
    scales: list[float]
    scale_blocks: tuple[int, int]
    tiling: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.codes)

    @property
    def cols(self) -> int:
        return len(self.codes[0])

    def cell(self, r: int, c: int) -> int:
        """Which scale multiplies the weight at (r, c)."""
        row_cells, col_cells = self.scale_blocks
        return r // (self.rows // row_cells) * col_cells + c // (self.cols // col_cells)


def codes(rows: int, cols: int, seed: int) -> list[list[int]]:
    """Codes of -1, 0 and +1."""
    state = seed
    out = []
    for _ in range(rows):
        row = []
        for _ in range(cols):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            row.append((state >> 33) % 3 - 1)
        out.append(row)
    return out


def f32(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def f16(number: float) -> bytes:
    return struct.pack("<e", number)


def up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def planes(run: list[int], width: int, *, high_first: bool) -> bytes:
    """Runs of 4 x width codes take width bytes each."""
    body = bytearray(len(run) // 4)
    for i, code in enumerate(run):
        plane, place = i % (4 * width) // width, i % width
        body[i // (4 * width) * width + place] |= code << (6 - 2 * plane if high_first else 2 * plane)
    return bytes(body)


def rounded_up(q: int) -> int:
    """256 q / 243, rounded up."""
    return -(-256 * q // 243)


def trits(run: list[int]) -> int:
    """The byte of up to five codes."""
    q = 0
    for code, weight in zip(run, (81, 27, 9, 3, 1), strict=False):
        q += weight * code
    return rounded_up(q)


def stage(run: list[int], width: int) -> bytes:
    """Byte j has the codes j, width + j, 2 width + j and so on, the first as c0."""
    return bytes(trits(run[j::width]) for j in range(width))


def block_scales(matrix: Matrix, width: int) -> list[list[float]]:
    """The scale of every block of width columns: 0 over zeros alone, unless its original scale has nothing else."""
    used = set()
    for r in range(matrix.rows):
        for c in range(matrix.cols):
            if matrix.codes[r][c] != 1:
                used.add(matrix.cell(r, c))
    out = []
    for r in range(matrix.rows):
        row = []
        for c in range(0, matrix.cols, width):
            all_zero = all(code == 1 for code in matrix.codes[r][c : c + width])
            row.append(0.0 if all_zero and matrix.cell(r, c) in used else matrix.scales[matrix.cell(r, c)])
        out.append(row)
    return out


def row_scales(matrix: Matrix) -> list[float]:
    return [row[0] for row in block_scales(matrix, matrix.cols)]


def i2_s(matrix: Matrix, width: int = 32) -> bytes:
    stream = [code for row in matrix.codes for code in row]
    return planes(stream, width, high_first=True) + f32(matrix.scales[0]) + bytes(28)


def i2_s_arm(matrix: Matrix) -> bytes:
    return i2_s(matrix, 16)


def i2_s_rows4(matrix: Matrix) -> bytes:
    return i2_s(matrix, matrix.cols)


def t2(matrix: Matrix) -> bytes:
    """Header, scales padded to 32 bytes, then every row in blocks of I2_S, padded with zero weights."""
    out = b"T2" + struct.pack("<HII", 1, *matrix.scale_blocks) + bytes(20)
    out += f32(*matrix.scales)
    out += bytes(up(len(out), 32) - len(out))
    for row in matrix.codes:
        out += planes(row + [1] * (up(len(row), 128) - len(row)), 32, high_first=True)
    return out


def t158(matrix: Matrix) -> bytes:
    """Header and scales padded to 64 bytes together, then groups of 8 rows, line by line."""
    out = b"T158" + struct.pack("<II", *matrix.scale_blocks) + bytes(20)
    out += f32(*matrix.scales)
    out += bytes(up(len(out), 64) - len(out))
    for group in range(0, matrix.rows, 8):
        for start in range(0, matrix.cols, 320):
            left = min(320, matrix.cols - start)
            width = 16 * (up(left, 80) // 80)
            for row in matrix.codes[group : group + 8]:
                out += stage(row[start : start + left] + [1] * (5 * width - left), width)
    return out


def tl2_has(cols: int, col_tile: int) -> bool:
    """Whether tiles of BK columns leave a rest that tl2 can hold."""
    rest = cols % col_tile
    return cols >= 256 and col_tile <= cols and col_tile % 24 == 0 and rest % 32 == 0 and rest <= 256


def rule(layout: str, rows: int, cols: int) -> tuple[int, int, int]:
    """The tiling (BM, BK, bm) where nobody says."""
    row_tile = next(tile for tile in range(256, 0, -32) if rows % tile == 0)
    if layout == "tl2":
        return row_tile, next(tile for tile in (96, 192, *range(24, cols + 1, 24)) if tl2_has(cols, tile)), 32
    return row_tile, next(tile for tile in (128, 64, 32, 16, 8) if cols % tile == 0), 32


def two_pairs(row: list[int], c: int) -> int:
    """The byte of the columns c to c + 3."""
    return (3 * row[c] + row[c + 1]) << 4 | (3 * row[c + 2] + row[c + 3])


def triple(row: list[int], c: int) -> int:
    return 9 * row[c] + 3 * row[c + 1] + row[c + 2] - 13


def tl1(matrix: Matrix) -> bytes:
    row_tile, col_tile, block_rows = matrix.tiling.get("tl1") or rule("tl1", matrix.rows, matrix.cols)
    block_cols = 256 // block_rows
    out = bytearray()
    for tile_r in range(0, matrix.rows, row_tile):
        for tile_c in range(0, matrix.cols, col_tile):
            for block_r in range(tile_r, tile_r + row_tile, block_rows):
                for block_c in range(tile_c, tile_c + col_tile, block_cols):
                    for r in range(block_r, block_r + block_rows, 16):
                        for c in range(block_c, block_c + block_cols, 4):
                            for row in matrix.codes[r : r + 16]:
                                out.append(two_pairs(row, c))
    return bytes(out) + f32(matrix.scales[0]) + bytes(28)


def tl2(matrix: Matrix) -> bytes:
    rows, cols = matrix.rows, matrix.cols
    row_tile, col_tile, _ = matrix.tiling.get("tl2") or rule("tl2", rows, cols)
    in_triples = cols // col_tile * col_tile
    order = [*range(0, 8), *range(16, 24), *range(8, 16), *range(24, 32)]
    nibbles, signs, pairs = bytearray(), bytearray(), bytearray()
    for tile_r in range(0, rows, row_tile):
        for tile_c in range(0, in_triples, col_tile):
            for block_r in range(tile_r, tile_r + row_tile, 32):
                for c in range(tile_c, tile_c + col_tile, 6):
                    for r in order:
                        row = matrix.codes[block_r + r]
                        nibbles.append(abs(triple(row, c)) << 4 | abs(triple(row, c + 3)))
                for c in range(tile_c, tile_c + col_tile, 24):
                    for r in range(16):
                        word = 0
                        for t in range(8):
                            word |= (triple(matrix.codes[block_r + r], c + 3 * t) < 0) << (15 - 2 * t)
                            word |= (triple(matrix.codes[block_r + r + 16], c + 3 * t) < 0) << (14 - 2 * t)
                        signs += struct.pack("<H", word)
        for tile_c in range(in_triples, cols, 32):
            for block_r in range(tile_r, tile_r + row_tile, 32):
                for c in range(tile_c, tile_c + 32, 4):
                    for r in order:
                        pairs.append(two_pairs(matrix.codes[block_r + r], c))
    body = bytes(nibbles + signs + pairs)
    size = (cols - 256) * rows // 3 * 5 // 8 + 64 * rows
    return body + bytes(up(size, 32) - len(body)) + f32(matrix.scales[0]) + bytes(28)


def in_stages(matrix: Matrix, columns: int, stages: tuple[tuple[int, int], ...]) -> bytes:
    """tq1_0 and ptq1_0: stages of (bytes, trits a byte), then the scale."""
    scales = block_scales(matrix, columns)
    out = b""
    for r, row in enumerate(matrix.codes):
        for block in range(matrix.cols // columns):
            c = columns * block
            for width, count in stages:
                out += stage(row[c : c + width * count], width)
                c += width * count
            out += f16(scales[r][block])
    return out


def tq1_0(matrix: Matrix) -> bytes:
    return in_stages(matrix, 256, ((32, 5), (16, 5), (4, 4)))


def ptq1_0(matrix: Matrix) -> bytes:
    return in_stages(matrix, 128, ((16, 5), (8, 5), (2, 4)))


def in_planes(matrix: Matrix, columns: int, width: int, *, scale_first: bool) -> bytes:
    """tq2_0, q2_0 and pq2_0: planes, low first, with a scale a block."""
    scales = block_scales(matrix, columns)
    out = b""
    for r, row in enumerate(matrix.codes):
        for block in range(matrix.cols // columns):
            body = planes(row[columns * block : columns * (block + 1)], width, high_first=False)
            scale = f16(scales[r][block])
            out += scale + body if scale_first else body + scale
    return out


def tq2_0(matrix: Matrix) -> bytes:
    return in_planes(matrix, 256, 32, scale_first=False)


def q2_0(matrix: Matrix) -> bytes:
    return in_planes(matrix, 64, 1, scale_first=True)


def pq2_0(matrix: Matrix) -> bytes:
    return in_planes(matrix, 128, 1, scale_first=True)


def iq1_bn(matrix: Matrix) -> bytes:
    out = bytearray()
    for row, scale in zip(matrix.codes, row_scales(matrix), strict=True):
        out += f16(scale)
        for start in range(0, matrix.cols, 64):
            part = row[start : start + 64]
            for g in range(4):
                for t in range(3):
                    five = part[16 * g + 5 * t : 16 * g + 5 * t + 5]
                    out.append(trits(five[::-1]))
            out.append(rounded_up(part[15] + 3 * part[31] + 9 * part[47] + 27 * part[63]))
    return bytes(out)


def iq2_bn(matrix: Matrix) -> bytes:
    out = b""
    for row, scale in zip(matrix.codes, row_scales(matrix), strict=True):
        out += f32(scale) + planes(row, 16, high_first=False)
    return out


def iq2_bn_r4(matrix: Matrix) -> bytes:
    scales = row_scales(matrix)
    out = bytearray()
    for r in range(0, matrix.rows, 4):
        out += f32(*scales[r : r + 4])
        for c in range(0, matrix.cols, 16):
            for k in range(4):
                row = matrix.codes[r + k]
                for i in range(c, c + 4):
                    out.append(row[i] | row[i + 4] << 2 | row[i + 8] << 4 | row[i + 12] << 6)
    return bytes(out)


def hf_u8(matrix: Matrix) -> bytes:
    rows, cols = matrix.rows, matrix.cols
    body = bytearray(rows // 4 * cols)
    for r, row in enumerate(matrix.codes):
        for c, code in enumerate(row):
            quarter, packed_row = divmod(r, rows // 4)
            body[packed_row * cols + c] |= code << (2 * quarter)
    return bytes(body)


def mlx2(matrix: Matrix) -> bytes:
    out = b""
    for row in matrix.codes:
        for c in range(0, matrix.cols, 16):
            word = 0
            for i in range(16):
                word |= row[c + i] << (2 * i)
            out += struct.pack("<I", word)
    return out


PACKERS: dict[str, Callable[[Matrix], bytes]] = {
    "i2_s": i2_s,
    "i2_s_arm": i2_s_arm,
    "i2_s_rows4": i2_s_rows4,
    "t2": t2,
    "t158": t158,
    "tl1": tl1,
    "tl2": tl2,
    "tq1_0": tq1_0,
    "ptq1_0": ptq1_0,
    "tq2_0": tq2_0,
    "q2_0": q2_0,
    "pq2_0": pq2_0,
    "iq1_bn": iq1_bn,
    "iq2_bn": iq2_bn,
    "iq2_bn_r4": iq2_bn_r4,
    "hf_u8": hf_u8,
    "mlx2": mlx2,
}


def in_f16(number: float) -> bool:
    return float(struct.unpack("<e", f16(number))[0]) == number


def holds(layout: str, matrix: Matrix) -> bool:
    """Whether the shape, the tiling and the scales are ones that the layout has."""
    rows, cols = matrix.rows, matrix.cols
    row_cells, col_cells = matrix.scale_blocks
    if cols % COLUMNS[layout] or rows % ROWS.get(layout, 1):
        return False
    if layout in SCALE_A_TENSOR and row_cells * col_cells > 1:
        return False
    if layout in SCALE_A_ROW and col_cells > 1:
        return False
    if layout in SCALE_A_BLOCK and cols // col_cells % COLUMNS[layout]:
        return False
    if layout in SCALE_IN_F16 and not all(in_f16(scale) for scale in matrix.scales):
        return False
    if layout == "tl2":
        tiles = [matrix.tiling["tl2"][1]] if "tl2" in matrix.tiling else range(24, cols + 1, 24)
        return any(tl2_has(cols, tile) for tile in tiles)
    return True


@dataclass
class Case:
    """A matrix to pack. The rectangles (first row, end row, first column, end column) of zero hold zeros."""

    rows: int
    cols: int
    scale_blocks: tuple[int, int] = (1, 1)
    scales: list[float] | None = None
    zero: tuple[tuple[int, int, int, int], ...] = ()
    tiling: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    only: tuple[str, ...] = tuple(PACKERS)

    def made(self, seed: int) -> Matrix:
        shifted = [[code + 1 for code in row] for row in codes(self.rows, self.cols, seed)]
        for first_row, end_row, first_col, end_col in self.zero:
            for r in range(first_row, end_row):
                for c in range(first_col, end_col):
                    shifted[r][c] = 1
        count = self.scale_blocks[0] * self.scale_blocks[1]
        scales = self.scales or ([TENSOR_SCALE] if count == 1 else [(i + 1) / 64 for i in range(count)])
        return Matrix(shifted, scales, self.scale_blocks, self.tiling)


CASES = [
    # Small shapes; the seed of a case is its number, from 1.
    Case(1, 128),
    Case(4, 256),
    Case(8, 384),
    Case(3, 100, scales=[1 / 64]),
    Case(4, 130, (2, 1)),
    Case(6, 192, (6, 2)),
    Case(2, 328, (1, 41)),
    # t158: rests of a row that take 16, 32, 48 and 64 bytes, groups of rows that are not full.
    Case(9, 320, (9, 1), only=("t158",)),
    Case(17, 352, (17, 11), only=("t158", "mlx2")),
    Case(8, 420, (1, 3), only=("t158",)),
    Case(10, 512, (2, 1), only=("t158", "q2_0")),
    Case(3, 600, (3, 8), only=("t158",)),
    Case(16, 640, only=("t158", "t2")),
    Case(5, 1, (5, 1)),
    Case(12, 81),
    # Zero blocks under a scale a tensor, a shard, a row and a group; zero rows and groups whose scale must stay.
    Case(4, 512, zero=((1, 2, 0, 256), (2, 3, 0, 512), (3, 4, 64, 192))),
    Case(3, 512, (3, 1), zero=((0, 1, 256, 512), (1, 2, 0, 512), (2, 3, 448, 512))),
    Case(2, 768, (2, 3), zero=((0, 1, 256, 512), (1, 2, 0, 128), (1, 2, 576, 640))),
    Case(8, 128, (2, 1), zero=((1, 2, 0, 128), (4, 8, 0, 128))),
    Case(4, 256, (4, 4), zero=((0, 1, 0, 64), (3, 4, 0, 256))),
    Case(4, 256, (1, 2), zero=((0, 4, 128, 256), (0, 1, 0, 64))),
    Case(4, 256, zero=((0, 4, 0, 256),)),
    # Scales at the ends of f16, a scale of 0, a scale that only f32 holds.
    Case(4, 256, (4, 1), [2.0**-24, 65504.0, 0.0, 2.0**-14], zero=((2, 3, 0, 256),)),
    Case(4, 128, (1, 1), [0.0], zero=((0, 4, 0, 128),)),
    Case(4, 128, (1, 1), [F32_ONLY]),
    # tl1: by rule, then with tilings of its own.
    Case(32, 8, only=("tl1", "hf_u8")),
    Case(288, 16, only=("tl1",)),
    Case(64, 192, only=("tl1", "iq2_bn_r4")),
    Case(64, 48, tiling={"tl1": (64, 12, 64)}, only=("tl1",)),
    Case(128, 64, tiling={"tl1": (64, 32, 64)}, only=("tl1",)),
    Case(96, 40, tiling={"tl1": (32, 40, 32)}, only=("tl1",)),
    # tl2: rests of 64, 0, 32, 96 and 256 columns.
    Case(32, 256, only=("tl1", "tl2")),
    Case(64, 288, only=("tl2",)),
    Case(32, 512, only=("tl2",)),
    Case(96, 352, tiling={"tl2": (32, 96, 32)}, only=("tl2",)),
    Case(32, 288, tiling={"tl1": (32, 72, 32), "tl2": (32, 24, 32)}, only=("tl1", "tl2")),
    Case(64, 480, tiling={"tl2": (64, 192, 32)}, only=("tl2",)),
    Case(32, 544, tiling={"tl2": (32, 288, 32)}, only=("tl2",)),
    # tl2 where C is no multiple of 32: by rule BK is 24, 48 and 312. Then one tile that is all of C.
    Case(32, 264, only=("tl2",)),
    Case(64, 272, only=("tl2",)),
    Case(32, 440, only=("tl2",)),
    Case(32, 264, tiling={"tl2": (32, 264, 32)}, only=("tl2",)),
    # i2_s's other orders.
    Case(5, 64, only=("i2_s_arm",)),
    Case(8, 12, only=("i2_s_rows4",)),
]


def vectors() -> list[dict[str, object]]:
    out = []
    for seed, case in enumerate(CASES, 1):
        matrix = case.made(seed)
        vector: dict[str, object] = {
            "rows": matrix.rows,
            "cols": matrix.cols,
            "seed": seed,
            "scales": matrix.scales,
            "scale_blocks": matrix.scale_blocks,
            "codes": ["".join("-0+"[code] for code in row) for row in matrix.codes],
        }
        if matrix.tiling:
            vector["tiling"] = matrix.tiling
        for layout in case.only:
            if holds(layout, matrix):
                vector[layout] = PACKERS[layout](matrix).hex()
        out.append(vector)
    return out


if __name__ == "__main__":
    lines = [json.dumps(vector, separators=(",", ":")) for vector in vectors()]
    (Path(__file__).parent / "layouts.json").write_text("[" + ",\n".join(lines) + "]\n")

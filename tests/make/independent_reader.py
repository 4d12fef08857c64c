"""A second reader of the tensor layouts, written from formats/README.md alone; it imports nothing of ours.

Where the packers of golden/generate_layouts.py walk through the bytes in their order, this computes for every weight
where it stands. Slow and plain on purpose.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

Codes = list[list[int]]  # R rows of C codes: -1, 0 or +1
Scales = list[list[float]]  # R rows of as many scales as the layout has columns of scales
Tiling = tuple[int, int, int]  # BM, BK, bm

Code = Callable[[int, int], int]  # the stored code (0, 1, 2; 3 if the bytes say so) at (r, c)


def read(layout: str, data: bytes, rows: int, cols: int, tiling: Tiling | None = None) -> tuple[Codes, Scales]:
    """The codes, and the scales in R rows; scale_at finds a weight's own. hf_u8 and mlx2 have a scale of 1.

    Raises ValueError for what the README tells a reader to refuse. tl1 and tl2 need their tiling: it is not guessed.
    """
    if rows < 1 or cols < 1:
        raise ValueError(f"no matrix has {rows} rows and {cols} columns")
    if layout in TILED_READERS:
        if tiling is None:
            raise ValueError(f"the tiling of a {layout} tensor is missing")
        stored, scales = TILED_READERS[layout](data, rows, cols, tiling)
    elif layout in PLAIN_READERS:
        stored, scales = PLAIN_READERS[layout](data, rows, cols)
    else:
        raise ValueError(f"no layout {layout}")
    for row in scales:
        for scale in row:
            if not math.isfinite(scale) or scale < 0:
                raise ValueError(f"a scale of {scale}")
    codes = []
    for r in range(rows):
        row_codes = []
        for c in range(cols):
            code = stored(r, c)
            if code not in (0, 1, 2):
                raise ValueError(f"a code of {code} at row {r}, column {c}")
            row_codes.append(code - 1 if scale_at(scales, cols, r, c) else 0)
        codes.append(row_codes)
    return codes, scales


def scale_at(scales: Scales, cols: int, r: int, c: int) -> float:
    """What multiplies the weight at (r, c)."""
    return scales[r][c * len(scales[r]) // cols]


def rule_tiling(layout: str, rows: int, cols: int) -> Tiling:
    """The tiling that a writer takes where nobody says; no reader may assume it."""
    row_tile = max((tile for tile in range(32, 257, 32) if rows % tile == 0), default=32)
    if layout == "tl2":
        for col_tile in (96, 192, *range(24, cols + 1, 24)):
            if tl2_has(cols, col_tile):
                return row_tile, col_tile, 32
        raise ValueError(f"tl2 cannot hold {cols} columns")
    return row_tile, max((tile for tile in (8, 16, 32, 64, 128) if cols % tile == 0), default=8), 32


# Parts that layouts share


def need_shape(layout: str, rows: int, cols: int, *, row_multiple: int = 1, col_multiple: int = 1) -> None:
    if rows % row_multiple or cols % col_multiple:
        raise ValueError(f"{layout} cannot hold {rows} x {cols}")


def need_size(layout: str, data: bytes, size: int) -> None:
    if len(data) != size:
        raise ValueError(f"{layout}: {len(data)} bytes, not {size}")


def f32(data: bytes, offset: int) -> float:
    return float(struct.unpack_from("<f", data, offset)[0])


def f16(data: bytes, offset: int) -> float:
    return float(struct.unpack_from("<e", data, offset)[0])


def rounded_up(number: int, multiple: int) -> int:
    return (number + multiple - 1) // multiple * multiple


def plane(data: bytes, start: int, index: int, width: int, *, high_first: bool) -> int:
    """The code of weight number `index` of what begins at byte `start` in planes of this width."""
    run, in_run = divmod(index, 4 * width)
    which, place = divmod(in_run, width)
    shift = 6 - 2 * which if high_first else 2 * which
    return data[start + run * width + place] >> shift & 3


def digits(byte: int, count: int) -> tuple[int, ...]:
    """The first `count` of the five trits of a byte; the others must be the zeros that a writer leaves there."""
    out = []
    low = byte
    for _ in range(5):
        low *= 3
        out.append(low >> 8)
        low &= 255
    q = 81 * out[0] + 27 * out[1] + 9 * out[2] + 3 * out[3] + out[4]
    if math.ceil(256 * q / 243) != byte or any(out[count:]):
        raise ValueError(f"a byte of {byte} is not {count} trits")
    return tuple(out[:count])


def one_scale(scale: float, rows: int) -> Scales:
    return [[scale] for _ in range(rows)]


def header(
    layout: str, magic: bytes, together: int, data: bytes, rows: int, cols: int
) -> tuple[Callable[[int, int], float], int, int]:
    """The header and scales of t2 and t158: the scale of (r, c), the columns of scales, where the codes begin."""
    if len(data) < 32 or data[:4] != magic:
        raise ValueError(f"{layout}: no header")
    row_cells, col_cells = struct.unpack_from("<II", data, 4)
    if any(data[12:32]):
        raise ValueError(f"{layout}: the header's reserved bytes are not zero")
    if row_cells == 0 or rows % row_cells or col_cells == 0 or cols % col_cells:
        raise ValueError(f"{layout}: {row_cells} x {col_cells} scales do not divide {rows} x {cols}")
    start = rounded_up(32 + 4 * row_cells * col_cells, together)
    if len(data) < start:
        raise ValueError(f"{layout}: the scales do not end")
    if any(data[32 + 4 * row_cells * col_cells : start]):
        raise ValueError(f"{layout}: the bytes behind the scales are not zero")

    def scale(r: int, c: int) -> float:
        cell = r // (rows // row_cells) * col_cells + c // (cols // col_cells)
        return f32(data, 32 + 4 * cell)

    return scale, col_cells, start


def header_scales(scale: Callable[[int, int], float], col_cells: int, rows: int, cols: int) -> Scales:
    return [[scale(r, cell * (cols // col_cells)) for cell in range(col_cells)] for r in range(rows)]


# The layouts


def i2_s_planes(layout: str, width: int, data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    """i2_s and the two other orders that bitnet.cpp has written under its id and size."""
    need_size(layout, data, rows * cols // 4 + 32)

    def code(r: int, c: int) -> int:
        return plane(data, 0, r * cols + c, width, high_first=True)

    return code, one_scale(f32(data, rows * cols // 4), rows)


def i2_s(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    need_shape("i2_s", rows, cols, col_multiple=128)
    return i2_s_planes("i2_s", 32, data, rows, cols)


def i2_s_arm(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    need_shape("i2_s_arm", rows, cols, col_multiple=64)
    return i2_s_planes("i2_s_arm", 16, data, rows, cols)


def i2_s_rows4(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    need_shape("i2_s_rows4", rows, cols, row_multiple=4)
    return i2_s_planes("i2_s_rows4", cols, data, rows, cols)


def t2(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    scale, col_cells, start = header("t2", b"\x54\x32\x01\x00", 32, data, rows, cols)
    padded = rounded_up(cols, 128)
    need_size("t2", data, start + rows * padded // 4)

    def code(r: int, c: int) -> int:
        return plane(data, start, r * padded + c, 32, high_first=True)

    for r in range(rows):
        for c in range(cols, padded):
            if code(r, c) != 1:
                raise ValueError(f"t2: a code of {code(r, c)} behind the end of row {r}")
    return code, header_scales(scale, col_cells, rows, cols)


def t158(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    scale, col_cells, start = header("t158", b"\x54\x31\x35\x38", 64, data, rows, cols)
    widths = [64] * (cols // 320)
    if cols % 320:
        widths.append(16 * math.ceil(cols % 320 / 80))
    need_size("t158", data, start + rows * sum(widths))

    def code(r: int, c: int) -> int:
        """Also of the columns behind the end, up to where the last line is full."""
        group = r // 8 * 8
        together = min(8, rows - group)
        line = min(c // 320, len(widths) - 1)
        width = widths[line]
        trit, byte = divmod(c - 320 * line, width)
        before = group * sum(widths) + together * sum(widths[:line])
        return digits(data[start + before + (r - group) * width + byte], 5)[trit]

    for r in range(rows):
        for c in range(cols, 320 * (len(widths) - 1) + 5 * widths[-1]):
            if code(r, c) != 1:
                raise ValueError(f"t158: a code of {code(r, c)} behind the end of row {r}")
    return code, header_scales(scale, col_cells, rows, cols)


def pair(nibble: int, second: int) -> int:
    if nibble > 8:
        raise ValueError(f"a pair of {nibble}")
    return nibble % 3 if second else nibble // 3


def tl1(data: bytes, rows: int, cols: int, tiling: Tiling) -> tuple[Code, Scales]:
    need_shape("tl1", rows, cols, row_multiple=32, col_multiple=8)
    row_tile, col_tile, block_rows = tiling
    if block_rows not in (32, 64) or row_tile < 1 or col_tile < 1:
        raise ValueError(f"tl1: no tiling of {tiling}")
    block_cols = 256 // block_rows
    if rows % row_tile or cols % col_tile or row_tile % block_rows or col_tile % block_cols:
        raise ValueError(f"tl1: a tiling of {tiling} does not fit {rows} x {cols}")
    need_size("tl1", data, rows * cols // 4 + 32)

    def code(r: int, c: int) -> int:
        byte = (r // row_tile * (cols // col_tile) + c // col_tile) * (row_tile * col_tile // 4)
        byte += r % row_tile // block_rows * (block_rows * col_tile // 4)
        byte += c % col_tile // block_cols * (block_rows * block_cols // 4)
        byte += r % block_rows // 16 * (16 * block_cols // 4)
        byte += c % block_cols // 4 * 16
        byte += r % 16
        return pair(data[byte] >> (0 if c & 2 else 4) & 15, c & 1)

    return code, one_scale(f32(data, rows * cols // 4), rows)


def tl2_has(cols: int, col_tile: int) -> bool:
    """Whether so many columns can be cut into tiles of BK and a rest of whole tiles of 32."""
    if cols < 256 or not 1 <= col_tile <= cols or col_tile % 24:
        return False
    return cols % col_tile % 32 == 0 and cols % col_tile <= 256


def tl2(data: bytes, rows: int, cols: int, tiling: Tiling) -> tuple[Code, Scales]:
    need_shape("tl2", rows, cols, row_multiple=32)
    row_tile, col_tile, block_rows = tiling
    if block_rows != 32 or row_tile < 1 or rows % row_tile or row_tile % 32 or not tl2_has(cols, col_tile):
        raise ValueError(f"tl2: a tiling of {tiling} does not fit {rows} x {cols}")
    triple_cols = cols // col_tile * col_tile
    pair_cols = cols - triple_cols
    signs_at = rows * triple_cols // 6
    pairs_at = signs_at + rows * triple_cols // 24
    pairs_end = pairs_at + rows * pair_cols // 4
    end = rounded_up((cols - 256) * rows // 3 * 5 // 8 + 64 * rows, 32)
    need_size("tl2", data, end + 32)
    if any(data[pairs_end:end]):
        raise ValueError("tl2: the bytes behind the pairs are not zero")

    def place(r: int) -> int:
        """Where a row stands among its 32: the order is 0-7, 16-23, 8-15, 24-31."""
        eight = (0, 2, 1, 3)[r % 32 // 8]
        return 8 * eight + r % 8

    def block(r: int, c: int, width: int, tile: int, columns: int) -> int:
        """The number of the block of 32 rows x `columns` columns, in a part of `width` columns in tiles of `tile`."""
        tiles = r // row_tile * (width // tile) + c // tile
        rows_of_blocks = tiles * (row_tile // 32) + r % row_tile // 32
        return rows_of_blocks * (tile // columns) + c % tile // columns

    def code(r: int, c: int) -> int:
        if c >= triple_cols:
            byte = pairs_at + 32 * block(r, c - triple_cols, pair_cols, 32, 4) + place(r)
            in_quad = (c - triple_cols) % 4
            return pair(data[byte] >> (0 if in_quad & 2 else 4) & 15, in_quad & 1)
        byte = 32 * block(r, c, triple_cols, col_tile, 6) + place(r)
        size = data[byte] >> (4 if c % 6 < 3 else 0) & 15
        if size > 13:
            raise ValueError(f"tl2: a triple of {size}")
        words = signs_at + 32 * block(r, c, triple_cols, col_tile, 24)
        word = struct.unpack_from("<H", data, words + 2 * (r % 16))[0]
        bit = (15 if r % 32 < 16 else 14) - 2 * (c % 24 // 3)
        negative = word >> bit & 1
        if negative and size == 0:
            raise ValueError("tl2: a sign over a triple of 0")
        value = 13 - size if negative else 13 + size
        return value // (9, 3, 1)[c % 3] % 3

    return code, one_scale(f32(data, end), rows)


def in_stages(
    layout: str, columns: int, stages: tuple[tuple[int, int], ...], data: bytes, rows: int, cols: int
) -> tuple[Code, Scales]:
    need_shape(layout, rows, cols, col_multiple=columns)
    scale_at_byte = sum(width for width, _ in stages)
    size = scale_at_byte + 2
    need_size(layout, data, rows * (cols // columns) * size)

    def code(r: int, c: int) -> int:
        start = (r * (cols // columns) + c // columns) * size
        c %= columns
        for width, count in stages:
            if c < width * count:
                return digits(data[start + c % width], count)[c // width]
            start += width
            c -= width * count
        raise AssertionError("the stages do not fill the block")

    blocks = cols // columns
    return code, [[f16(data, (r * blocks + b) * size + scale_at_byte) for b in range(blocks)] for r in range(rows)]


def tq1_0(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    return in_stages("tq1_0", 256, ((32, 5), (16, 5), (4, 4)), data, rows, cols)


def ptq1_0(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    return in_stages("ptq1_0", 128, ((16, 5), (8, 5), (2, 4)), data, rows, cols)


def in_planes(
    layout: str, columns: int, width: int, scale_first: bool, data: bytes, rows: int, cols: int
) -> tuple[Code, Scales]:
    need_shape(layout, rows, cols, col_multiple=columns)
    blocks = cols // columns
    size = columns // 4 + 2
    need_size(layout, data, rows * blocks * size)

    def code(r: int, c: int) -> int:
        start = (r * blocks + c // columns) * size + (2 if scale_first else 0)
        return plane(data, start, c % columns, width, high_first=False)

    def scale(r: int, block: int) -> float:
        return f16(data, (r * blocks + block) * size + (0 if scale_first else columns // 4))

    return code, [[scale(r, block) for block in range(blocks)] for r in range(rows)]


def tq2_0(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    return in_planes("tq2_0", 256, 32, False, data, rows, cols)


def q2_0(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    return in_planes("q2_0", 64, 1, True, data, rows, cols)


def pq2_0(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    return in_planes("pq2_0", 128, 1, True, data, rows, cols)


def iq1_bn(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    need_shape("iq1_bn", rows, cols, col_multiple=64)
    size = 2 + 13 * cols // 64
    need_size("iq1_bn", data, rows * size)

    def code(r: int, c: int) -> int:
        start = r * size + 2 + 13 * (c // 64)
        g, in_group = divmod(c % 64, 16)
        if in_group == 15:
            leading, *others = digits(data[start + 12], 5)
            if leading:
                raise ValueError("iq1_bn: a fifth trit in the thirteenth byte")
            return others[3 - g]  # c63, c47, c31, c15
        t, place = divmod(in_group, 5)
        return digits(data[start + 3 * g + t], 5)[4 - place]

    return code, [[f16(data, r * size)] for r in range(rows)]


def iq2_bn(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    need_shape("iq2_bn", rows, cols, col_multiple=64)
    size = 4 + cols // 4
    need_size("iq2_bn", data, rows * size)

    def code(r: int, c: int) -> int:
        return plane(data, r * size + 4, c, 16, high_first=False)

    return code, [[f32(data, r * size)] for r in range(rows)]


def iq2_bn_r4(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    need_shape("iq2_bn_r4", rows, cols, row_multiple=4, col_multiple=64)
    size = 16 + cols
    need_size("iq2_bn_r4", data, rows // 4 * size)

    def code(r: int, c: int) -> int:
        in_line = c % 16
        byte = 16 * (c // 16) + 4 * (r % 4) + in_line % 4
        return data[r // 4 * size + 16 + byte] >> 2 * (in_line // 4) & 3

    return code, [[f32(data, r // 4 * size + 4 * (r % 4))] for r in range(rows)]


def hf_u8(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    need_shape("hf_u8", rows, cols, row_multiple=4)
    need_size("hf_u8", data, rows // 4 * cols)

    def code(r: int, c: int) -> int:
        return data[r % (rows // 4) * cols + c] >> 2 * (r // (rows // 4)) & 3

    return code, one_scale(1.0, rows)


def mlx2(data: bytes, rows: int, cols: int) -> tuple[Code, Scales]:
    need_shape("mlx2", rows, cols, col_multiple=32)
    need_size("mlx2", data, rows * cols // 4)

    def code(r: int, c: int) -> int:
        word = struct.unpack_from("<I", data, 4 * ((r * cols + c) // 16))[0]
        return int(word) >> 2 * (c % 16) & 3

    return code, one_scale(1.0, rows)


TILED_READERS: dict[str, Callable[[bytes, int, int, Tiling], tuple[Code, Scales]]] = {"tl1": tl1, "tl2": tl2}
PLAIN_READERS: dict[str, Callable[[bytes, int, int], tuple[Code, Scales]]] = {
    "i2_s": i2_s,
    "i2_s_arm": i2_s_arm,
    "i2_s_rows4": i2_s_rows4,
    "t2": t2,
    "t158": t158,
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

"""T158, tritpack's own: five trits per byte, 1.6 bits per weight, for rows of any length and scales of any granularity.

It is made for the telescoping dot product: bytes are base-3 fractions, a line is 64 bytes of one row (320 columns), and
the lines of 8 rows follow one another. So a thread reads one sequential stream and uses the activations of a line for 8
rows. The last line of a row is cut to a multiple of 16 bytes (80 columns), so that rows of 6912 columns waste 0.7 %.
"""

from __future__ import annotations

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.layouts.bases import GridScales
from tritpack.formats.layouts.trits import count_noncanonical, pack_trits, unpack_trits

ROWS = 8
LINE = 64
UNIT = 16
DIGITS = 5


class T158(GridScales):
    """Header and scales padded to 64 bytes, then rows * row_nbytes(cols) of codes."""

    name = "t158"
    row_unit = ROWS
    magic = b"T158"
    unit = 64

    def row_nbytes(self, cols: int) -> int:
        # Not the sum of lines(): a header can name a row whose list of lines fills the memory.
        whole, rest = divmod(cols, DIGITS * LINE)
        return LINE * whole + _cut_line(rest)

    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        for rows, start, width, first in _runs(*codes.shape):
            line = np.zeros((len(range(*rows)), DIGITS * width), np.int8)
            part = codes[slice(*rows), first : first + DIGITS * width]
            line[:, : part.shape[1]] = part
            body[start : start + len(line) * width] = pack_trits(line.reshape(-1, DIGITS, width)).reshape(-1)

    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        out = np.empty((rows, cols), np.int8)
        for group, start, width, first in _runs(rows, cols):
            count = len(range(*group))
            line = unpack_trits(body[start : start + count * width].reshape(count, width), DIGITS)
            part = out[slice(*group), first : first + DIGITS * width]
            part[:] = line.reshape(count, -1)[:, : part.shape[1]]
        return out

    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        return count_noncanonical(body, DIGITS)

    def bad_padding(self, data: Bytes, rows: int, cols: int) -> str | None:
        width, size = lines(cols)[-1], self.row_nbytes(cols)
        used = cols - (len(lines(cols)) - 1) * DIGITS * LINE  # columns of the last line
        whole = rows // ROWS * ROWS
        for body in np.split(self.body(data, rows, cols), [whole * size]) if used < DIGITS * width else ():
            if not body.size:
                continue
            group = ROWS if body.size == whole * size else rows - whole
            last = body.reshape(-1, group * size)[:, -group * width :].reshape(-1, width)
            if unpack_trits(last, DIGITS).reshape(len(last), -1)[:, used:].any():
                return f"the padding after its rows of {cols} weights is not zero"
        return super().bad_padding(data, rows, cols)


def lines(cols: int) -> list[int]:
    """Bytes of each line of a row."""
    whole, rest = divmod(cols, DIGITS * LINE)
    return [LINE] * whole + ([_cut_line(rest)] if rest else [])


def _cut_line(cols: int) -> int:
    """Bytes of a last line of so many columns."""
    return UNIT * -(-cols // (DIGITS * UNIT))


def _runs(rows: int, cols: int) -> list[tuple[tuple[int, int], int, int, int]]:
    """The runs of lines in stored order: ((first row, end), offset of their bytes, bytes per row, first column)."""
    runs, start = [], 0
    for first in range(0, rows, ROWS):
        end = min(first + ROWS, rows)
        for index, width in enumerate(lines(cols)):
            runs.append(((first, end), start, width, index * DIGITS * LINE))
            start += (end - first) * width
    return runs

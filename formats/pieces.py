"""A stored tensor piece by piece: all its bytes in order, and the codes that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.layouts.layout import Layout

PIECE = 1 << 17
"""Bytes that are decoded at a time: they and their codes stay in the cache."""
Piece = tuple[Bytes, "Codes | None"]
"""Bytes of a tensor, and the codes of some whole rows, int8 (rows, cols), that end with these bytes."""


def pieces_of(file: GgufFile, tensor: TensorInfo) -> Iterator[Piece]:
    """Yield all bytes of a tensor of a file in order, each piece with the codes that it holds, which are those of
    `GgufFile.ternary`; None for floats. Raises Unreadable, naming the tensor, on whatever its layout refuses."""
    if problems := file.check(tensor):
        raise Unreadable(problems[0], path=file.path_of(tensor), tensor=tensor.name)
    data, layout = file.bytes_of(tensor), file.layout_of(tensor)
    if layout is not None and not file.scales(tensor).all():  # codes under a scale of zero count as zero
        ternary = file.ternary(tensor)
        yield data, None if ternary is None else np.ascontiguousarray(ternary.codes)
    else:
        yield from pieces(lambda at, count: data[at : at + count], data.size, layout, (tensor.rows, tensor.cols))


def pieces(
    read: Callable[[int, int], Bytes], nbytes: int, layout: Layout | None, shape: tuple[int, int]
) -> Iterator[Piece]:
    """Yield all bytes of a tensor of `nbytes` bytes in order, each piece with the codes that it holds.

    read: is called with an offset in the tensor and a number of bytes, and returns these. layout: None for floats.
    shape: (rows, cols). Where the layout has no row_unit, the whole tensor is one piece.
    """
    rows, cols = shape
    if layout is not None and not layout.row_unit:
        data = read(0, nbytes)
        yield data, layout.codes_of(layout.body(data, rows, cols), rows, cols)
        return
    start, size = (nbytes, 0) if layout is None else layout.body_place(nbytes, rows, cols)
    for at in range(0, start, PIECE):
        yield read(at, min(PIECE, start - at)), None
    if layout is not None:
        row_nbytes = size // rows
        step = max(1, PIECE // (row_nbytes * layout.row_unit)) * layout.row_unit
        for row in range(0, rows, step):
            count = min(step, rows - row)
            data = read(start + row * row_nbytes, count * row_nbytes)
            yield data, layout.codes_of(data, count, cols)
        if size < nbytes - start:
            yield read(start + size, nbytes - start - size), None

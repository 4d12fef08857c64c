"""T2, a layout of ours: 2-bit codes in I2_S's blocks for rows of any length, and scales of any granularity.

What I2_S cannot hold, this can: rows are padded to whole blocks with zero weights, and the scales (one a tensor, a row,
a shard or a group) stand in front of the codes behind a header that says how they tile the matrix. The contract is in
formats/README.md.
"""

from __future__ import annotations

import struct

import numpy as np

from formats.errors import Unreadable, Unsupported
from formats.layouts.two_bit import BLOCK, illegal_code, pack_blocks, unpack_blocks
from formats.ternary import Bytes, Scales, TernaryTensor

NAME = "t2"
MAGIC = b"T2\x01\x00"
HEADER = 32
UNIT = 32
"""Header, scales and codes are each a whole number of these bytes."""


def fits(rows: int, cols: int, scale_blocks: tuple[int, int] = (1, 1)) -> str | None:
    """Why a matrix of this shape and granularity cannot be held losslessly: None, it always can."""
    return None


def padded(cols: int) -> int:
    """Columns of a stored row: the next multiple of 128."""
    return -(-cols // BLOCK) * BLOCK


def nbytes(rows: int, cols: int, scale_blocks: tuple[int, int] = (1, 1)) -> int:
    """Bytes of the stored tensor: 32 of header, the scales padded to 32, rows * padded(cols) / 4 of codes."""
    return _codes_offset(scale_blocks) + rows * padded(cols) // 4


def nbytes_by_header(rows: int, cols: int, head: Bytes) -> int | None:
    """Bytes of the stored tensor that begins with `head`; None if that is no T2 header for this shape."""
    blocks = _scale_blocks(rows, cols, head)
    return None if blocks is None else nbytes(rows, cols, blocks)


def pack(tensor: TernaryTensor) -> Bytes:
    """uint8 (nbytes,). Raises Unsupported if the scales are not finite or negative."""
    rows, cols = tensor.shape
    if reason := _bad_scale(tensor.scales):
        raise Unsupported(f"t2 cannot hold this {rows} x {cols} tensor: {reason}")
    out = np.zeros(nbytes(rows, cols, tensor.scale_blocks), np.uint8)
    out[:12] = np.frombuffer(MAGIC + struct.pack("<II", *tensor.scale_blocks), np.uint8)
    out[HEADER:][: 4 * tensor.scales.size] = np.ascontiguousarray(tensor.scales, "<f4").reshape(-1).view(np.uint8)
    codes = np.zeros((rows, padded(cols)), np.int8)
    codes[:, :cols] = tensor.codes
    out[_codes_offset(tensor.scale_blocks) :] = pack_blocks(codes)
    return out


def unpack(data: Bytes, rows: int, cols: int) -> TernaryTensor:
    """Codes and scales of a stored tensor. Raises Unreadable on whatever `check` finds."""
    if problems := check(data, rows, cols):
        raise Unreadable("t2: " + problems[0])
    blocks = _scale_blocks(rows, cols, data) or (1, 1)
    codes = unpack_blocks(data[_codes_offset(blocks) :]).reshape(rows, padded(cols))
    return TernaryTensor(np.ascontiguousarray(codes[:, :cols]), _scales(data, blocks))


def check(data: Bytes, rows: int, cols: int) -> list[str]:
    """What makes these bytes no T2 tensor; empty if nothing."""
    blocks = _scale_blocks(rows, cols, data)
    if blocks is None:
        return [f"it does not begin with the header of a {rows} x {cols} tensor"]
    if data.size != nbytes(rows, cols, blocks):
        return [f"expected {nbytes(rows, cols, blocks)} bytes for {rows} x {cols}, found {data.size}"]
    problems = []
    body = data[_codes_offset(blocks) :]
    if illegal := illegal_code(body, padded(cols)):
        problems.append(illegal)
    elif padded(cols) > cols and unpack_blocks(_last_blocks(body, cols)).reshape(rows, BLOCK)[:, cols % BLOCK :].any():
        problems.append(f"the padding behind its rows of {cols} weights is not zero")
    if reason := _bad_scale(_scales(data, blocks)):
        problems.append(reason)
    if data[12:HEADER].any() or data[HEADER + 4 * blocks[0] * blocks[1] : _codes_offset(blocks)].any():
        problems.append("bytes that are reserved are not zero")
    return problems


def _codes_offset(blocks: tuple[int, int]) -> int:
    return HEADER + -(-4 * blocks[0] * blocks[1] // UNIT) * UNIT


def _scale_blocks(rows: int, cols: int, head: Bytes) -> tuple[int, int] | None:
    if head.size < HEADER or head[:4].tobytes() != MAGIC:
        return None
    row_blocks, col_blocks = struct.unpack("<II", head[4:12].tobytes())
    tiles = row_blocks > 0 and col_blocks > 0 and rows % row_blocks == 0 and cols % col_blocks == 0
    return (row_blocks, col_blocks) if tiles else None


def _scales(data: Bytes, blocks: tuple[int, int]) -> Scales:
    stored = np.frombuffer(data[HEADER:][: 4 * blocks[0] * blocks[1]].tobytes(), "<f4")
    return stored.astype(np.float32).reshape(blocks)


def _last_blocks(body: Bytes, cols: int) -> Bytes:
    return np.ascontiguousarray(body.reshape(-1, padded(cols) // 4)[:, -BLOCK // 4 :])


def _bad_scale(scales: Scales) -> str | None:
    good = np.isfinite(scales) & (scales >= 0)
    if good.all():
        return None
    return f"a scale is {scales[~good][0]}, expected a finite number >= 0"

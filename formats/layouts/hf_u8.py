"""hf_u8, the packed form of transformers checkpoints: four codes a byte, a quarter of the matrix apart.

The scale is a tensor of its own (`weight_scale`), so pack drops it and unpack gives a scale of one; whether the stored
number multiplies or divides is the family's business (converter/families).
"""

from __future__ import annotations

import numpy as np

from formats.errors import Unreadable, Unsupported
from formats.layouts.two_bit import bytes_with_three
from formats.ternary import Bytes, TernaryTensor

NAME = "hf_u8"
SHIFTS = np.array([0, 2, 4, 6], np.uint8)


def fits(rows: int, cols: int, scale_blocks: tuple[int, int] = (1, 1)) -> str | None:
    """Why a matrix of this shape and granularity cannot be held losslessly, or None if it can."""
    if rows % 4:
        return f"{rows} rows are not a multiple of 4"
    if scale_blocks != (1, 1):
        return f"it holds one scale a tensor, not {scale_blocks[0]} x {scale_blocks[1]}"
    return None


def nbytes(rows: int, cols: int, scale_blocks: tuple[int, int] = (1, 1)) -> int:
    """Bytes of the packed tensor, without its weight_scale: rows * cols / 4."""
    return rows * cols // 4


def pack(tensor: TernaryTensor) -> Bytes:
    """uint8 (nbytes,), to be shaped (rows / 4, cols). Raises Unsupported if the shape or the scales do not fit."""
    rows, cols = tensor.shape
    if reason := fits(rows, cols, tensor.scale_blocks):
        raise Unsupported(f"hf_u8 cannot hold this {rows} x {cols} tensor: {reason}")
    quarters = (tensor.codes.view(np.uint8) + np.uint8(1)).reshape(4, -1)
    out = np.zeros(nbytes(rows, cols), np.uint8)
    for quarter, shift in zip(quarters, SHIFTS):
        out |= quarter << shift
    return out


def unpack(data: Bytes, rows: int, cols: int) -> TernaryTensor:
    """Codes, under a scale of one. Raises Unreadable on a wrong size or a code of 3."""
    if problems := check(data, rows, cols):
        raise Unreadable("hf_u8: " + problems[0])
    codes = np.empty((4, rows // 4 * cols), np.int8)
    flat = data.reshape(-1)
    for quarter, shift in zip(codes, SHIFTS):
        np.subtract((flat >> shift) & 3, 1, out=quarter, dtype=np.int8, casting="unsafe")
    return TernaryTensor.per_tensor(codes.reshape(rows, cols), 1.0)


def check(data: Bytes, rows: int, cols: int) -> list[str]:
    """What makes these bytes no packed tensor; empty if nothing."""
    if reason := fits(rows, cols):
        return [reason]
    if data.size != nbytes(rows, cols):
        return [f"expected {nbytes(rows, cols)} bytes for {rows} x {cols}, found {data.size}"]
    flat = data.reshape(-1)
    if not (threes := bytes_with_three(flat)):
        return []
    byte, count = threes
    row, col = divmod(byte, cols)
    row += rows // 4 * next(i for i, shift in enumerate(SHIFTS) if (int(flat[byte]) >> int(shift)) & 3 == 3)
    return [f"code 3 at row {row}, column {col} ({count} bytes hold one); only 0, 1, 2 are legal"]

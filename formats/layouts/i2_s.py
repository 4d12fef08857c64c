"""I2_S, the layout of bitnet.cpp: 128 codes in 32 bytes, one float32 scale a tensor in a 32-byte trailer.

The contract is in formats/README.md. Only the canonical 128/32 order is meant here; files made on ARM by
bitnet.cpp since November 2025 hold 64-code blocks under the same type id and cannot be told apart by their bytes.
"""

from __future__ import annotations

import numpy as np

from formats.errors import Unreadable, Unsupported
from formats.layouts.two_bit import BLOCK, illegal_code, pack_blocks, unpack_blocks
from formats.ternary import Bytes, TernaryTensor

NAME = "i2_s"
TRAILER = 32


def fits(rows: int, cols: int, scale_blocks: tuple[int, int] = (1, 1)) -> str | None:
    """Why a matrix of this shape and granularity cannot be held losslessly, or None if it can."""
    if cols % BLOCK:
        return f"rows of {cols} weights are not a multiple of {BLOCK}"
    if scale_blocks != (1, 1):
        return f"it holds one scale a tensor, not {scale_blocks[0]} x {scale_blocks[1]}"
    return None


def nbytes(rows: int, cols: int, scale_blocks: tuple[int, int] = (1, 1)) -> int:
    """Bytes of the stored tensor, trailer included: rows * cols / 4 + 32."""
    return rows * cols // 4 + TRAILER


def pack(tensor: TernaryTensor) -> Bytes:
    """uint8 (nbytes,). Raises Unsupported if the shape or the scales do not fit."""
    rows, cols = tensor.shape
    if reason := fits(rows, cols, tensor.scale_blocks):
        raise Unsupported(f"i2_s cannot hold this {rows} x {cols} tensor: {reason}")
    out = np.zeros(nbytes(rows, cols), np.uint8)
    out[: rows * cols // 4] = pack_blocks(tensor.codes)
    out[rows * cols // 4 :][:4] = tensor.scales.reshape(1).astype("<f4").view(np.uint8)
    return out


def unpack(data: Bytes, rows: int, cols: int) -> TernaryTensor:
    """Codes and scale of a stored tensor. Raises Unreadable on a wrong size, a code of 3 or a bad scale."""
    if problems := check(data, rows, cols):
        raise Unreadable("i2_s: " + problems[0])
    codes = unpack_blocks(data[: rows * cols // 4]).reshape(rows, cols)
    return TernaryTensor.per_tensor(codes, _scale(data, rows, cols))


def check(data: Bytes, rows: int, cols: int) -> list[str]:
    """What makes these bytes no I2_S tensor; empty if nothing. The 28 bytes behind the scale are never judged."""
    if reason := fits(rows, cols):
        return [reason]
    if data.size != nbytes(rows, cols):
        return [f"expected {nbytes(rows, cols)} bytes for {rows} x {cols}, found {data.size}"]
    problems = []
    if illegal := illegal_code(data[: rows * cols // 4], cols):
        problems.append(illegal)
    scale = _scale(data, rows, cols)
    if not np.isfinite(scale) or scale < 0:
        problems.append(f"its scale is {scale}, expected a finite number >= 0")
    return problems


def _scale(data: Bytes, rows: int, cols: int) -> np.float32:
    return np.float32(np.frombuffer(data[rows * cols // 4 :][:4].tobytes(), "<f4")[0])

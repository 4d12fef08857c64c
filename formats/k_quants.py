"""Encoders of ggml's types of blocks: q8_0, and the k-quants q6_k and q4_k.

A k-quant has 256 values in a block of sub-blocks, whose scales are themselves small integers. Of each sub-block some
scales are tried and the one with the least weighted squared error is kept; then the scales of a block are rounded to
the block's grid. gguf-py decodes k-quants and has no encoder.

Every sum has a fixed order, so that the bytes are the same on any CPU and with any version of numpy, and in C
(runtime/csrc/kernels/encode/encode_trials.h). Arrays are turned for it: the values of a sub-block stand along the first
axis. Values are finite and below LIMIT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.arrays import F32, Bytes

if TYPE_CHECKING:
    import numpy.typing as npt

LIMIT = 2.0**32
"""No type of blocks holds this magnitude. Far above it the sums of q6_k overflow, and zeros would come out."""
PIECE = 1 << 17
"""Values that are encoded together: they and the scratch of the trials stay in the cache."""


def encode_q8_0(values: F32) -> Bytes:
    """Encode float32 (rows, cols) as Q8_0, uint8, flat; cols is a multiple of 32. Halves are rounded away from zero, as
    ggml does it."""
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, 32)
    out = np.empty((len(blocks), 34), np.uint8)
    for first in range(0, len(blocks), PIECE // 32):
        x = blocks[first : first + PIECE // 32]
        d = np.abs(x).max(-1, keepdims=True) / np.float32(127)
        with np.errstate(divide="ignore", over="ignore"):
            inverse = np.float32(1) / d
            half = d.astype(np.float16)
        scaled = x * np.where(np.isfinite(inverse), inverse, np.float32(0))
        whole = np.floor(np.abs(scaled))
        whole += np.abs(scaled) - whole >= 0.5
        block = out[first : first + PIECE // 32]
        block[:, :2] = half.view(np.uint8)
        block[:, 2:] = np.copysign(whole, scaled).astype(np.int8).view(np.uint8)
    return out.reshape(-1)


def encode_q6_k(values: F32) -> Bytes:
    """Encode float32 (rows, cols) as Q6_K, uint8, flat; cols is a multiple of 256."""
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, 256)
    out = np.empty((len(blocks), 210), np.uint8)
    for first in range(0, len(blocks), PIECE // 256):
        x = blocks[first : first + PIECE // 256].reshape(-1, 16, 16)
        ideal = _sub_block_scales(_turned(x)).reshape(-1, 16)
        widest = np.take_along_axis(ideal, np.abs(ideal).argmax(-1)[:, None], -1)[:, 0]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            d = (widest / np.float32(-128)).astype(np.float16)
            step = d.astype(np.float32)[:, None]
            scales = np.where(step != 0, np.clip(np.rint(ideal / step), -128, 127), np.float32(0))
            step = (step * scales)[..., None]
            codes = np.where(step != 0, np.clip(np.rint(x / step), -32, 31), np.float32(0))
        q = (codes + 32).astype(np.uint8).reshape(-1, 2, 4, 32)  # halves of 128; four runs of 32 in each
        block = out[first : first + PIECE // 256]
        low, high = q & 15, q >> 4
        block[:, :128] = (low[:, :, 0:2] | (low[:, :, 2:4] << 4)).reshape(-1, 128)
        block[:, 128:192] = (
            high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
        ).reshape(-1, 64)
        block[:, 192:208] = scales.astype(np.int8).view(np.uint8)
        block[:, 208:] = d.view(np.uint8).reshape(-1, 2)
    return out.reshape(-1)


def encode_q4_k(values: F32) -> Bytes:
    """Encode float32 (rows, cols) as Q4_K, uint8, flat; cols is a multiple of 256.

    A block has eight sub-blocks of 32: value = d * scale * code - dmin * offset, with codes of 4 bits and scales and
    offsets of 6 bits.
    """
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, 256)
    out = np.empty((len(blocks), 144), np.uint8)
    for first in range(0, len(blocks), PIECE // 256):
        x = blocks[first : first + PIECE // 256].reshape(-1, 8, 32)
        scale, offset = (each.reshape(-1, 8) for each in _scales_and_offsets(_turned(x)))
        with np.errstate(over="ignore"):
            d, dmin = ((_highest(each.T) / np.float32(63)).astype(np.float16) for each in (scale, offset))
        small_scale, small_offset = (_on_grid(each, grid) for each, grid in ((scale, d), (offset, dmin)))
        with np.errstate(divide="ignore", invalid="ignore"):
            stride = d.astype(np.float32)[:, None] * small_scale
            shift = dmin.astype(np.float32)[:, None] * small_offset
            ideal = np.rint((x + shift[..., None]) / stride[..., None])
            codes = np.where(stride[..., None] > 0, np.clip(ideal, 0, 15), np.float32(0))
            codes = codes.astype(np.uint8).reshape(-1, 4, 2, 32)
        block = out[first : first + PIECE // 256]
        block[:, :2], block[:, 2:4] = (each.view(np.uint8).reshape(-1, 2) for each in (d, dmin))
        block[:, 4:16] = _pack_sixes(small_scale.astype(np.uint8), small_offset.astype(np.uint8))
        block[:, 16:] = (codes[:, :, 0] | codes[:, :, 1] << 4).reshape(-1, 128)
    return out.reshape(-1)


def _turned(x: F32) -> F32:
    """Turn (blocks, sub-blocks, values) to (values, blocks * sub-blocks)."""
    return np.ascontiguousarray(x.reshape(-1, x.shape[-1]).T)


def _sum(terms: F32) -> F32:
    """Sum (16 or 32, n) to (n,): term i goes to lane i mod 8, in order of i; then neighbours are added until one lane
    is left, and +0, which makes -0 of it +0."""
    lanes = terms[:8]
    for first in range(8, len(terms), 8):
        lanes = lanes + terms[first : first + 8]
    while len(lanes) > 1:
        lanes = lanes[0::2] + lanes[1::2]
    total: F32 = lanes[0] + np.float32(0)
    return total


def _sub_block_scales(x: F32) -> F32:
    """The scale of each sub-block of q6_k, (16, n) -> (n,): least squares weighted by x**2, 19 trials."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(0)[None], 0)[0]
    weight = x * x
    weighted = weight * x
    best = np.zeros(x.shape[1], np.float32)
    score = np.full(x.shape[1], -1.0, np.float32)
    codes, terms = np.empty_like(x), np.empty_like(x)  # used again: fresh memory costs more than the arithmetic
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        for nudge in range(-9, 10):
            np.multiply(x, np.float32(-(32 + 0.1 * nudge)) / extreme, out=codes)
            np.clip(np.rint(codes, out=codes), -32, 31, out=codes)
            cross = _sum(np.multiply(weighted, codes, out=terms))
            norm = _sum(np.multiply(np.multiply(weight, codes, out=terms), codes, out=terms))
            gain = np.where(norm > 0, cross * cross / norm, np.float32(-1))
            better = gain > score
            best, score = np.where(better, cross / norm, best), np.where(better, gain, score)
    return best


def _scales_and_offsets(x: F32) -> tuple[F32, F32]:
    """Scale and offset of each sub-block of q4_k, (32, n) -> (n,) twice: least squares weighted by magnitude, 21
    tries."""
    weight = np.sqrt(_sum(x * x) / np.float32(32)) + np.abs(x)
    weighted = weight * x
    low, high = np.minimum(x.min(0), np.float32(0)) + np.float32(0), _highest(x)
    best_scale, best_offset = (high - low) / np.float32(15), -low
    best = np.full(x.shape[1], np.inf, np.float32)
    total, sum_x = _sum(weight), _sum(weighted)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        for nudge in range(-10, 11):
            inverse = np.float32(15 + 0.1 * nudge) / (high - low)
            codes = np.minimum(np.rint(inverse * (x - low)), np.float32(15))
            sum_q, sum_qq = _sum(weight * codes), _sum(weight * codes * codes)
            sum_xq = _sum(weighted * codes)
            determinant = total * sum_qq - sum_q * sum_q
            scale = (total * sum_xq - sum_x * sum_q) / determinant
            offset = -(sum_qq * sum_x - sum_q * sum_xq) / determinant
            possible = np.isfinite(inverse) & (offset < np.inf)
            # An offset can only lower the values; without one another scale is the best.
            scale = np.where(offset < 0, sum_xq / sum_qq, scale)
            offset = np.where(offset > 0, offset, np.float32(0))
            apart = scale * codes - offset - x
            error = _sum(weight * (apart * apart))
            better = possible & (error < best) & (scale > 0) & (scale < np.inf)
            best = np.where(better, error, best)
            best_scale, best_offset = np.where(better, scale, best_scale), np.where(better, offset, best_offset)
    return best_scale, best_offset


def _highest(values: F32) -> F32:
    """The highest of (k, n) along the first axis, the last of equals: zeros have a sign, and np.max takes any."""
    highest: F32 = values[0]
    for each in values[1:]:
        highest = np.where(each >= highest, each, highest)
    return highest


def _on_grid(values: F32, d: npt.NDArray[np.float16]) -> F32:
    """Round values to whole steps of d, 0 to 63."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint(values / d.astype(np.float32)[:, None])
    return np.where(d[:, None] > 0, np.clip(steps, 0, 63), np.float32(0))


def _pack_sixes(scales: Bytes, offsets: Bytes) -> Bytes:
    """Pack eight 6-bit scales and eight 6-bit offsets into 12 bytes: the first four of each in the low bits of a byte,
    the high two bits of the others above them."""
    packed = np.empty((len(scales), 12), np.uint8)
    packed[:, 0:4] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    packed[:, 4:8] = offsets[:, :4] | (offsets[:, 4:] >> 4) << 6
    packed[:, 8:12] = (scales[:, 4:] & 15) | (offsets[:, 4:] & 15) << 4
    return packed

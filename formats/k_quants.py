"""Encoders of ggml's k-quants: 256 values in a block of sub-blocks, whose scales are themselves small integers.

Of each sub-block some scales are tried and the one with the least weighted squared error is kept; then the scales of a
block are rounded to the block's grid. gguf-py decodes k-quants and has no encoder.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import F32, Bytes


def _sub_block_scales(x: F32) -> F32:
    """The scale of each 16-value sub-block, (n, 16, 16) -> (n, 16): least squares weighted by x**2, 19 trials."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)
    weight = x * x
    best = np.zeros(x.shape[:-1], np.float32)
    score = np.full(x.shape[:-1], -1.0, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        for nudge in range(-9, 10):
            codes = np.clip(np.rint(x * (-(32 + 0.1 * nudge) / extreme)), -32, 31)
            cross, norm = (weight * x * codes).sum(-1), (weight * codes * codes).sum(-1)
            gain = np.where(norm > 0, cross * cross / norm, -1.0)
            better = gain > score
            best = np.where(better, np.where(norm > 0, cross / norm, 0), best).astype(np.float32)
            score = np.where(better, gain, score).astype(np.float32)
    return best


def encode_q6_k(values: F32) -> Bytes:
    """Encode float32 (rows, cols) as Q6_K, uint8, flat; cols is a multiple of 256."""
    rows, cols = values.shape
    out = np.empty((rows, cols // 256, 210), np.uint8)
    step = max(1, 2**20 // cols)  # bounds the scratch of the trial grids to some tens of MB
    for first in range(0, rows, step):
        x = np.ascontiguousarray(values[first : first + step], np.float32).reshape(-1, 16, 16)
        ideal = _sub_block_scales(x)
        widest = np.take_along_axis(ideal, np.abs(ideal).argmax(-1)[:, None], -1)[:, 0]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            d = (widest / np.float32(-128)).astype(np.float16)
            scales = np.where(d[:, None] != 0, np.clip(np.rint(ideal / d[:, None].astype(np.float32)), -128, 127), 0)
            step_size = (d[:, None].astype(np.float32) * scales)[..., None]
            codes = np.where(step_size != 0, np.clip(np.rint(x / step_size), -32, 31), 0)
        q = (codes + 32).astype(np.uint8).reshape(-1, 2, 4, 32)  # halves of 128; four runs of 32 in each
        block = out[first : first + step].reshape(-1, 210)
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
    rows, cols = values.shape
    out = np.empty((rows, cols // 256, 144), np.uint8)
    step = max(1, 2**19 // cols)
    for first in range(0, rows, step):
        x = np.ascontiguousarray(values[first : first + step], np.float32).reshape(-1, 8, 32)
        scale, offset = _scales_and_offsets(x)
        with np.errstate(over="ignore"):
            d, dmin = ((each.max(-1) / np.float32(63)).astype(np.float16) for each in (scale, offset))
        small_scale, small_offset = (_on_grid(each, grid) for each, grid in ((scale, d), (offset, dmin)))
        stride = d.astype(np.float32)[:, None] * small_scale
        shift = dmin.astype(np.float32)[:, None] * small_offset
        with np.errstate(divide="ignore", invalid="ignore"):
            ideal = np.rint((x + shift[..., None]) / stride[..., None])
        codes = np.where(stride[..., None] > 0, np.clip(ideal, 0, 15), 0).astype(np.uint8).reshape(-1, 4, 2, 32)
        block = out[first : first + step].reshape(-1, 144)
        block[:, :2], block[:, 2:4] = (each.view(np.uint8).reshape(-1, 2) for each in (d, dmin))
        block[:, 4:16] = _pack_sixes(small_scale.astype(np.uint8), small_offset.astype(np.uint8))
        block[:, 16:] = (codes[:, :, 0] | codes[:, :, 1] << 4).reshape(-1, 128)
    return out.reshape(-1)


def _scales_and_offsets(x: F32) -> tuple[F32, F32]:
    """Scale and offset of each sub-block, (n, 8, 32) -> (n, 8) twice: least squares weighted by magnitude, 21 tries."""
    weight = np.sqrt((x * x).mean(-1, keepdims=True)) + np.abs(x)
    low, high = np.minimum(x.min(-1), 0), x.max(-1)
    best_scale, best_offset = (high - low) / np.float32(15), -low
    best = np.full(low.shape, np.inf, np.float32)
    total, sum_x = weight.sum(-1), (weight * x).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for nudge in range(-10, 11):
            inverse = np.float32(15 + 0.1 * nudge) / (high - low)
            codes = np.clip(np.rint(inverse[..., None] * (x - low[..., None])), 0, 15)
            sum_q, sum_qq = (weight * codes).sum(-1), (weight * codes * codes).sum(-1)
            sum_xq = (weight * x * codes).sum(-1)
            determinant = total * sum_qq - sum_q * sum_q
            scale = (total * sum_xq - sum_x * sum_q) / determinant
            offset = -(sum_qq * sum_x - sum_q * sum_xq) / determinant
            # An offset can only lower the values; without one another scale is the best.
            scale = np.where(offset < 0, sum_xq / sum_qq, scale)
            offset = np.maximum(offset, 0)
            error = (weight * (scale[..., None] * codes - offset[..., None] - x) ** 2).sum(-1)
            better = (error < best) & (scale > 0) & np.isfinite(scale) & np.isfinite(offset)
            best = np.where(better, error, best)
            best_scale, best_offset = np.where(better, scale, best_scale), np.where(better, offset, best_offset)
    return np.asarray(best_scale, np.float32), np.asarray(best_offset, np.float32)


def _on_grid(values: F32, d: npt.NDArray[np.float16]) -> F32:
    """Round values to whole steps of d, 0 to 63."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint(values / d.astype(np.float32)[:, None])
    return np.where(d[:, None] > 0, np.clip(steps, 0, 63), 0).astype(np.float32)


def _pack_sixes(scales: Bytes, offsets: Bytes) -> Bytes:
    """Pack eight 6-bit scales and eight 6-bit offsets into 12 bytes: the first four of each in the low bits of a byte,
    the high two bits of the others above them."""
    packed = np.empty((len(scales), 12), np.uint8)
    packed[:, 0:4] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    packed[:, 4:8] = offsets[:, :4] | (offsets[:, 4:] >> 4) << 6
    packed[:, 8:12] = (scales[:, 4:] & 15) | (offsets[:, 4:] & 15) << 4
    return packed

"""Float and block-quantised types of embeddings, heads and norms: f32, f16, bf16, q8_0, q6_k.

Encoding rounds to nearest even and refuses what the type cannot hold as a finite number. q8_0 and the decoder of q6_k
are gguf-py's; it has no q6_k encoder, so that one is ours (ggml's k-quant scheme: 16 sub-blocks of 16, 6-bit codes).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from formats.errors import Unreadable, Unsupported
from formats.ternary import Bytes

F32 = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class FloatType:
    """A row-wise type: `block` values take `block_bytes` bytes; `type_id` is its GGUF number."""

    name: str
    type_id: int
    block: int
    block_bytes: int

    def nbytes(self, rows: int, cols: int) -> int:
        """Bytes of a (rows, cols) tensor. Raises Unsupported if a row is not a whole number of blocks."""
        if cols % self.block:
            raise Unsupported(f"{self.name} needs rows in multiples of {self.block}, found {cols}")
        return rows * cols // self.block * self.block_bytes


FLOAT_TYPES = {
    kind.name: kind
    for kind in (
        FloatType("f32", 0, 1, 4),
        FloatType("f16", 1, 1, 2),
        FloatType("bf16", 30, 1, 2),
        FloatType("q8_0", 8, 32, 34),
        FloatType("q6_k", 14, 256, 210),
    )
}


def widen_bf16(bits: npt.NDArray[np.uint16]) -> F32:
    """bfloat16 bit patterns to the float32 of the same value."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow_bf16(values: F32) -> npt.NDArray[np.uint16]:
    """float32 to bfloat16 bit patterns, to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def encode(name: str, values: F32) -> Bytes:
    """float32 (rows, cols) to the bytes of type `name`, uint8 (nbytes,). Raises Unsupported if it cannot hold them."""
    kind = FLOAT_TYPES[name]
    kind.nbytes(values.shape[0], values.shape[1])
    if not np.isfinite(values).all():
        raise Unsupported(f"{name}: a value is not finite")
    if name == "f32":
        return _bytes(np.ascontiguousarray(values, "<f4"))
    if name == "bf16":
        return _bytes(narrow_bf16(values))
    if name == "f16":
        with np.errstate(over="ignore"):
            half = values.astype("<f2")
        if not np.isfinite(half).all():
            raise Unsupported(
                f"f16 overflows at {float(np.abs(values).max()):g} (its largest value is 65504)",
                hint="choose --embedding-type bf16 or f32",
            )
        return _bytes(half)
    if name == "q8_0":
        from gguf import quants
        from gguf.constants import GGMLQuantizationType

        return _bytes(quants.quantize(np.ascontiguousarray(values, np.float32), GGMLQuantizationType.Q8_0))
    return _encode_q6_k(values)


def decode(name: str, data: Bytes, rows: int, cols: int) -> F32:
    """The float32 (rows, cols) that the bytes of type `name` stand for. Raises Unreadable on a wrong size."""
    expected = FLOAT_TYPES[name].nbytes(rows, cols)
    if data.size != expected:
        raise Unreadable(f"{name}: expected {expected} bytes for {rows} x {cols}, found {data.size}")
    flat = np.ascontiguousarray(data).reshape(-1)
    if name == "f32":
        return flat.view("<f4").reshape(rows, cols).astype(np.float32, copy=False)
    if name == "f16":
        return flat.view("<f2").reshape(rows, cols).astype(np.float32)
    if name == "bf16":
        return widen_bf16(flat.view("<u2")).reshape(rows, cols)
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    kind = GGMLQuantizationType.Q8_0 if name == "q8_0" else GGMLQuantizationType.Q6_K
    return np.asarray(quants.dequantize(flat.reshape(rows, -1), kind), np.float32).reshape(rows, cols)


def survives(name: str, values: F32) -> bool:
    """Whether every value comes back bit for bit from the plain type `name` (f32, f16, bf16)."""
    if name == "f32":
        return True
    if name == "bf16":
        return bool((np.ascontiguousarray(values).view(np.uint32) & 0xFFFF == 0).all())
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16).astype(np.float32).view(np.uint32) == values.view(np.uint32)).all())


def _bytes(array: npt.NDArray[np.generic]) -> Bytes:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


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


def _encode_q6_k(values: F32) -> Bytes:
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

"""Float and block-quantised types of embeddings, heads and norms: f32, f16, bf16, q8_0, q6_k, q4_k.

Encoding rounds to nearest even and refuses what the type cannot hold as a finite number. Types of blocks are encoded in
k_quants.py. Their decoders are gguf-py's.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats import c_blocks, k_quants
from tritpack.formats.arrays import F32, Bytes
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.names import PLAIN_FLOATS

if TYPE_CHECKING:
    import numpy.typing as npt


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
        FloatType("q4_k", 12, 256, 144),
    )
}


HALF_SCALES = {"q8_0": (0,), "q6_k": (208,), "q4_k": (0, 2)}
"""Byte offsets of the float16 scales in a block."""
ENCODERS = {"q8_0": k_quants.encode_q8_0, "q6_k": k_quants.encode_q6_k, "q4_k": k_quants.encode_q4_k}


def widen_bf16(bits: npt.NDArray[np.uint16]) -> F32:
    """Convert bfloat16 bit patterns to float32 of the same values."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow_bf16(values: F32) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16 bit patterns, to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def encode(name: str, values: F32) -> Bytes:
    """Encode float32 (rows, cols) as type `name`, uint8 (nbytes,). Raises Unsupported if the type cannot hold them."""
    kind = FLOAT_TYPES[name]
    kind.nbytes(values.shape[0], values.shape[1])
    if not np.isfinite(values).all():
        raise Unsupported(f"{name}: a value is not finite")
    if name == "f32":
        return _bytes(np.ascontiguousarray(values, "<f4"))
    if name == "bf16":
        short = narrow_bf16(values)
        if not (short & 0x7FFF < 0x7F80).all():
            raise Unsupported(
                f"bf16 overflows at {float(np.abs(values).max()):g} (its largest value is 3.38953e+38)",
                hint="choose --embedding-type f32",
            )
        return _bytes(short)
    if name == "f16":
        with np.errstate(over="ignore"):
            half = values.astype("<f2")
        if not np.isfinite(half).all():
            raise Unsupported(
                f"f16 overflows at {float(np.abs(values).max()):g} (its largest value is 65504)",
                hint="choose --embedding-type bf16 or f32",
            )
        return _bytes(half)
    highest = float(np.abs(values).max(initial=0))
    with np.errstate(all="ignore"):  # overflows are found below
        data = ENCODERS[name](values) if highest < k_quants.LIMIT else None
    if data is None or not _finite_scales(name, data):
        raise Unsupported(f"{name} overflows at {highest:g}", hint="choose --embedding-type bf16 or f32")
    return data


def _finite_scales(name: str, data: Bytes) -> bool:
    blocks = data.reshape(-1, FLOAT_TYPES[name].block_bytes)
    halves = (np.ascontiguousarray(blocks[:, place : place + 2]).view("<f2") for place in HALF_SCALES[name])
    return all(bool(np.isfinite(each).all()) for each in halves)


def decode(name: str, data: Bytes, rows: int, cols: int) -> F32:
    """Decode the bytes of type `name` to float32 (rows, cols). Raises Unreadable on a wrong size."""
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

    kind = GGMLQuantizationType[name.upper()]
    return np.asarray(quants.dequantize(flat.reshape(rows, -1), kind), np.float32).reshape(rows, cols)


def decode_rows(name: str, data: Bytes, rows: int, cols: int) -> F32:
    """Decode as `decode` does, in C if that is there."""
    c = c_blocks.backend()
    if c is not None and name not in PLAIN_FLOATS and data.size == FLOAT_TYPES[name].nbytes(rows, cols):
        values = np.empty((rows, cols), np.float32)
        if c.decode(name, rows, cols, data, values):
            return values
    return decode(name, data, rows, cols)


def encode_rows(
    name: str, stored: str, data: Bytes, rows: int, cols: int, out: Bytes | None = None
) -> tuple[Bytes, bool]:
    """Encode the bytes of (rows, cols) floats of the plain type `stored` as type `name`, in C if that is there.

    Returns the bytes, in `out` (nbytes,) if that is given, and whether every value survived, which is False for types
    of blocks. Raises Unsupported as `encode` does.
    """
    target = np.empty(FLOAT_TYPES[name].nbytes(rows, cols), np.uint8) if out is None else out
    c = c_blocks.backend()
    survived = c.encode(name, stored, rows, cols, data, target) if c is not None else None
    if survived is None:
        values = decode(stored, data, rows, cols)
        target[:] = encode(name, values)
        survived = name in PLAIN_FLOATS and survives(name, values)
    return target, survived


def rows_survive(name: str, stored: str, data: Bytes, rows: int, cols: int) -> bool:
    """Whether all of (rows, cols) floats of the plain type `stored` are finite and survive in the plain type `name`."""
    c = c_blocks.backend()
    survived = c.encode(name, stored, rows, cols, data, None) if c is not None else None
    if survived is None:
        values = decode(stored, data, rows, cols)
        survived = bool(np.isfinite(values).all()) and survives(name, values)
    return survived


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

"""Floats that are ternary already: their codes and scales are recovered exactly, never quantised again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.storage.storage import (
    DTYPE_NAMES,
    PIECE,
    Declaration,
    Part,
    Storage,
    StoredLinear,
    expect_floats,
    float_pieces,
    spans,
)
from tritpack.formats.absmean import FLOOR
from tritpack.formats.arrays import Bits, Bytes
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.safetensors_reader import FLOATS, StoredTensor
from tritpack.formats.ternary import TernaryTensor, coarsest

ALREADY = "is_w_quantized"
"""In EdgeRazor's config.json: the weights in the file are rounded already, and its loaders take them as they are."""
INT4_MAGNITUDES = 8
"""Those of integers from -7 to 7, which EdgeRazor gives some rows."""
INFINITE = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000}
"""The bit pattern of infinity; larger ones are NaN."""
SMALLEST_GROUP = 16
"""The fewest weights that may share a scale: in groups of one, any float is ternary."""


@dataclasses.dataclass(frozen=True)
class TernaryFloats(Storage):
    """Ternary values as plain floats, with scales of any granularity: what models with float activations are."""

    name = "ternary_floats"
    key = "ternary_floats"
    recorded = "exact"
    description = "floats that are ternary already: codes and scales recovered from the values"
    int8_activations = False

    @classmethod
    def recognise(cls, declared: Declaration) -> tuple[Storage, str] | None:
        quantization = declared.quantization
        if quantization is not None and quantization.get("quant_method") == "edgerazor":
            return (cls(), f"quant_method edgerazor, {ALREADY}") if quantization.get(ALREADY) is True else None
        if quantization is not None or declared.floats != cls.name:
            return None
        return cls(), "no quantization_config, ternary floats"

    def check(self, linear: StoredLinear) -> None:
        expect_floats(linear, "ternary floats")

    def read(self, linear: StoredLinear) -> TernaryTensor | None:
        return recover(linear.weight)

    def not_ternary(self, linear: StoredLinear) -> Unsupported:
        return describe_misfit(linear.weight)

    def for_table(self, weight: StoredTensor) -> Storage | None:
        return TernaryFloats() if weight.dtype in FLOATS else None

    def nearest_grid(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        return scale_blocks

    def written_parts(self, rows: int, cols: int) -> list[Part]:
        return [("weight", DTYPE_NAMES[self.dtype][0], (rows, cols))]

    def write(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        return [float_pieces(ternary, self.dtype)]

    def config(self) -> dict[str, Any]:
        return {}


def recover(weight: StoredTensor) -> TernaryTensor | None:
    """Return the exact codes and scales of floats that are ternary already; None if they are not.

    The scales are the largest blocks in which all non-zeros have one magnitude: the tensor, shards of rows or columns,
    rows, or groups of consecutive inputs. A block of zeros has the scale 0. Raises Unreadable for NaN and infinity.
    """
    rows, cols = weight.shape
    blocks = next((n for n in _divisions(cols) if _one_magnitude(weight, n)), None)
    if blocks is None:
        return None
    codes = np.empty((rows, cols), np.int8)
    scales = np.empty((rows, blocks), np.float32)
    for first, last in spans(rows, cols):
        bits = weight.rows_bits(first, last)
        magnitudes = magnitudes_of(weight, bits)
        nonzero = magnitudes != 0
        negative = (nonzero & (bits != magnitudes)).view(np.int8)
        codes[first:last] = nonzero.view(np.int8) - negative - negative
        scales[first:last] = weight.widened(magnitudes.reshape(last - first, blocks, -1).max(-1))
    return TernaryTensor(codes, coarsest(scales, zero_fits=True))


def _divisions(cols: int) -> list[int]:
    """Return into how many equal pieces a row may be cut, fewest first."""
    return [n for n in range(1, max(1, cols // SMALLEST_GROUP) + 1) if cols % n == 0]


def _one_magnitude(weight: StoredTensor, blocks: int) -> bool:
    """Return whether each of `blocks` pieces of each row holds one magnitude besides zero.

    The first few rows are asked first, because they settle it most of the time.
    """
    rows, cols = weight.shape
    for first, last in [(0, min(rows, 8)), *spans(rows, cols)]:
        magnitudes = magnitudes_of(weight, weight.rows_bits(first, last)).reshape(last - first, blocks, -1)
        if not ((magnitudes == 0) | (magnitudes == magnitudes.max(-1, keepdims=True))).all():
            return False
    return True


def magnitudes_of(weight: StoredTensor, bits: Bits) -> Bits:
    """Return bit patterns without their signs. They are ordered as the magnitudes are, so nothing is converted.

    Raises Unreadable for NaN and infinity.
    """
    magnitudes = bits & bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    if magnitudes.size and magnitudes.max() >= INFINITE[weight.dtype]:
        raise Unreadable("holds a value that is not finite", tensor=weight.name)
    return magnitudes


def describe_misfit(weight: StoredTensor) -> Unsupported:
    """Return the refusal of a plain float tensor, which says how far from ternary it is."""
    rows, cols = weight.shape
    groups = _divisions(cols)[-1]
    sample = weight.rows_f32(0, min(rows, max(1, PIECE // cols)))
    if (share := _int4_share(sample)) > 0:
        return Unsupported(
            f"is a mixture: {100 * share:.3g} % of its first {len(sample)} rows hold int4 values, the rest is ternary",
            tensor=weight.name,
            hint="ternary layouts hold no int4 rows; of an EdgeRazor model, its checkpoint of 1.58 bits has none",
        )
    pieces = np.abs(sample).reshape(len(sample), groups, -1)
    ternary = ((pieces == 0) | (pieces == pieces.max(-1, keepdims=True))).all(-1)
    counted = (
        f"of the groups of {cols // groups} inputs in its first {len(sample)} rows, {ternary.sum()} of {ternary.size} "
        "hold one magnitude besides zero"
    )
    if ternary.mean() > 0.5:
        return Unsupported(
            f"is not ternary throughout: {counted}",
            tensor=weight.name,
            hint="most of it is ternary, so the checkpoint is damaged or half converted; fetch it again",
        )
    return Unsupported(
        f"is not ternary: {counted}, and rounding it to three values would change it by "
        f"{100 * _absmean_change(sample):.0f} % of its norm",
        tensor=weight.name,
        hint="if these are master weights of a BitNet model (Falcon-E's prequantized revision, for example), pass "
        "--quantize absmean; an ordinary float model talks nonsense after it",
    )


def _int4_share(sample: npt.NDArray[np.float32]) -> float:
    """Return the share of rows that hold few magnitudes in each group, if all the others are ternary; else 0."""
    size = next((size for size in (256, 64, 32) if sample.shape[1] % size == 0), sample.shape[1])
    ordered = np.sort(np.abs(sample).reshape(len(sample), -1, size), axis=-1)
    steps = (np.diff(ordered) != 0).sum(-1).max(-1)  # one less than the magnitudes of a row's richest group, with zero
    ternary = ((ordered == 0) | (ordered == ordered[..., -1:])).all((1, 2))
    mixed = ternary.any() and not ternary.all() and (ternary | (steps < INT4_MAGNITUDES)).all()
    return float(1 - ternary.mean()) if mixed else 0.0


def _absmean_change(sample: npt.NDArray[np.float32]) -> float:
    """Return the norm of what absmean would change, in parts of the sample's norm."""
    mean = max(float(np.abs(sample).mean(dtype=np.float64)), FLOOR)
    rounded = np.clip(np.rint(sample / mean), -1, 1) * mean
    power = float(np.square(sample, dtype=np.float64).sum())
    return float(np.sqrt(float(np.square(sample - rounded, dtype=np.float64).sum()) / power)) if power else 0.0

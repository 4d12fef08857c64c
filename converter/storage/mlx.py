"""MLX's affine 2-bit groups: w = scale * code + bias with codes 0 to 2, which is ternary if bias = -scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from tritpack.converter.storage.storage import (
    DTYPE_NAMES,
    Declaration,
    Part,
    Storage,
    StoredLinear,
    encoded,
    expect,
    spans,
)
from tritpack.converter.storage.ternary_floats import TernaryFloats
from tritpack.formats.arrays import F32, Bytes, Codes
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.names import MLX_GROUP_SIZES
from tritpack.formats.safetensors_reader import FLOATS, StoredTensor
from tritpack.formats.ternary import TernaryTensor, coarsest_both


@dataclasses.dataclass(frozen=True)
class Mlx(Storage):
    """16 codes per uint32 (`weight`, low bits first), and `scales` and `biases` (rows, cols / group)."""

    name = "mlx"
    key = "mlx"
    recorded = "mlx"
    description = "MLX 2-bit: uint32 codes, one scale and one bias per group"
    int8_activations = False

    group: int = 64

    @classmethod
    def recognise(cls, declared: Declaration) -> tuple[Storage, str] | None:
        quantization = declared.quantization
        if quantization is None or "quant_method" in quantization or "group_size" not in quantization:
            return None
        if quantization.get("mode", "affine") != "affine":
            raise Unsupported(
                f"MLX weights of mode {quantization['mode']!r} are not read (quantization.mode in config.json)"
            )
        bits = quantization.get("bits")
        if bits != 2:
            raise Unsupported(f"MLX weights of {bits} bits are not ternary (quantization.bits in config.json)")
        return cls(), f"quantization bits 2, group_size {quantization['group_size']}"

    def check(self, linear: StoredLinear) -> None:
        rows, cols = linear.shape
        expect(linear.weight, ("U32",), (rows, cols // 16), "MLX codes")

    def read(self, linear: StoredLinear) -> TernaryTensor:
        weight, (rows, cols) = linear.weight, linear.shape
        if weight.shape != (rows, cols // 16) or cols % 16:
            raise Unreadable(f"has shape {list(weight.shape)}, expected {[rows, cols // 16]}", tensor=weight.name)
        scales = _ternary_scales(linear)
        return TernaryTensor(_codes(weight, rows, cols), coarsest_both(scales))

    def for_table(self, weight: StoredTensor) -> Storage | None:
        return TernaryFloats() if weight.dtype in FLOATS else self  # mlx-lm leaves some tables as floats

    @classmethod
    def candidates(cls, dtype: str, group_size: int | None) -> list[Storage]:
        if group_size is not None and group_size not in MLX_GROUP_SIZES:
            raise UsageError(
                f"--group-size {group_size} is unknown", hint=f"MLX has {', '.join(map(str, MLX_GROUP_SIZES))}"
            )
        return [cls(dtype, group) for group in (MLX_GROUP_SIZES if group_size is None else (group_size,))]

    def nearest_grid(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        fits = cols // scale_blocks[1] % self.group == 0
        return scale_blocks if fits else (scale_blocks[0], cols // self.group)

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"its rows of {cols} weights are not whole groups of {self.group}" if cols % self.group else None

    def written_parts(self, rows: int, cols: int) -> list[Part]:
        scales = (DTYPE_NAMES[self.dtype][0], (rows, cols // self.group))
        return [("weight", "U32", (rows, cols // 16)), ("scales", *scales), ("biases", *scales)]

    def write(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        rows, cols = ternary.shape
        scales = np.repeat(ternary.scales, rows // len(ternary.scales), axis=0)
        scales = np.repeat(scales, cols // self.group // scales.shape[1], axis=1)
        return [[LAYOUTS["mlx2"].pack(ternary)], [encoded(scales, self.dtype)], [encoded(-scales, self.dtype)]]

    def config(self) -> dict[str, Any]:
        return {"group_size": self.group, "bits": 2}


def _ternary_scales(linear: StoredLinear) -> F32:
    """Return the scales, float32 (rows, groups), after checking that the biases are minus these."""
    for suffix in ("scales", "biases"):
        if suffix not in linear.parts:
            raise Unreadable(f"is packed, but the checkpoint has no {suffix} for it", tensor=linear.name)
    scales, biases, (rows, cols) = linear.parts["scales"], linear.parts["biases"], linear.shape
    for part in (scales, biases):
        shape = part.shape
        if len(shape) != 2 or 0 in shape or shape[0] != rows or shape != scales.shape or cols % shape[1]:
            raise Unreadable(f"of shape {list(shape)} does not tile {rows} x {cols} weights", tensor=part.name)
    values, offsets = scales.rows_f32(0, rows), biases.rows_f32(0, rows)
    if not np.isfinite(values).all() or (values < 0).any():
        raise Unreadable("holds a scale that is negative or not finite", tensor=scales.name)
    if not np.array_equal(offsets, -values):
        raise Unsupported(f"is not minus {scales.name!r}: these 2-bit weights are not ternary", tensor=biases.name)
    return values


def _codes(weight: StoredTensor, rows: int, cols: int) -> Codes:
    packed = weight.data.view("<u4").reshape(rows, -1, 1)
    codes = np.empty((rows, cols), np.int8)
    for first, last in spans(rows, cols):
        two_bits = (packed[first:last] >> np.arange(0, 32, 2, dtype=np.uint32)) & np.uint32(3)
        if (two_bits == 3).any():
            row, word, _ = (int(i) for i in np.argwhere(two_bits == 3)[0])
            raise Unsupported(
                f"has the fourth code (3) in row {first + row}, word {word}: these 2-bit weights are not ternary",
                tensor=weight.name,
            )
        codes[first:last] = two_bits.reshape(last - first, cols).astype(np.int8) - np.int8(1)
    return codes

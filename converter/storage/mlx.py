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
)
from tritpack.converter.storage.ternary_floats import TernaryFloats
from tritpack.converter.storage.two_bits import group_scales, stored_scales, unpack_words
from tritpack.formats.arrays import F32, Bytes
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.names import GROUP_SIZES
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
        return TernaryTensor(unpack_words(weight, rows, cols, 1), coarsest_both(scales))

    def for_table(self, weight: StoredTensor) -> Storage | None:
        return TernaryFloats() if weight.dtype in FLOATS else self  # mlx-lm leaves some tables as floats

    @classmethod
    def candidates(cls, dtype: str, group_size: int | None) -> list[Storage]:
        if group_size is not None and group_size not in GROUP_SIZES:
            raise UsageError(
                f"--group-size {group_size} is unknown", hint=f"MLX has {', '.join(map(str, GROUP_SIZES))}"
            )
        return [cls(dtype, group) for group in (GROUP_SIZES if group_size is None else (group_size,))]

    def nearest_grid(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        fits = cols // scale_blocks[1] % self.group == 0
        return scale_blocks if fits else (scale_blocks[0], cols // self.group)

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"its rows of {cols} weights are not whole groups of {self.group}" if cols % self.group else None

    def written_parts(self, rows: int, cols: int) -> list[Part]:
        scales = (DTYPE_NAMES[self.dtype][0], (rows, cols // self.group))
        return [("weight", "U32", (rows, cols // 16)), ("scales", *scales), ("biases", *scales)]

    def write(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        scales = stored_scales(ternary, ternary.shape[1] // self.group)
        return [[LAYOUTS["mlx2"].pack(ternary)], [encoded(scales, self.dtype)], [encoded(-scales, self.dtype)]]

    def config(self) -> dict[str, Any]:
        return {"group_size": self.group, "bits": 2}


def _ternary_scales(linear: StoredLinear) -> F32:
    """Return the scales, float32 (rows, groups), after checking that the biases are minus these."""
    for suffix in ("scales", "biases"):
        if suffix not in linear.parts:
            raise Unreadable(f"is packed, but the checkpoint has no {suffix} for it", tensor=linear.name)
    scales, biases = linear.parts["scales"], linear.parts["biases"]
    values = group_scales(linear, scales)
    if biases.shape != scales.shape:
        raise Unreadable(f"has shape {list(biases.shape)}, expected {list(scales.shape)}", tensor=biases.name)
    if not np.array_equal(biases.rows_f32(0, len(values)), -values):
        raise Unsupported(f"is not minus {scales.name!r}: these 2-bit weights are not ternary", tensor=biases.name)
    return values

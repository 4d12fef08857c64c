"""compressed-tensors' `pack-quantized` with 2 bits: w = scale * (code - 2) with codes 1 to 3, which vLLM loads.

Format: the documentation and source of the compressed-tensors package; integers of b bits are stored plus 2^(b-1),
32 / b of them to an int32, low bits first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
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
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.layouts.mlx2 import ONE_MORE
from tritpack.formats.names import GROUP_SIZES
from tritpack.formats.safetensors_reader import StoredTensor
from tritpack.formats.ternary import TernaryTensor, coarsest_both

METHOD, FORMAT = "compressed-tensors", "pack-quantized"


@dataclasses.dataclass(frozen=True)
class PackQuantized(Storage):
    """Sixteen codes per int32 (`weight_packed`), `weight_scale` (rows, groups) and `weight_shape` (2,).

    group: weights per scale; 0 for one scale per row (compressed-tensors' strategy `channel`).
    """

    name = "pack_quantized"
    key = "pack_quantized"
    recorded = "pack-quantized"
    description = "compressed-tensors 2-bit: int32 codes, one scale per row or group"
    int8_activations = False
    weight_part = "weight_packed"

    group: int = 0

    @classmethod
    def recognise(cls, declared: Declaration) -> tuple[Storage, str] | None:
        quantization = declared.quantization
        if quantization is None or quantization.get("quant_method") != METHOD:
            return None
        groups = quantization.get("config_groups")
        if not isinstance(groups, Mapping) or not groups:
            raise Unreadable("config.json: quantization_config.config_groups is not there, expected the weights' types")
        for entry in groups.values():
            _check_group(entry if isinstance(entry, Mapping) else {}, quantization.get("format"))
        return cls(), f"quant_method {METHOD}, format {FORMAT}, 2 bits"

    def check(self, linear: StoredLinear) -> None:
        rows, cols = linear.shape
        expect(linear.weight, ("I32",), (rows, cols // 16), "compressed-tensors codes")

    def read(self, linear: StoredLinear) -> TernaryTensor:
        weight, (rows, cols) = linear.weight, linear.shape
        if cols % 16:
            raise Unreadable(f"holds rows of {cols} weights, expected whole words of 16", tensor=weight.name)
        scale, shape = linear.parts.get("weight_scale"), linear.parts.get("weight_shape")
        if scale is None or shape is None:
            lacks = "weight_scale" if scale is None else "weight_shape"
            raise Unreadable(f"is packed, but the checkpoint has no {lacks} for it", tensor=weight.name)
        if shape.dtype != "I64" or (said := shape.data.view("<i8").tolist()) != [rows, cols]:
            found = shape.dtype if shape.dtype != "I64" else said
            raise Unreadable(f"is {found}, expected I64 {[rows, cols]}", tensor=shape.name)
        scales = group_scales(linear, scale)
        return TernaryTensor(unpack_words(weight, rows, cols, 2), coarsest_both(scales))

    def for_table(self, weight: StoredTensor) -> Storage | None:
        return TernaryFloats().for_table(weight)

    @classmethod
    def candidates(cls, dtype: str, group_size: int | None) -> list[Storage]:
        if group_size is None:
            return [cls(dtype, group) for group in (0, *GROUP_SIZES)]
        if group_size not in GROUP_SIZES:
            known = ", ".join(map(str, GROUP_SIZES))
            raise UsageError(f"--group-size {group_size} is unknown", hint=f"vLLM has {known}")
        return [cls(dtype, group_size)]

    def nearest_grid(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        if not self.group:
            return scale_blocks[0], 1
        fits = cols // scale_blocks[1] % self.group == 0
        return scale_blocks if fits else (scale_blocks[0], cols // self.group)

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        if self.group and cols % self.group:
            return f"its rows of {cols} weights are not whole groups of {self.group}"
        if rows % 4:  # the next tensor's offset in the file must be a multiple of 8, for torch
            return f"its {rows} rows are not a multiple of 4"
        return LAYOUTS["mlx2"].shape_misfit(rows, cols)

    def written_parts(self, rows: int, cols: int) -> list[Part]:
        groups = cols // self.group if self.group else 1
        return [
            ("weight_packed", "I32", (rows, cols // 16)),
            ("weight_scale", DTYPE_NAMES[self.dtype][0], (rows, groups)),
            ("weight_shape", "I64", (2,)),
        ]

    def write(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        rows, cols = ternary.shape
        scales = stored_scales(ternary, cols // self.group if self.group else 1)
        shape = np.array([rows, cols], "<i8").view(np.uint8)
        return [[LAYOUTS["mlx2"].pack(ternary) + ONE_MORE], [encoded(scales, self.dtype)], [shape]]

    def config(self) -> dict[str, Any]:
        weights = {
            "num_bits": 2,
            "type": "int",
            "symmetric": True,
            "strategy": "group" if self.group else "channel",
            "group_size": self.group or None,
            "dynamic": False,
        }
        linears = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
        return {
            "quant_method": METHOD,
            "format": FORMAT,
            "quantization_status": "compressed",
            "config_groups": {"group_0": linears},
            "ignore": ["lm_head"],
        }


def _check_group(entry: Mapping[str, Any], usual_format: Any) -> None:
    """Raise Unsupported for an entry of config_groups whose weights cannot be ternary, or take other activations."""
    weights = entry.get("weights")
    weights = weights if isinstance(weights, Mapping) else {}
    wanted = {"num_bits": 2, "type": "int", "symmetric": True}
    found = {key: weights.get(key) for key in wanted}
    form = entry.get("format") or usual_format
    if form != FORMAT or found != wanted:
        raise Unsupported(
            f"compressed-tensors weights of format {str(form)[:40]!r} with {str(found)[:80]} are not read",
            hint=f"read are format {FORMAT!r} with {wanted}",
        )
    if entry.get("input_activations") is not None:
        raise Unsupported("compressed-tensors' quantised activations (input_activations) are not run here")

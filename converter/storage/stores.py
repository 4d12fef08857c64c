"""How a checkpoint stores ternary linears: transformers' packed codes, masters for its online mode, plain floats, MLX.

One class a way: which tensors stand for a linear, their data, and what of its scales would be lost.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tritpack.converter.targets.scale_rounding import fold
from tritpack.formats import float_types
from tritpack.formats.arrays import Bytes, Scales
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.ternary import TernaryTensor

F32 = npt.NDArray[np.float32]
DTYPES = {"bfloat16": ("BF16", "bf16"), "float16": ("F16", "f16"), "float32": ("F32", "f32")}
"""As transformers calls them: the spelling of safetensors, and of formats/float_types."""
Part = tuple[str, str, tuple[int, ...]]
"""Suffix in place of `weight`, dtype, shape."""


def held(values: F32, dtype: str) -> F32:
    """The values as dtype holds them."""
    kind = DTYPES[dtype][1]
    if kind == "f32":
        return values
    if kind == "bf16":
        return float_types.widen_bf16(float_types.narrow_bf16(values)).reshape(values.shape)
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def encoded(values: F32, dtype: str) -> Bytes:
    """The bytes of values in dtype, flat."""
    return float_types.encode(DTYPES[dtype][1], values.reshape(1, -1))


@dataclasses.dataclass(frozen=True)
class Store(abc.ABC):
    """dtype: of whatever is float. Scales of `blocks` finer than the store holds are folded."""

    dtype: str
    exact: ClassVar[bool] = True
    """Whether codes and scales come back without a loss."""

    def blocks(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        """The granularity nearest to scale_blocks that it holds."""
        return (1, 1)

    def kept(self, scales: Scales) -> Scales:
        """What a reader makes of the scales as stored."""
        return held(scales, self.dtype)

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        """Why a matrix of this shape cannot be stored, or None."""
        return None

    def prepared(self, ternary: TernaryTensor) -> TernaryTensor:
        """The tensor with scales that are held exactly; the same object if it has such already."""
        blocks = self.blocks(*ternary.shape, ternary.scale_blocks)
        scales = ternary.scales if blocks == ternary.scale_blocks else fold(ternary, blocks)
        kept = self.kept(scales)
        return ternary if np.array_equal(kept, ternary.scales) else TernaryTensor(ternary.codes, kept)

    @abc.abstractmethod
    def parts(self, rows: int, cols: int) -> list[Part]:
        """The tensors of one linear."""

    @abc.abstractmethod
    def data(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        """The bytes of each of them, in pieces."""

    @abc.abstractmethod
    def config(self) -> dict[str, Any]:
        """What config.json says of it."""


@dataclasses.dataclass(frozen=True)
class Packed(Store):
    """transformers' offline form. divides: weight_scale is the reciprocal (`bitlinear`), as in Falcon3."""

    divides: bool = False

    def kept(self, scales: Scales) -> Scales:
        if not self.divides:
            return held(scales, self.dtype)
        with np.errstate(divide="ignore", over="ignore"):
            return np.float32(1) / held(np.float32(1) / scales, self.dtype)

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return LAYOUTS["hf_u8"].shape_misfit(rows, cols)

    def parts(self, rows: int, cols: int) -> list[Part]:
        return [("weight", "U8", (rows // 4, cols)), ("weight_scale", DTYPES[self.dtype][0], (1,))]

    def data(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        scale = np.float32(1) / ternary.scales if self.divides else ternary.scales
        return [[LAYOUTS["hf_u8"].pack(ternary)], [encoded(scale, self.dtype)]]

    def config(self) -> dict[str, Any]:
        linear_class = "bitlinear" if self.divides else "autobitlinear"
        return {
            "quant_method": "bitnet",
            "linear_class": linear_class,
            **({} if self.divides else {"quantization_mode": "offline"}),
        }


@dataclasses.dataclass(frozen=True)
class Online(Store):
    """Masters of +-scale / p, p the share of non-zeros: transformers takes absmean again, and their mean magnitude is
    the scale. Codes come back exactly, scales as far as the mean of rounded values goes."""

    exact = False

    def kept(self, scales: Scales) -> Scales:
        return scales

    def parts(self, rows: int, cols: int) -> list[Part]:
        return [("weight", DTYPES[self.dtype][0], (rows, cols))]

    def data(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        share = np.count_nonzero(ternary.codes) / ternary.codes.size
        master = np.float32(float(ternary.scales[0, 0]) / share) if share else np.float32(0)
        return [_floats(TernaryTensor(ternary.codes, np.array([[master]], np.float32)), self.dtype)]

    def config(self) -> dict[str, Any]:
        return {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}


@dataclasses.dataclass(frozen=True)
class Floats(Store):
    """Ternary values as plain floats: what models with float activations are."""

    def blocks(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        return scale_blocks

    def parts(self, rows: int, cols: int) -> list[Part]:
        return [("weight", DTYPES[self.dtype][0], (rows, cols))]

    def data(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        return [_floats(ternary, self.dtype)]

    def config(self) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class Mlx(Store):
    """MLX affine 2-bit, packed by formula: w = scale * code + bias with bias = -scale, groups of `group` columns."""

    group: int = 64

    def blocks(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        fits = cols // scale_blocks[1] % self.group == 0
        return scale_blocks if fits else (scale_blocks[0], cols // self.group)

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return f"rows of {cols} weights are no groups of {self.group}" if cols % self.group else None

    def parts(self, rows: int, cols: int) -> list[Part]:
        scales = (DTYPES[self.dtype][0], (rows, cols // self.group))
        return [("weight", "U32", (rows, cols // 16)), ("scales", *scales), ("biases", *scales)]

    def data(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        rows, cols = ternary.shape
        scales = np.repeat(ternary.scales, rows // len(ternary.scales), axis=0)
        scales = np.repeat(scales, cols // self.group // scales.shape[1], axis=1)
        return [[LAYOUTS["mlx2"].pack(ternary)], [encoded(scales, self.dtype)], [encoded(-scales, self.dtype)]]

    def config(self) -> dict[str, Any]:
        return {"group_size": self.group, "bits": 2}


def _floats(ternary: TernaryTensor, dtype: str) -> Iterator[Bytes]:
    rows, cols = ternary.shape
    scales = np.repeat(ternary.scales, rows // len(ternary.scales), axis=0)
    step = max(1, (16 << 20) // cols)
    for first in range(0, rows, step):
        part = slice(first, first + step)
        values = TernaryTensor(ternary.codes[part], scales[part]).dequantize()
        yield encoded(values + np.float32(0), dtype)  # no minus zeros

"""How checkpoints store a linear, one function per way: master weights, packed codes, ternary floats, MLX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tritpack.formats.ternary import TernaryTensor

Rng = np.random.Generator
Entry = tuple[str, list[int], bytes]
Stored = tuple[dict[str, Entry], TernaryTensor]
Store = Callable[[Rng, str, tuple[int, int]], Stored]
"""(random numbers, module name, (rows, cols)) -> what is stored under the module by suffix, and what it means."""


# -- floats ------------------------------------------------------------------------------------------------------------


def bf16_bits(values: Any) -> np.ndarray:
    """Nearest bfloat16, ties to even, as uint16."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def bf16(values: Any) -> np.ndarray:
    """float32 rounded to bfloat16."""
    return (bf16_bits(values).astype(np.uint32) << 16).view(np.float32)


def entry(values: Any, dtype: str) -> Entry:
    """A tensor of a safetensors file, its values rounded to dtype."""
    array = np.asarray(values, np.float32)
    raw = bf16_bits(array) if dtype == "BF16" else array.astype({"F16": "<f2", "F32": "<f4"}[dtype])
    return dtype, list(array.shape), raw.tobytes()


def values_of(stored: Entry) -> np.ndarray:
    """float32 of a float tensor of a safetensors file."""
    dtype, shape, raw = stored
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32).reshape(shape)


def rounded(values: Any, dtype: str) -> np.ndarray:
    return values_of(entry(values, dtype))


# -- how linears are stored --------------------------------------------------------------------------------------------


def _random_masters(rng: Rng, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(0, rng.uniform(0.03, 0.08), shape).astype(np.float32)


def _absmean(masters: np.ndarray) -> TernaryTensor:
    mean = max(np.float32(np.abs(masters).mean(dtype=np.float64)), np.float32(1e-5))
    return TernaryTensor.per_tensor(np.clip(np.rint(masters * (np.float32(1) / mean)), -1, 1).astype(np.int8), mean)


def master_weights(dtype: str) -> Store:
    """Float master weights, which the model quantises at each call."""

    def store(rng: Rng, module: str, shape: tuple[int, int]) -> Stored:
        masters = rounded(_random_masters(rng, shape), dtype)
        return {"weight": entry(masters, dtype)}, _absmean(masters)

    return store


def quarters(codes: np.ndarray) -> Entry:
    """transformers' packing: four codes to a byte, a quarter of the rows apart."""
    rows, cols = codes.shape
    parts = (codes + 1).astype(np.uint8).reshape(4, rows // 4, cols)
    return "U8", [rows // 4, cols], (parts << np.arange(0, 8, 2, np.uint8)[:, None, None]).sum(0, np.uint8).tobytes()


def packed(*, divides: bool, in_bf16: bool = False, zero: tuple[str, ...] = ()) -> Store:
    """uint8 codes and a bf16 weight_scale: the absmean, or where it divides its reciprocal.

    in_bf16: every step is rounded, as in onebitllms. zero: modules that hold nothing but zeros.
    """

    def store(rng: Rng, module: str, shape: tuple[int, int]) -> Stored:
        masters = bf16(_random_masters(rng, shape)) * (not module.endswith(zero) if zero else 1)
        if in_bf16:
            reciprocal = bf16(1 / bf16(np.abs(masters).mean(dtype=np.float32)))
            codes = np.clip(np.rint(bf16(masters * reciprocal)), -1, 1).astype(np.int8)
            stored = np.float32(reciprocal)
        else:
            codes, mean = (made := _absmean(masters)).codes, made.scales[0, 0]
            stored = np.float32(bf16(np.float32(1) / mean if divides else mean))
        parts = {"weight": quarters(codes), "weight_scale": entry([stored], "BF16")}
        return parts, TernaryTensor.per_tensor(codes, np.float32(1) / stored if divides else stored)

    return store


def _ternary(rng: Rng, shape: tuple[int, int], blocks: tuple[int, int], dtype: str) -> TernaryTensor:
    codes = rng.integers(-1, 2, shape).astype(np.int8)
    return TernaryTensor(codes, rounded(rng.uniform(0.03, 0.08, blocks), dtype))


def ternary_floats(dtype: str, blocks: Callable[[str, tuple[int, int]], tuple[int, int]] = lambda *_: (1, 1)) -> Store:
    """Floats that are ternary already. blocks: how many scales along the rows and the columns of a module's matrix."""

    def store(rng: Rng, module: str, shape: tuple[int, int]) -> Stored:
        made = _ternary(rng, shape, blocks(module, shape), dtype)
        return {"weight": entry(made.dequantize(), dtype)}, made

    return store


def by_group(size: int) -> Callable[[str, tuple[int, int]], tuple[int, int]]:
    return lambda module, shape: (shape[0], shape[1] // size)


def by_shard(count: int) -> Callable[[str, tuple[int, int]], tuple[int, int]]:
    """TriLM's model parallelism: o and down are cut along their inputs, the others along their outputs."""
    return lambda module, shape: (1, count) if module.endswith(("o_proj", "down_proj")) else (count, 1)


def mlx(group: int) -> Store:
    """MLX affine 2-bit: 16 codes to a uint32, the lowest bits first, w = scale * q + bias with bias = -scale."""

    def store(rng: Rng, module: str, shape: tuple[int, int]) -> Stored:
        made = _ternary(rng, shape, (shape[0], shape[1] // group), "F16")
        fields = (made.codes + 1).astype(np.uint32).reshape(shape[0], -1, 16) << np.arange(0, 32, 2, np.uint32)
        weight = "U32", [shape[0], shape[1] // 16], fields.sum(-1).astype("<u4").tobytes()
        return {"weight": weight, "scales": entry(made.scales, "F16"), "biases": entry(-made.scales, "F16")}, made

    return store

"""What all ways of storing ternary linears have in common.

A storage is one class: it recognises itself in a config.json, checks the headers of a linear, reads its codes and
scales, and writes them again.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from tritpack.converter.storage.row_reader import RowReader
from tritpack.formats import float_types
from tritpack.formats.arrays import F32, Bytes, Scales
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.safetensors_reader import FLOATS, StoredTensor
from tritpack.formats.ternary import TernaryTensor

DTYPE_NAMES = {"bfloat16": ("BF16", "bf16"), "float16": ("F16", "f16"), "float32": ("F32", "f32")}
"""By transformers' name of a float type: safetensors' name, and ours."""
PIECE = 1 << 22
"""Elements that are widened to float32 at a time."""
Part = tuple[str, str, tuple[int, ...]]
"""A tensor to be written: the suffix in place of `weight`, the dtype in safetensors' spelling, the shape."""
FloatKind = Literal["ternary_floats", "master_weights"]
"""What plain floats are, in a checkpoint whose config.json has no quantization_config."""


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What is said about the linears of a checkpoint before any of them is read.

    quantization: the quantization_config of config.json, or None. floats: what plain floats are in this family.
    quantize: the argument of --quantize, or None.
    """

    quantization: Mapping[str, Any] | None
    floats: FloatKind
    quantize: str | None

    def bitnet_linears(self) -> tuple[str, str] | None:
        """Return (linear_class, quantization_mode) of transformers' BitNet linears; None for other quantisations.

        Raises Unsupported for values that transformers does not have.
        """
        if self.quantization is None or self.quantization.get("quant_method") != "bitnet":
            return None
        linear_class = self.quantization.get("linear_class", "bitlinear")
        mode = self.quantization.get("quantization_mode", "offline")
        if linear_class not in ("bitlinear", "autobitlinear"):
            raise Unsupported(f"quantization_config.linear_class {linear_class!r} is unknown")
        if mode not in ("offline", "online"):
            raise Unsupported(f"quantization_config.quantization_mode {mode!r} is unknown")
        return linear_class, mode


@dataclasses.dataclass(frozen=True)
class StoredLinear:
    """The tensors that stand for one linear of a checkpoint.

    shape: (rows, cols) of the linear, whatever the shape of `weight`. parts: the tensors beside `weight`, by suffix.
    """

    weight: StoredTensor
    shape: tuple[int, int]
    parts: Mapping[str, StoredTensor]

    @property
    def name(self) -> str:
        return self.weight.name


@dataclasses.dataclass(frozen=True)
class Written:
    """What of codes and scales one way of writing ternary linears keeps.

    name: what users call it. exact: what is written comes back without a loss. dtype: the float type to write.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True

    dtype: str = "float32"

    @classmethod
    def candidates(cls, dtype: str, group_size: int | None) -> Sequence[Written]:
        """Return the ways to write with this float type, the preferred one first.

        group_size: of MLX, or None for the largest that fits. Raises UsageError for one that does not exist.
        """
        return [cls(dtype)]

    def nearest_grid(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        """Return the (row_blocks, col_blocks) nearest to scale_blocks that can be written."""
        return (1, 1)

    def held_scales(self, scales: Scales) -> Scales:
        """Return what a reader makes of the scales once they are written."""
        return held(scales, self.dtype)

    def scales_misfit(self, scales: Scales) -> str | None:
        """Return why scales do not come back exactly, or None."""
        kept = self.held_scales(scales)
        if np.array_equal(kept, scales):
            return None
        place = np.unravel_index(int((kept != scales).argmax()), scales.shape)
        return f"the scale {scales[place]:.9g} would become {kept[place]:.9g} in {self.name} {self.dtype}"

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        """Return why a matrix of this shape cannot be written, or None."""
        return None


@dataclasses.dataclass(frozen=True)
class Storage(Written, abc.ABC):
    """One way of storing ternary linears.

    key: its name in `checkpoints:` of the families' YAML. recorded: its name in the metadata of GGUF files.
    description: what is stored, for `tritpack families`. int8_activations: whether such linears take int8 activations;
    otherwise the family says what they take. one_scale: every linear has one scale. weight_part: what the tensor of the
    codes is called, in place of `weight`.
    """

    key: ClassVar[str]
    recorded: ClassVar[str]
    description: ClassVar[str]
    int8_activations: ClassVar[bool]
    one_scale: ClassVar[bool] = False
    weight_part: ClassVar[str] = "weight"

    # -- recognising and reading ---------------------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def recognise(cls, declared: Declaration) -> tuple[Storage, str] | None:
        """Return the storage and the evidence in words, or None if the declaration speaks of another.

        Raises Unsupported for a variant that is not read.
        """

    @abc.abstractmethod
    def check(self, linear: StoredLinear) -> None:
        """Check shapes and dtypes from the headers. Raises Unreadable or Unsupported with the tensor's name."""

    @abc.abstractmethod
    def read(self, linear: StoredLinear) -> TernaryTensor | None:
        """Return codes and scales, rows as stored; None for floats that are not ternary.

        Raises Unreadable or Unsupported with the tensor's name.
        """

    def row_reader(self, linear: StoredLinear) -> RowReader | None:
        """Return what decodes the linear block by block; None if only the whole tensor can be decoded."""
        return None

    def scales(self, linear: StoredLinear) -> Scales:
        """Return the scales, float32 (row_blocks, col_blocks), rows as stored, with as little reading as that takes."""
        ternary = self.read(linear)
        if ternary is None:
            raise self.not_ternary(linear)
        return ternary.scales

    def not_ternary(self, linear: StoredLinear) -> Unsupported:
        """Return the refusal of a linear for which `read` returns None."""
        return Unsupported("is not ternary", tensor=linear.name)

    def for_table(self, weight: StoredTensor) -> Storage | None:
        """Return how an embedding or head is stored in such a checkpoint, if it may be ternary."""
        return None

    # -- writing -------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def written_parts(self, rows: int, cols: int) -> list[Part]:
        """Return the tensors of one linear."""

    @abc.abstractmethod
    def write(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        """Return the bytes of each of these tensors, in pieces."""

    @abc.abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the quantization_config of config.json; {} for none."""


# -- helpers -----------------------------------------------------------------------------------------------------------


def held(values: F32, dtype: str) -> F32:
    """Return the values as dtype holds them."""
    kind = DTYPE_NAMES[dtype][1]
    if kind == "f32":
        return values
    if kind == "bf16":
        return float_types.widen_bf16(float_types.narrow_bf16(values)).reshape(values.shape)
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def encoded(values: F32, dtype: str) -> Bytes:
    """Return the bytes of values in dtype, flat."""
    return float_types.encode(DTYPE_NAMES[dtype][1], values.reshape(1, -1))


def float_pieces(ternary: TernaryTensor, dtype: str) -> Iterator[Bytes]:
    """Yield codes times scales as bytes of dtype, some rows at a time."""
    rows, cols = ternary.shape
    scales = np.repeat(ternary.scales, rows // len(ternary.scales), axis=0)
    step = max(1, (16 << 20) // cols)
    for first in range(0, rows, step):
        part = slice(first, first + step)
        values = TernaryTensor(ternary.codes[part], scales[part]).dequantize()
        yield encoded(values + np.float32(0), dtype)  # no minus zeros


def spans(rows: int, cols: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of consecutive rows, PIECE elements at a time."""
    step = max(1, PIECE // max(cols, 1))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def expect(weight: StoredTensor, dtypes: Iterable[str], shape: tuple[int, ...], storage: str) -> None:
    """Raise Unsupported for another dtype and Unreadable for another shape."""
    if weight.dtype not in dtypes:
        wanted = " or ".join(dtypes)
        raise Unsupported(f"is stored as {weight.dtype}, expected {wanted} for {storage}", tensor=weight.name)
    if weight.shape != shape:
        raise Unreadable(f"has shape {list(weight.shape)}, expected {list(shape)}", tensor=weight.name)


def expect_floats(linear: StoredLinear, storage: str) -> None:
    """Raise Unsupported or Unreadable unless the weight holds one float per weight of the linear."""
    if linear.weight.dtype == "U8":
        raise Unsupported(
            "is packed (U8), but no quantization_config in config.json says whether its weight_scale multiplies or "
            "divides, which cannot be guessed",
            tensor=linear.name,
        )
    expect(linear.weight, FLOATS, linear.shape, storage)

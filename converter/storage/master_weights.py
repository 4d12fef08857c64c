"""Float master weights, which transformers' online BitNet linears quantise by absmean at each call."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tritpack.converter.storage.row_reader import RowReader
from tritpack.converter.storage.storage import (
    DTYPE_NAMES,
    Declaration,
    Part,
    Storage,
    StoredLinear,
    expect_floats,
    float_pieces,
    spans,
)
from tritpack.converter.storage.ternary_floats import recover
from tritpack.formats.absmean import FLOOR, abs_sums, codes_of, scale_of
from tritpack.formats.arrays import F64, Bytes, Codes, Scales
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.safetensors_reader import FLOATS, StoredTensor
from tritpack.formats.ternary import TernaryTensor


@dataclasses.dataclass(frozen=True)
class MasterWeights(Storage):
    """Master weights, quantised once by absmean.

    When exporting, each weight that is not zero is written as +-scale / p (p: the share of codes that are not zero), so
    that the absmean of the written weights is the scale again. Codes come back exactly, and the scale comes back up to
    the rounding of the written dtype.
    """

    name = "master_weights"
    key = "master_weights"
    recorded = "online"
    description = "float master weights, quantised once by absmean"
    int8_activations = True
    one_scale = True
    exact = False

    @classmethod
    def recognise(cls, declared: Declaration) -> tuple[Storage, str] | None:
        if declared.bitnet_linears() == ("autobitlinear", "online"):
            told = "quant_method bitnet, linear_class autobitlinear, mode online"
            return cls(), f"{told}: float master weights, absmean"
        if declared.quantization is None and declared.floats == cls.name:
            return cls(), "tensor names, float master weights, absmean"
        return None

    def check(self, linear: StoredLinear) -> None:
        if linear.weight.dtype == "U8" or "weight_scale" in linear.parts:
            raise Unsupported(
                "is packed or has a weight_scale, and quantization_mode online means float master weights without one",
                tensor=linear.name,
            )
        expect_floats(linear, "master weights")

    def read(self, linear: StoredLinear) -> TernaryTensor:
        return absmean(linear.weight)

    def row_reader(self, linear: StoredLinear) -> RowReader:
        return _AbsmeanRows(linear)

    def scales(self, linear: StoredLinear) -> Scales:
        return np.array([[absmean_scale(linear.weight)]], np.float32)

    def held_scales(self, scales: Scales) -> Scales:
        return scales

    def scales_misfit(self, scales: Scales) -> str | None:
        if float(scales.min()) < FLOOR:
            return f"the scale {scales.min():.3g} is below {FLOOR:g}, the smallest that absmean gives"
        if self.dtype != "float32":
            return f"{self.name} {self.dtype} rounds scales, a relative change of about {2.0**-9:.0e}"
        return None

    def written_parts(self, rows: int, cols: int) -> list[Part]:
        return [("weight", DTYPE_NAMES[self.dtype][0], (rows, cols))]

    def write(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        share = np.count_nonzero(ternary.codes) / ternary.codes.size
        magnitude = np.float32(float(ternary.scales[0, 0]) / share) if share else np.float32(0)
        return [float_pieces(TernaryTensor.per_tensor(ternary.codes, magnitude), self.dtype)]

    def config(self) -> dict[str, Any]:
        return {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}


@dataclasses.dataclass(frozen=True)
class PlainFloats(MasterWeights):
    """Plain floats that nothing declares: master weights because the user says so with --quantize absmean."""

    key = "plain_floats"
    recorded = "absmean"
    description = "plain floats: refused without --quantize absmean, which takes them for master weights"

    @classmethod
    def recognise(cls, declared: Declaration) -> tuple[Storage, str] | None:
        if declared.quantization is not None or declared.quantize != "absmean":
            return None
        return cls(), "no quantization_config, plain floats taken for master weights by --quantize absmean"

    def check(self, linear: StoredLinear) -> None:
        expect_floats(linear, "master weights")

    def refuse_ternary(self, linear: StoredLinear) -> None:
        """Raise Unsupported if the floats are ternary already: zeros would make the scale of absmean too small."""
        if recover(linear.weight) is not None:
            raise Unsupported(
                "is ternary already, so --quantize absmean would spoil its scale",
                tensor=linear.name,
                hint="leave --quantize out: the codes and scales are recovered exactly",
            )


class _AbsmeanRows(RowReader):
    """Rows of master weights. The scale is a mean over all of them, so every block is looked at before the first is
    quantised."""

    looks_first = True

    def __init__(self, linear: StoredLinear) -> None:
        self._weight = linear.weight
        self._sums: dict[int, F64] = {}
        self._scale: np.float32 | None = None
        self.row_nbytes = linear.shape[1] * FLOATS[linear.weight.dtype]

    def look(self, first: int, data: Bytes) -> None:
        self._sums[first] = abs_sums(*_block(self._weight.some_rows(data)))

    def scales(self) -> Scales:
        if self._scale is None:
            self._scale = _scale(list(self._sums.values()), self._weight)
        return np.array([[self._scale]], np.float32)

    def codes(self, first: int, data: Bytes) -> Iterator[tuple[int, Codes]]:
        yield first, codes_of(*_block(self._weight.some_rows(data)), self.scales()[0, 0])


def absmean(weight: StoredTensor) -> TernaryTensor:
    """Return the codes and the scale that absmean gives. Raises Unreadable as `absmean_scale` does."""
    rows, cols = weight.shape
    scale = absmean_scale(weight)
    codes = np.empty((rows, cols), np.int8)
    for first, last in spans(rows, cols):
        codes_of(*_block(weight, first, last), scale, codes[first:last])
    return TernaryTensor.per_tensor(codes, scale)


def absmean_scale(weight: StoredTensor) -> np.float32:
    """Return max(mean|w|, 1e-5). Raises Unreadable for values that are not finite.

    Each row is added in float64 in a fixed order, the rows exactly, and the mean is rounded once. So the scale does not
    depend on how a tensor is cut into blocks, on the number of threads or on the CPU.
    """
    return _scale([abs_sums(*_block(weight, *span)) for span in spans(*weight.shape)], weight)


def _scale(sums: list[F64], weight: StoredTensor) -> np.float32:
    """Return the scale by the sums of all rows."""
    rows, cols = weight.shape
    scale = scale_of(np.concatenate(sums), rows * cols)
    if scale is None:
        raise Unreadable("holds a value that is not finite", tensor=weight.name)
    return scale


def _block(weight: StoredTensor, first: int = 0, last: int | None = None) -> tuple[str, Bytes, int, int]:
    """Return the type, the bytes and the shape of rows [first, last); of all, if none are given."""
    bits = weight.rows_bits(first, weight.rows if last is None else last)
    return weight.dtype.lower(), bits.reshape(-1).view(np.uint8), *bits.shape

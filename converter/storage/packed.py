"""transformers' offline BitNet linears: four codes per byte (`weight`) and one scale (`weight_scale`).

Formulas: BitLinear and AutoBitLinear of transformers' BitNet integration.
"""

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
    encoded,
    expect,
    held,
    spans,
)
from tritpack.formats.arrays import Bytes, Codes, Scales
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.safetensors_reader import FLOATS, StoredTensor
from tritpack.formats.ternary import TernaryTensor


@dataclasses.dataclass(frozen=True)
class Packed(Storage):
    """Packed codes and a weight_scale. divides: the scale is the reciprocal (linear_class `bitlinear`, as in Falcon3).

    A checkpoint may also hold codes that are not packed: a float weight of -1, 0 and 1 beside its weight_scale.
    """

    name = "packed"
    key = "packed"
    recorded = "packed"
    description = "packed uint8 codes and a weight_scale"
    int8_activations = True
    one_scale = True

    divides: bool = False

    @classmethod
    def recognise(cls, declared: Declaration) -> tuple[Storage, str] | None:
        linears = declared.bitnet_linears()
        if linears is None or linears == ("autobitlinear", "online"):
            return None
        linear_class, mode = linears
        divides = linear_class == "bitlinear"
        scale = "weight_scale divides" if divides else "weight_scale multiplies"
        return cls(divides=divides), f"quant_method bitnet, linear_class {linear_class}, mode {mode}: {scale}"

    def check(self, linear: StoredLinear) -> None:
        weight, (rows, cols) = linear.weight, linear.shape
        if weight.dtype not in FLOATS:
            if rows % 4:
                raise Unsupported(f"has {rows} output rows, which is not a multiple of 4", tensor=weight.name)
            expect(weight, ("U8",), (rows // 4, cols), "packed codes")
            return
        if "weight_scale" not in linear.parts:
            raise Unsupported(
                f"is {weight.dtype} in a packed checkpoint, expected U8 (or unpacked codes beside a weight_scale)",
                tensor=weight.name,
            )
        expect(weight, FLOATS, linear.shape, "unpacked codes")

    def read(self, linear: StoredLinear) -> TernaryTensor:
        weight, (rows, cols) = linear.weight, linear.shape
        multiplier = self._multiplier(linear)
        if weight.dtype in FLOATS:
            return TernaryTensor.per_tensor(_unpacked_codes(weight), multiplier)
        layout = LAYOUTS["hf_u8"]
        if problems := layout.check(weight.data, rows, cols):
            raise Unreadable(problems[0], tensor=weight.name)
        return TernaryTensor.per_tensor(layout.unpack(weight.data, rows, cols).codes, multiplier)

    def row_reader(self, linear: StoredLinear) -> RowReader:
        return _UnpackedRows(self, linear) if linear.weight.dtype in FLOATS else _PackedRows(self, linear)

    def scales(self, linear: StoredLinear) -> Scales:
        return np.array([[self._multiplier(linear)]], np.float32)

    def _multiplier(self, linear: StoredLinear) -> np.float32:
        scale = linear.parts.get("weight_scale")
        if scale is None:
            raise Unreadable(f"is packed, but the checkpoint has no {linear.name}_scale", tensor=linear.name)
        if int(np.prod(scale.shape, dtype=np.int64)) != 1:
            raise Unreadable(f"has shape {list(scale.shape)}, expected one element", tensor=scale.name)
        stored = np.float32(scale.rows_f32(0, 1).reshape(-1)[0])
        if not np.isfinite(stored) or stored <= 0:
            raise Unreadable(f"is {stored}, expected a positive number", tensor=scale.name)
        with np.errstate(over="ignore"):
            multiplier = np.float32(1) / stored if self.divides else stored
        if not np.isfinite(multiplier):
            raise Unreadable(f"is {stored}, too small to divide by", tensor=scale.name)
        return multiplier

    @classmethod
    def candidates(cls, dtype: str, group_size: int | None) -> list[Storage]:
        return [cls(dtype), cls(dtype, divides=True)]

    def held_scales(self, scales: Scales) -> Scales:
        if not self.divides:
            return held(scales, self.dtype)
        with np.errstate(divide="ignore", over="ignore"):
            return np.float32(1) / held(np.float32(1) / scales, self.dtype)

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        return LAYOUTS["hf_u8"].shape_misfit(rows, cols)

    def written_parts(self, rows: int, cols: int) -> list[Part]:
        return [("weight", "U8", (rows // 4, cols)), ("weight_scale", DTYPE_NAMES[self.dtype][0], (1,))]

    def write(self, ternary: TernaryTensor) -> list[Iterable[Bytes]]:
        scale = np.float32(1) / ternary.scales if self.divides else ternary.scales
        return [[LAYOUTS["hf_u8"].pack(ternary)], [encoded(scale, self.dtype)]]

    def config(self) -> dict[str, Any]:
        if self.divides:
            return {"quant_method": "bitnet", "linear_class": "bitlinear"}
        return {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}


class _PackedRows(RowReader):
    """Rows of packed codes: one byte holds the codes of four rows, a quarter of the matrix apart."""

    groups = 4

    def __init__(self, storage: Packed, linear: StoredLinear) -> None:
        self._storage, self._linear = storage, linear
        self.row_nbytes = linear.shape[1]

    def scales(self) -> Scales:
        return self._storage.scales(self._linear)

    def codes(self, first: int, data: Bytes) -> Iterator[tuple[int, Codes]]:
        layout, (rows, cols) = LAYOUTS["hf_u8"], self._linear.shape
        count = data.size // cols
        codes = layout.codes_of(data, 4 * count, cols)
        if layout.count_illegal(data, 4 * count, cols):
            place = int((codes == 2).argmax())
            row = place // cols // count * (rows // 4) + first + place // cols % count
            what = f"code 3 at row {row}, column {place % cols}; only 0, 1, 2 are legal"
            raise Unreadable(what, tensor=self._linear.name)
        for plane in range(4):
            yield plane * (rows // 4) + first, codes[plane * count : (plane + 1) * count]


class _UnpackedRows(RowReader):
    """Rows of floats that are -1, 0 and 1."""

    def __init__(self, storage: Packed, linear: StoredLinear) -> None:
        self._storage, self._linear = storage, linear
        self.row_nbytes = linear.shape[1] * FLOATS[linear.weight.dtype]

    def scales(self) -> Scales:
        return self._storage.scales(self._linear)

    def codes(self, first: int, data: Bytes) -> Iterator[tuple[int, Codes]]:
        yield first, _unpacked_codes(self._linear.weight.some_rows(data))


def _unpacked_codes(weight: StoredTensor) -> Codes:
    codes = np.empty(weight.shape, np.int8)
    for first, last in spans(*weight.shape):
        values = weight.rows_f32(first, last)
        if not np.isin(values, (-1, 0, 1)).all():
            raise Unreadable(
                f"is stored as {weight.dtype} beside a weight_scale, but holds other values than -1, 0 and 1",
                tensor=weight.name,
            )
        codes[first:last] = values
    return codes

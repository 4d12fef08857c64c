"""Packing of numpy arrays in a layout's bytes, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritpack.converter.storage.ternary_floats import describe_misfit, recover
from tritpack.converter.targets import scale_rounding
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.safetensors_reader import BytesInMemory, StoredTensor
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime import packers


def pack(
    array: TernaryTensor | npt.NDArray[np.generic],
    layout: str,
    allow_scale_rounding: bool = False,
    *,
    scales: npt.ArrayLike | None = None,
) -> Bytes:
    """Pack a ternary matrix, and return the bytes of its tensor, uint8 (nbytes,).

    array: a TernaryTensor; or int8 codes (rows, cols) of -1, 0 and 1 with `scales`, a number or (row_blocks,
    col_blocks); or floats (rows, cols) that are ternary already: their codes and scales are recovered exactly.
    allow_scale_rounding: change scales that the layout cannot hold, to float16 or to fewer of them.
    Raises Unsupported for floats that are not ternary, and for a shape or a scale that the layout cannot hold;
    UsageError for an unknown layout or another kind of array; Unreadable for NaN and infinity.
    """
    packer, tensor = _layout(layout), _ternary(array, scales)
    packers.use_c_packers()
    if allow_scale_rounding and packer.holds_scales:
        if scale_rounding.vanishes(tensor, packer):
            raise Unsupported(f"a scale is too small for {layout}: its weights would become zeros")
        tensor = scale_rounding.rounded(tensor, packer)
    return packer.pack(tensor)


def unpack(data: npt.NDArray[np.uint8] | bytes, layout: str, shape: tuple[int, int]) -> TernaryTensor:
    """Unpack the bytes of a tensor of `shape` (rows, cols).

    A layout that stores its scales elsewhere (hf_u8, mlx2) gives a scale of one. Raises Unreadable for bytes that are
    not such a tensor, UsageError for an unknown layout.
    """
    packers.use_c_packers()
    stored = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.asarray(data, np.uint8).reshape(-1)
    rows, cols = shape
    return _layout(layout).unpack(stored, rows, cols)


def _layout(name: str) -> Layout:
    if name not in catalog.LAYOUTS:
        raise UsageError(f"layout {name!r} is unknown", hint=f"choose one of: {', '.join(catalog.LAYOUTS)}")
    return catalog.LAYOUTS[name]


def _ternary(array: TernaryTensor | npt.NDArray[np.generic], scales: npt.ArrayLike | None) -> TernaryTensor:
    is_codes = not isinstance(array, TernaryTensor) and np.asarray(array).dtype == np.int8
    if is_codes != (scales is not None):
        raise UsageError("scales= belongs to int8 codes, and int8 codes need it")
    if isinstance(array, TernaryTensor):
        return array
    matrix = np.ascontiguousarray(array)
    if matrix.ndim != 2 or matrix.size == 0:
        raise UsageError(f"an array of shape {list(matrix.shape)} is not a matrix (rows, cols)")
    return _recovered(matrix) if scales is None else _from_codes(matrix, scales)


def _from_codes(codes: npt.NDArray[np.generic], scales: npt.ArrayLike) -> TernaryTensor:
    multipliers = np.asarray(scales, np.float32)
    if not np.isin(codes, (-1, 0, 1)).all():
        raise UsageError("the codes hold other values than -1, 0 and 1")
    try:
        return TernaryTensor(codes.astype(np.int8), multipliers.reshape(1, 1) if multipliers.size == 1 else multipliers)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _recovered(values: npt.NDArray[np.generic]) -> TernaryTensor:
    if not np.issubdtype(values.dtype, np.floating):
        raise UsageError(f"an array of {values.dtype} is neither int8 codes nor floats")
    with np.errstate(over="ignore"):
        floats = values if values.dtype == np.float16 else values.astype(np.float32)
    if not np.array_equal(floats, values, equal_nan=True):
        raise Unsupported(
            f"the {values.dtype} values are not exact in float32", hint="give float32, or codes and scales"
        )
    dtype, data = ("F16", "<f2") if floats.dtype == np.float16 else ("F32", "<f4")
    stored = floats.astype(data, copy=False).view(np.uint8).reshape(-1)
    weight = StoredTensor("array", dtype, floats.shape, "", 0, stored.nbytes, BytesInMemory(stored))
    tensor = recover(weight)
    if tensor is None:
        raise Unsupported(
            f"the array {describe_misfit(weight).message}", hint="quantise it first, and give int8 codes with scales="
        )
    return tensor

"""Whether every tensor can be decoded, and holds values that a model can have."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tritpack.converter.targets.trained_scales import warn_of_scales
from tritpack.converter.verify.alone.context import AloneContext
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats import float_types
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.integrity import TensorHasher, TensorHashes, recorded_hashes
from tritpack.formats.pieces import pieces_of
from tritpack.runtime.machine import usable_cores

name = "weights"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()

VALUES_AT_ONCE = 1 << 20
"""Floats that are decoded at a time."""


@dataclasses.dataclass
class _Result:
    """What one tensor has shown. row: of the table of ternary tensors, which reports plot. scale: its largest."""

    finding: Finding | None = None
    hashes: TensorHashes | None = None
    row: dict[str, Any] | None = None
    scale: float | None = None


def run(context: AloneContext) -> Rung:
    """Decode every tensor on all cores, and hash those of which the file records a hash."""
    file = context.file
    rung = Rung(name, blames, compares="every tensor of FILE with what its layout allows; values are finite")
    try:
        recorded = recorded_hashes(file)
    except Unreadable:
        recorded = {}  # the check `structure` reports it
    with ThreadPoolExecutor(usable_cores()) as pool:
        infos = list(file.tensors.values())
        results = dict(zip(infos, pool.map(lambda info: check_tensor(file, info, hashed=info.name in recorded), infos)))
    rung.findings = [result.finding for result in results.values() if result.finding is not None]
    context.hashes = {info.name: result.hashes for info, result in results.items() if result.hashes is not None}
    rows = [result.row for result in results.values() if result.row is not None]
    rung.series = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
    rung.figures = {
        "ternary_tensors": len(rows),
        "ternary_weights": sum(info.rows * info.cols for info, result in results.items() if result.row is not None),
        "bytes": sum(info.nbytes for info in infos),
    }
    scales = {info.name: result.scale for info, result in results.items() if result.scale is not None}
    if (warning := warn_of_scales(scales)) is not None:
        rung.notes.append(warning)
    return rung


def check_tensor(file: GgufFile, info: TensorInfo, *, hashed: bool) -> _Result:
    """Decode one tensor, and look at its values. hashed: hash its bytes and codes too."""
    is_ternary = file.layout_of(info) is not None
    hasher = TensorHasher(has_codes=is_ternary) if hashed else None
    try:
        result = _check_codes(file, info, hasher) if is_ternary else _check_floats(file, info, hasher)
    except TritpackError as error:
        sentence = f"tensor {info.name!r}: {error.without_path.removeprefix(f'tensor {info.name!r}: ')}"
        return _Result(Finding(Kind.TENSOR_INVALID, sentence, info.name))
    finally:
        file.release(info)
    result.hashes = None if hasher is None else hasher.hashes()
    return result


def _check_codes(file: GgufFile, info: TensorInfo, hasher: TensorHasher | None) -> _Result:
    nonzero = 0
    for data, codes in pieces_of(file, info):
        if hasher is not None:
            hasher.add(data, codes)
        nonzero += 0 if codes is None else int(np.count_nonzero(codes))
    scales = file.scales(info)
    part = info.name.removesuffix(".weight")
    row = {"tensor": part, "scale": float(scales.mean()), "zero_share": 1 - nonzero / (info.rows * info.cols)}
    result = _Result(row=row, scale=float(scales.max()))
    if not nonzero:
        result.finding = Finding(Kind.CODES_ZERO, f"tensor {info.name!r}: all of its weights are zero", info.name)
    return result


def _check_floats(file: GgufFile, info: TensorInfo, hasher: TensorHasher | None) -> _Result:
    data = file.bytes_of(info)
    if hasher is not None:
        hasher.add(data, None)
    if info.layout not in FLOAT_TYPES or 0 in info.shape:
        return _Result()  # the check `structure` reports a type that no model here can have
    row_bytes, step = info.nbytes // info.rows, max(1, VALUES_AT_ONCE // info.cols)
    used = False
    for first in range(0, info.rows, step):
        last = min(first + step, info.rows)
        with np.errstate(all="ignore"):
            piece = data[first * row_bytes : last * row_bytes]
            values = float_types.decode_rows(info.layout, piece, last - first, info.cols)
        if not np.isfinite(values).all():
            row, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            place = f"[{first + row}, {column}]" if len(info.shape) > 1 else f"{column}"
            sentence = f"tensor {info.name!r}: the value at {place} is not a finite number"
            return _Result(Finding(Kind.NOT_FINITE, sentence, info.name))
        used = used or bool(values.any())
    if not used:
        return _Result(Finding(Kind.TABLE_ZERO, f"tensor {info.name!r}: all of its values are zero", info.name))
    return _Result()

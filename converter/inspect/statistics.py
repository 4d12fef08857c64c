"""What `inspect --stats` says of tensors: figures of the codes, and whether they are as the file records them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tritpack.formats.arrays import Codes
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.integrity import TensorHasher, TensorHashes, difference
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.pieces import pieces_of
from tritpack.formats.ternary import TernaryTensor, entropy_bits, granularity
from tritpack.runtime.machine import usable_cores

Counts = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class TensorStatistics:
    """figures: of a ternary tensor, as JSON has them; {} for floats. damage: why nobody should use the tensor, or None.
    intact: whether it is as the file records it; None if the file records nothing of it. threes: codes that are 3."""

    figures: dict[str, Any]
    damage: str | None = None
    intact: bool | None = None
    threes: int = 0


def statistics(
    file: GgufFile, spec: ModelSpec | None, recorded: Mapping[str, TensorHashes]
) -> dict[str, TensorStatistics]:
    """Decode every ternary tensor and hash every one of which a hash is recorded, on all cores. By name."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        results = pool.map(lambda tensor: _statistics(file, tensor, spec, recorded.get(tensor.name)), _by_size(file))
        by_name = {tensor.name: result for tensor, result in zip(_by_size(file), results)}
    return {name: by_name[name] for name in file.tensors}


def _by_size(file: GgufFile) -> list[TensorInfo]:
    """The tensors of a file, the largest first: no core waits long for the last one."""
    return sorted(file.tensors.values(), key=lambda tensor: -tensor.nbytes)


def _statistics(
    file: GgufFile, tensor: TensorInfo, spec: ModelSpec | None, recorded: TensorHashes | None
) -> TensorStatistics:
    is_ternary = file.layout_of(tensor) is not None
    if not is_ternary and recorded is None:
        return TensorStatistics({})
    try:
        counts, hasher = _Counter(), TensorHasher(has_codes=is_ternary)
        for data, codes in pieces_of(file, tensor):
            hasher.add(data, codes)
            if codes is not None:
                counts.add(codes)
        hashes, figures = hasher.hashes(), {}
        if is_ternary:
            figures = _figures(file.scales(tensor), (tensor.rows, tensor.cols), counts.counts, hashes.codes_sha256)
            figures |= _in_checkpoint_order(file, tensor, spec)
    except Unreadable as error:
        intact = None
        if recorded is not None:
            intact = hashlib.sha256(file.bytes_of(tensor).data).hexdigest() == recorded.sha256
        layout = file.layout_of(tensor)
        threes = layout.threes(file.bytes_of(tensor), tensor.rows, tensor.cols) if layout else 0
        return TensorStatistics({}, error.without_path, intact, threes)
    finally:
        file.release(tensor)
    if recorded is None:
        return TensorStatistics(figures)
    changed = difference(recorded, hashes)
    return TensorStatistics(figures, changed and f"tensor {tensor.name!r}: {changed}", not changed)


class _Counter:
    """Counts codes. counts: how many are -1, 0 and +1."""

    def __init__(self) -> None:
        self.counts: Counts = (0, 0, 0)

    def add(self, codes: Codes) -> None:
        used, plus = int(np.count_nonzero(codes)), int(np.count_nonzero(codes == 1))
        self.counts = self.counts[0] + used - plus, self.counts[1] + codes.size - used, self.counts[2] + plus


def figures_of(name: str, ternary: TernaryTensor, spec: ModelSpec | None) -> dict[str, Any]:
    """Return the figures of a tensor that is decoded as a whole; name: in a GGUF."""
    figures = _figures(ternary.scales, ternary.shape, ternary.counts(), ternary.codes_sha256())
    return figures | _reordered(name, ternary, spec)


def _figures(scales: Any, shape: tuple[int, int], counts: Counts, codes_sha256: str) -> dict[str, Any]:
    return {
        **_scales(scales, ""),
        "granularity": granularity(shape, scales.shape),
        **dict(zip(("minus", "zero", "plus"), (count / (shape[0] * shape[1]) for count in counts))),
        "counts": list(counts),
        "entropy_bits": entropy_bits(counts),
        "codes_sha256": codes_sha256,
    }


def _scales(scales: Any, suffix: str) -> dict[str, Any]:
    """`scale`, or `scales` as rows of blocks: each is the multiplier of its block of the matrix."""
    if scales.size == 1:
        return {f"scale{suffix}": float(scales.item())}
    return {f"scales{suffix}": scales.tolist()}


def _in_checkpoint_order(file: GgufFile, tensor: TensorInfo, spec: ModelSpec | None) -> dict[str, Any]:
    if spec is None or (spec.row_order(tensor.name) is None and spec.column_order(tensor.name) is None):
        return {}
    ternary = file.ternary(tensor)
    assert ternary is not None
    return _reordered(tensor.name, ternary, spec)


def _reordered(name: str, ternary: TernaryTensor, spec: ModelSpec | None) -> dict[str, Any]:
    """The figures in the order of a checkpoint, for tensors whose rows or columns GGUF stores in another one."""
    if spec is None or ternary.shape != spec.tensor_shapes().get(name):
        return {}
    rows, columns = spec.row_order(name), spec.column_order(name)
    if rows is None and columns is None:
        return {}
    back = ternary if rows is None else ternary.with_rows(np.argsort(rows))
    back = back if columns is None else back.with_columns(np.argsort(columns))
    scales = {} if back.scales.size == 1 else _scales(back.scales, "_hf")
    return {"codes_sha256_hf": back.codes_sha256(), **scales}

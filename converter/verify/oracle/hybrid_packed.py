"""A GGUF file of a Qwen3.5 hybrid as the source that another file is held against, in transformers' order of heads.

Its rotation is computed by formats/hadamard.py: like packed.py it is less independent than an oracle of a checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tritpack.converter.verify.oracle.codes import recovered
from tritpack.converter.verify.oracle.hybrid_outputs import HybridOutputs
from tritpack.converter.verify.oracle.packed import Coded, PackedOracle
from tritpack.converter.verify.oracle.rounding import EXACTLY, StoredTypes
from tritpack.converter.verify.oracle.tensors import CHUNK, F32
from tritpack.formats.errors import Unsupported
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.model_spec import HYBRID, TABLES
from tritpack.formats.names import PLAIN_FLOATS
from tritpack.formats.ternary import TernaryTensor


class HybridPacked(HybridOutputs, PackedOracle):
    """A PackedOracle of a hybrid. Raises Unreadable and Unsupported."""

    def __init__(self, path: Path, stored: StoredTypes = EXACTLY) -> None:
        super().__init__(path, stored)
        if self.spec.delta_net is None:
            raise Unsupported(f"architecture {self.spec.architecture!r} is no hybrid", path=path)

    def _array(self, name: str) -> F32:
        """As HybridOutputs has it; matrices that the file holds as floats need not be ternary."""
        info = self.file.tensors[name]
        if name not in self.spec.linear_names() or info.layout not in PLAIN_FLOATS:
            return super()._array(name)
        values = self._floats(info, 0, info.rows)
        for order, axis in ((self.spec.row_order(name), 0), (self.spec.column_order(name), 1)):
            values = values if order is None else np.take(values, np.argsort(order), axis)
        return values

    def norm(self, name: str) -> F32 | None:
        info = next((self.file.tensors[full] for full in (f"{name}.weight", name) if full in self.file.tensors), None)
        if info is None:
            return None
        values: F32 = self._floats(info, 0, 1)[0]
        return values if (order := self.spec.row_order(info.name)) is None else values[np.argsort(order)]

    def original_rows(self, name: str, first: int, last: int) -> F32:
        if (order := self.spec.row_order(f"{name}.weight")) is None:
            return super().original_rows(name, first, last)
        return super().original_rows(name, 0, len(order))[np.argsort(order)][first:last]

    def _coded(self, name: str) -> Coded | None:
        coded = super()._coded(name)
        if coded is None or (order := self.spec.column_order(name)) is None:
            return coded
        ternary = TernaryTensor(*coded).with_columns(np.argsort(order))
        return ternary.codes, ternary.scales

    def _decoded(self, info: TensorInfo) -> TernaryTensor | None:
        if info.layout not in PLAIN_FLOATS or info.name not in self._ternary:
            return super()._decoded(info)
        coded = recovered(_Floats(info.shape, lambda first, last: self._floats(info, first, last)))
        return None if coded is None else TernaryTensor(*coded)

    def _may_recover(self, info: TensorInfo) -> bool:
        return info.layout in PLAIN_FLOATS

    @functools.cached_property
    def _ternary(self) -> frozenset[str]:
        """Matrices that are ternary even where the file holds them as floats: the folded master."""
        return frozenset({*self.spec.linear_names(), *(f"{name}.weight" for name in TABLES)})


def open_packed(path: Path, stored: StoredTypes = EXACTLY) -> PackedOracle:
    """Return the oracle of a GGUF file, of a hybrid or not."""
    is_hybrid = GgufFile(path).metadata.get("general.architecture") == HYBRID
    return HybridPacked(path, stored) if is_hybrid else PackedOracle(path, stored)


@dataclasses.dataclass(frozen=True)
class _Floats:
    """A matrix of floats, decoded some rows at a time. rows: returns those from a first to before a last."""

    shape: tuple[int, ...]
    rows: Callable[[int, int], F32]

    def chunks(self) -> Iterator[F32]:
        step = max(1, CHUNK // self.shape[1])
        return (self.rows(row, min(row + step, self.shape[0])) for row in range(0, self.shape[0], step))

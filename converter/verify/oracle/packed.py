"""A GGUF file as the source that another file is held against: the same reference arithmetic on its decoded tensors.

It is less independent than oracle.py: a checkpoint is read by other code than the converter's, but a packed file
through formats/, which was tested on bytes that the engines wrote.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.rounding import EXACTLY, StoredTypes
from tritpack.formats import float_types, model_metadata
from tritpack.formats.errors import Unreadable, Unsupported, locating
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.model_spec import TABLES
from tritpack.formats.ternary import TernaryTensor

F32 = npt.NDArray[np.float32]
Coded = tuple[npt.NDArray[np.int8], F32]


class PackedOracle(Oracle):
    """An Oracle of a GGUF file instead of a checkpoint folder. Raises Unreadable and Unsupported."""

    def __init__(
        self,
        path: Path,
        stored: StoredTypes = EXACTLY,
    ) -> None:
        self._stored = stored
        self._table: tuple[str, TernaryTensor | None] | None = None
        self.file = GgufFile(path)
        with locating(path=path):
            self.spec = model_metadata.from_gguf(self.file)
        self.unused = self.spec.unknown_tensors(self.file.tensors)
        for name, shape in self.spec.tensor_shapes().items():
            if name not in self.file.tensors:
                raise Unreadable("it is missing", path=path, tensor=name)
            if (found := self.file.tensors[name].shape) != shape:
                raise Unreadable(f"it has shape {list(found)}, expected {list(shape)}", path=path, tensor=name)
        for name in self.spec.linear_names():
            info = self.file.tensors[name]
            if self.file.layout_of(info) is None and not self._may_recover(info):
                message = f"it is stored as {info.layout}, so this is not a ternary model"
                raise Unsupported(message, path=path, tensor=name)

    def has(self, name: str) -> bool:
        return name in self.file.tensors

    def release(self, name: str) -> None:
        if f"{name}.weight" in self.file.tensors:
            self.file.release(self.file.tensors[f"{name}.weight"])

    def norm(self, name: str) -> F32 | None:
        info = self.file.tensors.get(f"{name}.weight")
        return None if info is None else self._floats(info, 0, 1)[0]

    def _linear(self, name: str) -> Coded:
        coded = self._coded(f"{name}.weight")
        if coded is None:
            raise Unsupported(
                "it is not stored in a ternary layout that is read here", path=self.file.path, tensor=name
            )
        return coded

    def linear_rows(self, name: str) -> None:
        return None

    def table_codes(self, name: str) -> Coded | None:
        return self._coded(f"{name}.weight")

    def original_rows(self, name: str, first: int, last: int) -> F32:
        info = self.file.tensors[f"{name}.weight"]
        ternary = self._unpacked(info)
        return self._floats(info, first, last) if ternary is None else _part(ternary, first, last).dequantize()

    def _rows(self, name: str, rows: npt.NDArray[np.int64] | slice) -> F32:
        if isinstance(rows, slice):
            return self.original_rows(name, rows.start, rows.stop)
        by_index = {int(row): self.original_rows(name, int(row), int(row) + 1)[0] for row in np.unique(rows)}
        return np.stack([by_index[int(row)] for row in rows])

    def _coded(self, name: str) -> Coded | None:
        ternary = self._unpacked(self.file.tensors[name])
        if ternary is None:
            return None
        if (order := self.spec.row_order(name)) is not None:
            ternary = ternary.with_rows(np.argsort(order))
        return ternary.codes, ternary.scales

    def _unpacked(self, info: TensorInfo) -> TernaryTensor | None:
        """The tensor if it is ternary. A table is read row by row, so the last one is kept."""
        if info.name.removesuffix(".weight") not in TABLES:
            return self._decoded(info)
        if self._table is None or self._table[0] != info.name:
            self._table = info.name, self._decoded(info)
        return self._table[1]

    def _decoded(self, info: TensorInfo) -> TernaryTensor | None:
        return self.file.ternary(info)

    def _may_recover(self, info: TensorInfo) -> bool:
        """Whether a matrix of floats may hold ternary values, which `_decoded` finds."""
        return False

    def _floats(self, info: TensorInfo, first: int, last: int) -> F32:
        if info.layout not in float_types.FLOAT_TYPES:
            message = f"it is stored as {info.layout}, which is not read here"
            raise Unsupported(message, path=self.file.path_of(info), tensor=info.name)
        width = info.nbytes // info.rows
        return float_types.decode(
            info.layout, self.file.bytes_of(info)[first * width : last * width], last - first, info.cols
        )


def _part(ternary: TernaryTensor, first: int, last: int) -> TernaryTensor:
    scales = np.repeat(ternary.scales, ternary.shape[0] // len(ternary.scales), axis=0)
    return dataclasses.replace(ternary, codes=ternary.codes[first:last], scales=scales[first:last])

"""Where one tensor of the output comes from, and how it becomes codes and scales, or floats, when its turn comes.

The tensors of a checkpoint go through their storage, those of a GGUF file through their layout. The plan asks what a
tensor is and the conversion asks for its data; neither needs to know which kind of source it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tritpack.converter.storage.row_reader import RowReader
from tritpack.converter.storage.storage import Storage, StoredLinear
from tritpack.converter.storage.ternary_floats import describe_misfit, recover
from tritpack.formats import float_types
from tritpack.formats.arrays import F32, Bytes, Scales
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.names import BLOCK_FLOATS, PLAIN_FLOATS
from tritpack.formats.safetensors_reader import FLOATS, BytesInMemory, StoredTensor
from tritpack.formats.ternary import TernaryTensor

PIECE_BYTES = 64 << 20
"""Bytes of float scratch that one piece of a tensor may take."""


@dataclasses.dataclass(frozen=True)
class ScaleGrid:
    """How scales tile a tensor.

    blocks: (row_blocks, col_blocks), with rows in GGUF's order. unit: what one scale covers in the source, in words
    (`tensor`, `rows/2`, `group 128`).
    """

    blocks: tuple[int, int]
    unit: str

    def torn(self, cols: int) -> str | None:
        """Return that GGUF's order of value heads tears the source's groups apart, a clause; None if it does not."""
        group, size = self.unit.partition("group ")[2].partition(" ")[0], cols // self.blocks[1]
        if not group or int(group) == size:
            return None
        return f"GGUF's order of value heads tears its groups of {group} into groups of {size}"


class Place(NamedTuple):
    """Where the bytes of a tensor lie: in which file of the source, from which byte on, and how many they are."""

    file: str
    offset: int
    nbytes: int


class SourceTensor(Protocol):
    """One tensor of a source. All but `name` raise Unreadable or Unsupported with the tensor's name."""

    @property
    def name(self) -> str:
        """What the source calls it, for messages."""

    @property
    def place(self) -> Place | None:
        """Where its bytes lie; None if no file holds them."""

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row of floats that can be read on its own; 0 if only the whole tensor can be read."""

    @property
    def plain_type(self) -> str | None:
        """The plain float type of its values if they are to be taken as they are stored, else None."""

    def over(self, data: Bytes) -> SourceTensor:
        """Return the same tensor with its bytes in memory; of one with a row_nbytes, also some of its rows alone."""

    def row_reader(self) -> RowReader | None:
        """Return what decodes a ternary tensor block by block; None if only the whole tensor can be decoded."""

    @property
    def may_be_ternary(self) -> bool:
        """False if headers alone show that it holds floats."""

    def ternary(self) -> TernaryTensor | None:
        """Return codes and scales, rows in GGUF's order; None for floats that are not ternary."""

    def scale_grid(self) -> ScaleGrid:
        """Return how the scales tile it, with as little reading as that takes."""

    def scales(self) -> Scales:
        """Return the scales, rows in GGUF's order, with as little reading as that takes."""

    def float_type(self) -> str:
        """Return the name of the float type that it is stored in."""

    def stored_as(self, kind: str) -> Bytes | None:
        """Return its bytes unchanged if a packed source holds it in this block type already, else None."""

    def pieces(self) -> Iterator[F32]:
        """Yield its rows as float32 (some rows, cols)."""

    def release(self) -> None:
        """Give back the pages that were read."""


@dataclasses.dataclass(frozen=True)
class CheckpointTensor:
    """A tensor of a checkpoint.

    storage: how a linear (or a table that may be ternary) is stored; None for what is floats in any case.
    parts: the tensors beside it, by suffix (`weight_scale`, `scales`, `biases`).
    order: int64 (rows,), the source's row at each place of the output, where GGUF orders them otherwise; the element,
    for a vector. columns: int64 (cols,), the same of columns.
    offset: added to every value (norms that store w for a factor of 1 + w). log: the values are logarithms of the
    negated ones (A_log).
    """

    stored: StoredTensor
    shape: tuple[int, ...]
    storage: Storage | None = None
    parts: dict[str, StoredTensor] = dataclasses.field(default_factory=dict)
    order: npt.NDArray[np.int64] | None = None
    columns: npt.NDArray[np.int64] | None = None
    offset: float = 0.0
    log: bool = False

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def is_reordered(self) -> bool:
        """Whether its rows or columns change places, so that it has to be read as a whole."""
        return self.order is not None or self.columns is not None

    @property
    def may_be_ternary(self) -> bool:
        return self.storage is not None

    @property
    def linear(self) -> StoredLinear:
        rows, cols = self.shape
        return StoredLinear(self.stored, (rows, cols), self.parts)

    def ternary(self) -> TernaryTensor | None:
        if self.storage is None:
            return None
        stored = self.storage.read(self.linear)
        return None if stored is None else self._ordered(stored)

    def _ordered(self, stored: TernaryTensor) -> TernaryTensor:
        """Return codes and scales with rows and columns in GGUF's order."""
        rows = stored if self.order is None else stored.with_rows(self.order)
        return rows if self.columns is None else rows.with_columns(self.columns)

    def scale_grid(self) -> ScaleGrid:
        storage = self._storage()
        if storage.one_scale:
            return ScaleGrid((1, 1), "tensor")
        stored = storage.read(self.linear)
        self.release()
        if stored is None:
            raise storage.not_ternary(self.linear)
        ordered = self._ordered(stored)
        return ScaleGrid(ordered.scale_blocks, stored.granularity)

    def scales(self) -> Scales:
        storage = self._storage()
        if storage.one_scale:  # any order of rows leaves it as it is
            scales = storage.scales(self.linear)
            self.release()
            return scales
        ternary = self.ternary()
        self.release()
        if ternary is None:
            raise storage.not_ternary(self.linear)
        return ternary.scales

    def _storage(self) -> Storage:
        if self.storage is None:
            raise Unsupported("is not a ternary tensor", tensor=self.name)
        return self.storage

    def float_type(self) -> str:
        return {"BF16": "bf16", "F16": "f16", "F32": "f32"}.get(self.stored.dtype, "f32")

    def stored_as(self, kind: str) -> Bytes | None:
        return None

    @property
    def place(self) -> Place:
        return Place(self.stored.file, self.stored.offset, self.stored.nbytes)

    @property
    def row_nbytes(self) -> int:
        is_readable = self.stored.dtype in FLOATS and not self.is_reordered
        return self.shape[-1] * FLOATS[self.stored.dtype] if is_readable else 0

    @property
    def plain_type(self) -> str | None:
        is_changed = self.offset or self.log or self.is_reordered or self.stored.dtype not in FLOATS
        return None if is_changed else self.stored.dtype.lower()

    def over(self, data: Bytes) -> CheckpointTensor:
        if data.size == self.stored.nbytes:
            return dataclasses.replace(self, stored=self.stored.over(data))
        stored = self.stored.some_rows(data)
        return dataclasses.replace(self, stored=stored, shape=stored.shape)

    def row_reader(self) -> RowReader | None:
        if self.storage is None or self.is_reordered:
            return None
        return self.storage.row_reader(self.linear)

    def pieces(self) -> Iterator[F32]:
        if self.stored.dtype not in FLOATS and (ternary := self.ternary()) is not None:
            yield from _dequantized(ternary)
            return
        step = self.stored.rows if self.is_reordered else _rows_at_a_time(self.shape[-1])
        for first in range(0, self.stored.rows, step):
            values = self.stored.rows_f32(first, min(first + step, self.stored.rows))
            if not np.isfinite(values).all():
                raise Unreadable("holds a value that is not finite", tensor=self.name)
            yield self._changed(values)
            self.stored.release()

    def _changed(self, values: F32) -> F32:
        """Return what GGUF has for the values of some rows; of all of them, if they change places."""
        if self.log:
            values = (-np.exp(values.astype(np.float64))).astype(np.float32)  # rounded once
            if not np.isfinite(values).all():
                raise Unreadable("holds a logarithm that float32 cannot hold", tensor=self.name)
        if self.offset:
            values = values + np.float32(self.offset)
        if self.order is not None:
            values = values[self.order] if len(self.shape) > 1 else values[:, self.order]
        return values

    def release(self) -> None:
        for part in (self.stored, *self.parts.values()):
            part.release()


def check_floats(stored: StoredTensor, shape: tuple[int, ...]) -> None:
    """Check shape and dtype of a norm or table from its header. Raises Unreadable or Unsupported."""
    if stored.shape != shape:
        raise Unreadable(f"has shape {list(stored.shape)}, expected {list(shape)}", tensor=stored.name)
    if stored.dtype not in FLOATS:
        raise Unsupported(f"is stored as {stored.dtype}, expected {' or '.join(FLOATS)}", tensor=stored.name)


def _rows_at_a_time(cols: int) -> int:
    """Return how many rows are made floats at a time: a multiple of 8, so that every piece begins with a whole word."""
    return max(1, PIECE_BYTES // 4 // cols // 8) * 8


def _dequantized(ternary: TernaryTensor) -> Iterator[F32]:
    """Yield the rows of a ternary table that was asked for as floats."""
    rows, cols = ternary.shape
    step = _rows_at_a_time(cols)
    scales = np.repeat(ternary.scales, rows // len(ternary.scales), axis=0)
    for first in range(0, rows, step):
        part = slice(first, first + step)
        yield TernaryTensor(ternary.codes[part], scales[part]).dequantize()


@dataclasses.dataclass(frozen=True)
class ConstantTensor:
    """A small float tensor that no source holds as such: rotary factors, a scale that gets a tensor of its own."""

    name: str
    values: F32
    may_be_ternary = False
    place = None
    row_nbytes = 0
    plain_type = None

    def over(self, data: Bytes) -> ConstantTensor:
        return self

    def row_reader(self) -> None:
        return None

    def ternary(self) -> TernaryTensor | None:
        return None

    def scale_grid(self) -> ScaleGrid:
        raise Unsupported("is not a ternary tensor", tensor=self.name)

    def scales(self) -> Scales:
        raise Unsupported("is not a ternary tensor", tensor=self.name)

    def float_type(self) -> str:
        return "f32"

    def stored_as(self, kind: str) -> Bytes | None:
        return None

    def pieces(self) -> Iterator[F32]:
        yield self.values.reshape(1, -1)

    def release(self) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file. data: its bytes, where they are in memory already. may_be_codes: its floats may be
    ternary."""

    file: GgufFile
    info: TensorInfo
    data: Bytes | None = None
    may_be_codes: bool = False

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def may_be_ternary(self) -> bool:
        return self.may_be_codes or self.file.layout_of(self.info) is not None

    @property
    def place(self) -> Place:
        return Place(self.file.path_of(self.info).name, self.info.file_offset, self.info.nbytes)

    @property
    def row_nbytes(self) -> int:
        floats = self.file.layout_of(self.info) is None and self.info.layout in float_types.FLOAT_TYPES
        return self.info.nbytes // self.info.rows if floats else 0

    @property
    def plain_type(self) -> str | None:
        return self.info.layout if self.info.layout in PLAIN_FLOATS else None

    def over(self, data: Bytes) -> GgufTensor:
        if data.size == self.info.nbytes:
            return dataclasses.replace(self, data=data)
        rows = data.size // self.row_nbytes
        info = dataclasses.replace(self.info, shape=(rows, self.info.cols), nbytes=data.size)
        return dataclasses.replace(self, info=info, data=data)

    def row_reader(self) -> None:
        return None

    def ternary(self) -> TernaryTensor | None:
        return recover(self._stored) if self.may_be_codes else self.file.ternary(self.info, self._bytes())

    @property
    def _stored(self) -> StoredTensor:
        """Its plain floats as a checkpoint would have them."""
        data = self._bytes()
        kind = self.info.layout.upper()
        return StoredTensor(self.name, kind, self.info.shape, "", 0, data.size, BytesInMemory(data))

    def scale_grid(self) -> ScaleGrid:
        ternary = self._required()
        return ScaleGrid(ternary.scale_blocks, ternary.granularity)

    def scales(self) -> Scales:
        return self._required().scales

    def _required(self) -> TernaryTensor:
        ternary = self.ternary()
        self.release()
        if ternary is None and self.may_be_codes:
            raise describe_misfit(self._stored)
        if ternary is None:
            raise Unsupported(
                f"is stored as {self.info.layout}, which is not a ternary layout that is read here",
                path=self.file.path_of(self.info),
                tensor=self.name,
            )
        return ternary

    def _bytes(self) -> Bytes:
        return self.file.bytes_of(self.info) if self.data is None else self.data

    def float_type(self) -> str:
        if self.file.layout_of(self.info):
            return "f32"
        if self.info.layout not in float_types.FLOAT_TYPES:
            raise Unsupported(
                f"is stored as {self.info.layout}, which cannot be read here",
                path=self.file.path_of(self.info),
                tensor=self.name,
            )
        return self.info.layout

    def stored_as(self, kind: str) -> Bytes | None:
        # Plain floats go through `pieces`, which looks at their values.
        return self._bytes() if kind == self.info.layout and kind in BLOCK_FLOATS else None

    def pieces(self) -> Iterator[F32]:
        if not self.may_be_codes and (ternary := self.ternary()) is not None:
            yield from _dequantized(ternary)
            return
        kind, stored = self.float_type(), self._bytes()
        step = _rows_at_a_time(self.info.cols)
        row_bytes = self.info.nbytes // self.info.rows
        for first in range(0, self.info.rows, step):
            last = min(first + step, self.info.rows)
            values = float_types.decode(
                kind, stored[first * row_bytes : last * row_bytes], last - first, self.info.cols
            )
            if not np.isfinite(values).all():
                raise Unreadable(
                    "holds a value that is not finite", path=self.file.path_of(self.info), tensor=self.name
                )
            yield values
            self.release()

    def release(self) -> None:
        self.file.release(self.info)

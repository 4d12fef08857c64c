"""GGUF files: the mapped bytes, the metadata, and the tensors with the meaning that each type id has in this file.

gguf-py cannot take the type ids and sizes of ternary files: I2_S is n/4 + 32 bytes, which no block size describes. The
header is parsed in gguf_header.py; how the bytes of a tensor are decoded is the business of formats/layouts.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from tritpack.formats.arrays import Bytes, Scales
from tritpack.formats.errors import Unreadable, locating
from tritpack.formats.gguf_header import MIN_HEADER, Header, TensorRow, read_header
from tritpack.formats.inputs import Unchanged, map_input
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.tiling import Tilings
from tritpack.formats.split_files import part_of
from tritpack.formats.ternary import TernaryTensor

HEAD_BYTES = 64
"""How many of its first bytes a tensor's layout may look at to tell its size."""


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How to read a file that does not say everything itself, or says it wrongly.

    read_as: one of names.READ_AS, the order of bytes in the tensors that the file calls i2_s. repair: read illegal
    codes and rubbish in padding as zeros instead of refusing them. tilings: of the TL1 and TL2 tensors whose tiling the
    file does not record. any_part: take one part of a split file for what it is instead of refusing it.
    """

    read_as: str | None = None
    repair: bool = False
    tilings: Tilings = dataclasses.field(default_factory=dict)
    any_part: bool = False


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What the file says of one tensor.

    shape: [rows, columns], slowest dimension first, the reverse of GGUF's order; () for a scalar; a dimension
    may be 0. file_offset: from byte 0 of the file.
    nbytes: of the stored tensor, trailer included; for an unknown type, all bytes up to the next tensor. meaning: what
    the type id means here; None if it is unknown.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    file_offset: int
    nbytes: int
    meaning: catalog.TypeMeaning | None

    @property
    def cols(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """The product of all dimensions but the last."""
        return math.prod(self.shape[:-1])

    @property
    def layout(self) -> str:
        """The name of its layout or float type, or `unknown(ID)`."""
        return self.meaning.name if self.meaning else f"unknown({self.type_id})"


class GgufFile:
    """A GGUF file, mapped and checked. It does not change: to read it in another way, open it with other options.

    Opening reads the header alone. metadata: values are bool, int, float and str; arrays are np.ndarray of numbers,
    Sequence[str], or a list of arrays. metadata_types: see gguf_header.Header. tensors: by name, in the file's order.
    layouts: what the names of ternary layouts mean in this file. options: how it is read. size: in bytes.
    unchanged: tells whether the file has changed since. part: which part of a split file it is; None for a whole file.

    Raises Unreadable, naming the file and what was found, for anything truncated, corrupt or hostile.
    """

    def __init__(self, path: str | Path, read: ReadOptions | None = None) -> None:
        self.path: Final = Path(path)
        self.options: Final = read or ReadOptions()
        self.unchanged: Final = Unchanged(self.files)
        self._map: Final = map_input(self.path, smallest=MIN_HEADER, what="a GGUF header")
        self.mapped: Final[Bytes] = np.frombuffer(self._map, np.uint8)
        self.size: Final = self.mapped.size
        with locating(path=self.path):
            header = read_header(memoryview(self._map))
            self.layouts: Final[Mapping[str, Layout]] = MappingProxyType(_layouts(header.metadata, self.options))
            tensors = {info.name: info for info in _tensor_infos(header, self.mapped)}
            self.part: Final = part_of(self.path, header.metadata, len(tensors))
        if self.part is not None and not self.options.any_part:
            raise self.part.refuse(self.path)
        self.tensors: Final[Mapping[str, TensorInfo]] = tensors
        self.version: Final = header.version
        self.metadata: Final = header.metadata
        self.metadata_types: Final = header.metadata_types
        self.alignment: Final = header.alignment
        self.data_offset: Final = header.data_offset

    @property
    def files(self) -> list[Path]:
        """The paths of all files that are read."""
        return [self.path]

    def bytes_of(self, tensor: TensorInfo) -> Bytes:
        """The stored bytes of a tensor, uint8 (nbytes,), as a view of the mapped file."""
        return self.mapped[tensor.file_offset : tensor.file_offset + tensor.nbytes]

    def release(self, tensor: TensorInfo) -> None:
        """Let go of a tensor's pages. So resident memory is bounded by the largest tensor instead of the file."""
        if tensor.nbytes and hasattr(self._map, "madvise"):
            first = tensor.file_offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, tensor.file_offset + tensor.nbytes - first)

    def layout_of(self, tensor: TensorInfo) -> Layout | None:
        """The ternary layout of a tensor as this file means it; None if it has another type, or no elements."""
        return self.layouts.get(tensor.layout) if tensor.meaning and 0 not in tensor.shape else None

    def ternary(self, tensor: TensorInfo) -> TernaryTensor | None:
        """Codes and scales of a tensor, with its outer scale multiplied in; None if it has no ternary layout. Raises
        Unreadable, naming the file and the tensor, on whatever its layout refuses."""
        if (layout := self.layout_of(tensor)) is None:
            return None
        with locating(path=self.path, tensor=tensor.name):
            stored = layout.unpack(self.bytes_of(tensor), tensor.rows, tensor.cols, repair=self.options.repair)
            outer = self.outer_scale(tensor)
            if outer == 1:
                return stored
            scales = _multiplied(stored.scales, outer)
            return TernaryTensor(stored.codes if outer else np.zeros_like(stored.codes), scales)

    def check(self, tensor: TensorInfo) -> list[str]:
        """What makes a ternary tensor one that nobody should use; empty if nothing, and for other tensors."""
        if (layout := self.layout_of(tensor)) is None:
            return []
        try:
            stored = self.bytes_of(tensor)
            if not (problems := layout.check(stored, tensor.rows, tensor.cols)):
                _multiplied(layout.read_scales(stored, tensor.rows, tensor.cols), self.outer_scale(tensor))
        except Unreadable as error:
            return [error.message]
        return problems

    def outer_scale(self, tensor: TensorInfo) -> np.float32:
        """What the scales in a tensor's bytes are multiplied by: the one f32 in the tensor `NAME.scale`, which is
        llama.cpp's way to keep a scale that f16 does not hold; 1 where there is none. Raises Unreadable."""
        beside = self.tensors.get(tensor.name.removesuffix("weight") + "scale")
        if beside is None or not tensor.name.endswith(".weight"):
            return np.float32(1)
        if beside.layout != "f32" or beside.shape != (1,):
            raise Unreadable(f"{beside.name!r} beside it is {beside.layout} {list(beside.shape)}, expected one f32")
        scale = np.float32(self.bytes_of(beside).view("<f4")[0])
        if not (np.isfinite(scale) and scale >= 0):
            raise Unreadable(f"{beside.name!r} beside it is {scale}, expected a finite number >= 0")
        return scale


# -- steps of opening a file -------------------------------------------------------------------------------------------


def _layouts(metadata: Mapping[str, Any], read: ReadOptions) -> dict[str, Layout]:
    """What layout names mean in a file: its recorded tilings come before those of the options."""
    layouts = catalog.layouts_of(metadata, read.tilings)
    if read.read_as is not None:
        layouts["i2_s"] = catalog.REPAIRABLE[read.read_as]
    return layouts


def _tensor_infos(header: Header, mapped: Bytes) -> Iterable[TensorInfo]:
    """The tensors of a file, each with the meaning of its type id whose size fits the space that the tensor has."""
    starts = sorted({row.start for row in header.rows} | {mapped.size})
    next_start = dict(zip(starts, starts[1:]))
    for row in header.rows:
        end = next_start.get(row.start, 0) if row.start < mapped.size else 0
        room = max(end - row.start, 0)
        head = mapped[row.start : row.start + min(room, HEAD_BYTES)]
        with locating(tensor=row.name):
            info = _tensor_info(row, room, header.alignment, head)
        yield info


def _tensor_info(row: TensorRow, room: int, alignment: int, head: Bytes) -> TensorInfo:
    """room: bytes from the tensor's start to the next tensor, or to the end of the file. head: the first of them."""
    rows, cols = math.prod(row.shape[:-1]), row.shape[-1] if row.shape else 1
    meanings = catalog.meanings(row.type_id)
    if not meanings:
        return TensorInfo(row.name, row.shape, row.type_id, row.start, room, None)
    if 0 in row.shape:
        return TensorInfo(row.name, row.shape, row.type_id, row.start, 0, meanings[0])
    if (resolved := catalog.resolve(row.type_id, rows, cols, room, alignment, head)) is None:
        sizes = [size for meaning in meanings if (size := meaning.nbytes(rows, cols, head)) is not None]
        needed = f"needs {min(sizes)} bytes" if sizes else "has no defined size for this shape and header"
        raise Unreadable(
            f"{meanings[0].name} of shape {list(row.shape)} {needed}, {room} are there",
            hint="the file is truncated or was written by a broken tool; download or convert it again",
        )
    meaning, nbytes = resolved
    return TensorInfo(row.name, row.shape, row.type_id, row.start, nbytes, meaning)


def _multiplied(scales: Scales, outer: np.float32) -> Scales:
    """Scales times the outer scale of their tensor. Raises Unreadable if that is too large for float32."""
    with np.errstate(over="ignore"):
        product = np.asarray(scales * outer, np.float32)
    if not np.isfinite(product).all():
        raise Unreadable(f"its scale {scales.max():g} times that beside it, {outer:g}, is not a finite number")
    return product

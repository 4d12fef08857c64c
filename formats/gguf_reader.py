"""Reading the GGUF container, versions 2 and 3, little-endian.

gguf-py cannot take the type ids and sizes of ternary files (I2_S is n/4 + 32 bytes, which no block size describes), and
hangs on hostile counts; so the container is ours. The reader believes no number before it has checked it against the
bytes that are left. How tensors are decoded is the business of formats/layouts.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.formats.arrays import Bytes, Scales
from tritpack.formats.errors import Unreadable
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.ternary import TernaryTensor

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_NAME = 1 << 16
HEAD_BYTES = 64
"""How much of a tensor its layout may look at to tell its size."""

SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "<u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
BOOL, STRING, ARRAY = 7, 8, 9
TYPE_NAMES = {
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str", 9: "arr", 10: "u64",
    11: "i64", 12: "f64",
}  # fmt: skip


class StringArray(Sequence[str]):
    """An array of strings in the mapped file, decoded one at a time: a vocabulary is seldom wanted whole."""

    def __init__(self, buffer: memoryview, bounds: list[int]) -> None:
        self._buffer = buffer
        self._bounds = bounds  # [start of string i, start of the length word of string i + 1]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[str]:
        buffer, bounds = self._buffer, self._bounds
        return (str(buffer[first : end - 8], "utf-8", "replace") for first, end in zip(bounds, bounds[1:]))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return str(self._buffer[self._bounds[i] : self._bounds[i + 1] - 8], "utf-8", "replace")


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One row of the tensor table. `shape` is [rows, columns], slowest dimension first: the reverse of GGUF's."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    file_offset: int  # from byte 0 of the file
    nbytes: int  # stored bytes, trailer included; for an unknown type all up to the next tensor
    meaning: catalog.TypeMeaning | None

    @property
    def cols(self) -> int:
        return self.shape[-1]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def layout(self) -> str:
        """The layout's name, or `unknown(ID)`."""
        return self.meaning.name if self.meaning else f"unknown({self.type_id})"


class GgufFile:
    """A GGUF file, mapped and checked: `metadata`, `metadata_types`, `tensors` and their bytes.

    Raises Unreadable, naming the file and what was found, for anything truncated, corrupt or hostile.
    Values: bool, int, float and str; np.ndarray for number arrays, Sequence[str] for strings, list for nested ones.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metadata: dict[str, Any] = {}
        self.metadata_types: dict[str, str] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self.layouts: dict[str, Layout] = {}
        """What layout names mean in this file. To read a file that a broken tool wrote, put another one here."""
        self.repair = False
        """Read illegal codes and rubbish in padding as zeros instead of refusing them."""
        try:
            with open(self.path, "rb") as stream:
                self.size = os.fstat(stream.fileno()).st_size
                if self.size < 24:
                    raise self._bad(f"{self.size} bytes are too few for a GGUF header")
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise Unreadable(f"{self.path}: cannot be read: {error.strerror or error}") from error
        self._buffer = memoryview(self._map)
        self._bytes: Bytes = np.frombuffer(self._map, np.uint8)
        self._cursor = 0
        self._read()

    @property
    def mapped(self) -> Bytes:
        """The whole file."""
        return self._bytes

    def bytes_of(self, tensor: TensorInfo) -> Bytes:
        """The stored bytes of a tensor, uint8 (nbytes,), as a view of the mapped file."""
        return self._bytes[tensor.file_offset : tensor.file_offset + tensor.nbytes]

    def release(self, tensor: TensorInfo) -> None:
        """Let go of the pages of a tensor that were read: resident memory is bounded by a tensor, not by the file."""
        if hasattr(self._map, "madvise"):
            first = tensor.file_offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, tensor.file_offset + tensor.nbytes - first)

    def layout_of(self, tensor: TensorInfo) -> Layout | None:
        """The ternary layout of a tensor as this file means it; None if it has another type."""
        return self.layouts.get(tensor.layout) if tensor.meaning else None

    def ternary(self, tensor: TensorInfo) -> TernaryTensor | None:
        """Codes and scales of a tensor, `.scale` beside it multiplied in; None if it has no ternary layout. Raises
        Unreadable, naming the file and the tensor, on whatever its layout refuses."""
        if (layout := self.layout_of(tensor)) is None:
            return None
        try:
            found = layout.unpack(self.bytes_of(tensor), tensor.rows, tensor.cols, repair=self.repair)
            outer = self.outer_scale(tensor)
            if outer == 1:
                return found
            scales = times(found.scales, outer)
            return TernaryTensor(found.codes if outer else np.zeros_like(found.codes), scales)
        except Unreadable as error:
            raise self._bad(f"tensor {tensor.name!r}: {error.message}", error.hint) from error

    def check(self, tensor: TensorInfo) -> list[str]:
        """What makes a ternary tensor one that nobody should use; empty if nothing, and for other tensors."""
        if (layout := self.layout_of(tensor)) is None:
            return []
        try:
            stored = self.bytes_of(tensor)
            if not (problems := layout.check(stored, tensor.rows, tensor.cols)):
                times(layout.read_scales(stored, tensor.rows, tensor.cols), self.outer_scale(tensor))
        except Unreadable as error:
            return [error.message]
        return problems

    def outer_scale(self, tensor: TensorInfo) -> np.float32:
        """The one number of the tensor `NAME.scale` (llama.cpp's way to keep scales apart); 1 where there is none."""
        beside = self.tensors.get(tensor.name.removesuffix("weight") + "scale")
        if beside is None or not tensor.name.endswith(".weight"):
            return np.float32(1)
        if beside.layout != "f32" or beside.shape != (1,):
            raise Unreadable(f"{beside.name!r} beside it is {beside.layout} {list(beside.shape)}, expected one f32")
        scale = np.float32(self.bytes_of(beside).view("<f4")[0])
        if not (np.isfinite(scale) and scale >= 0):
            raise Unreadable(f"{beside.name!r} beside it is {scale}, expected a finite number >= 0")
        return scale

    # -- header --------------------------------------------------------------------------------------------------------

    def _bad(self, what: str, hint: str | None = None) -> Unreadable:
        return Unreadable(f"{self.path}: {what}", hint=hint)

    def _take(self, form: str) -> int:
        end = self._cursor + struct.calcsize(form)
        if end > self.size:
            raise self._bad(
                f"ends inside its header, at byte {self.size}",
            )
        value: int = struct.unpack_from(form, self._buffer, self._cursor)[0]
        self._cursor = end
        return value

    def _read(self) -> None:
        if self._buffer[:4] != MAGIC:
            raise Unreadable(
                f"{self.path}: starts with {bytes(self._buffer[:4])!r}, not with {MAGIC!r}", hint="this is no GGUF file"
            )
        self._cursor = 4
        self.version = self._take("<I")
        if self.version not in (2, 3):
            swapped = int.from_bytes(self.version.to_bytes(4, "little"), "big") in (2, 3)
            raise self._bad(
                "is big-endian, which is not supported" if swapped else f"has unknown GGUF version {self.version}"
            )
        tensor_count, pair_count = self._take("<Q"), self._take("<Q")
        left = self.size - self._cursor
        # The shortest pair is 8 + 1 + 4 + 1 bytes, the shortest tensor row 8 + 1 + 4 + 8 + 4 + 8.
        if pair_count > left // 13 or tensor_count > left // 32:
            raise self._bad(f"claims {pair_count} metadata pairs and {tensor_count} tensors in {left} bytes")
        for _ in range(pair_count):
            self._read_pair()
        try:
            self.layouts = catalog.layouts_of(self.metadata)
        except Unreadable as error:
            raise self._bad(error.message) from error
        self._read_tensors(tensor_count)

    def _read_string(self, what: str, limit: int) -> str:
        length = self._take("<Q")
        if length > min(limit, self.size - self._cursor):
            raise self._bad(f"{what} claims {length} bytes, {self.size - self._cursor} are left")
        raw = bytes(self._buffer[self._cursor : self._cursor + length])
        self._cursor += length
        return raw.decode("utf-8", "replace")

    def _read_pair(self) -> None:
        key = self._read_string("a metadata key", MAX_NAME)
        if key in self.metadata:
            raise self._bad(f"metadata key {key!r} stands twice")
        type_id = self._take("<I")
        if type_id == ARRAY:
            self.metadata[key], element = self._read_array(key, depth=0)
            self.metadata_types[key] = f"arr[{element}]"
        else:
            self.metadata[key] = self._read_scalar(key, type_id)
            self.metadata_types[key] = TYPE_NAMES[type_id]

    def _read_scalar(self, key: str, type_id: int) -> Any:
        if type_id == STRING:
            return self._read_string(f"metadata {key!r}", self.size)
        if type_id not in SCALARS:
            raise self._bad(f"metadata {key!r} has unknown value type {type_id}")
        dtype = np.dtype(SCALARS[type_id])
        if self._cursor + dtype.itemsize > self.size:
            raise self._bad(f"ends inside metadata {key!r}")
        value = np.frombuffer(self._buffer, dtype, 1, self._cursor)[0].item()
        self._cursor += dtype.itemsize
        return bool(value) if type_id == BOOL else value

    def _read_array(self, key: str, depth: int) -> tuple[Any, str]:
        if depth > 4:
            raise self._bad(f"metadata {key!r} nests arrays deeper than 4")
        type_id, count = self._take("<I"), self._take("<Q")
        left = self.size - self._cursor
        smallest = 12 if type_id == ARRAY else 8 if type_id == STRING else np.dtype(SCALARS.get(type_id, "u1")).itemsize
        if count > left // smallest:
            raise self._bad(f"metadata {key!r} claims {count} elements in {left} bytes")
        if type_id == ARRAY:
            return [self._read_array(key, depth + 1)[0] for _ in range(count)], "arr"
        if type_id == STRING:
            return self._read_strings(key, count), "str"
        if type_id not in SCALARS:
            raise self._bad(f"metadata {key!r} has unknown element type {type_id}")
        dtype = np.dtype(SCALARS[type_id])
        values = np.frombuffer(self._buffer, dtype, count, self._cursor)
        self._cursor += count * dtype.itemsize
        return (values.astype(bool) if type_id == BOOL else values), TYPE_NAMES[type_id]

    def _read_strings(self, key: str, count: int) -> StringArray:
        position, size, buffer = self._cursor, self.size, self._buffer
        unpack = struct.Struct("<Q").unpack_from
        bounds = []
        for _ in range(count):
            if position + 8 > size:
                raise self._bad(f"ends inside metadata {key!r}")
            bounds.append(position + 8)
            position += 8 + unpack(buffer, position)[0]
        if position > size:
            raise self._bad(f"metadata {key!r} runs past the end of the file")
        bounds.append(position + 8)
        self._cursor = position
        return StringArray(buffer, bounds)

    def _read_tensors(self, count: int) -> None:
        rows: list[tuple[str, tuple[int, ...], int, int]] = []
        for _ in range(count):
            name = self._read_string("a tensor name", MAX_NAME)
            dimensions = self._take("<I")
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                raise self._bad(f"tensor {name!r} has {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}")
            shape = tuple(self._take("<Q") for _ in range(dimensions))[::-1]
            rows.append((name, shape, self._take("<I"), self._take("<Q")))
        self.alignment = self.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(self.alignment, int) or not 0 < self.alignment <= 1 << 20 or self.alignment % 8:
            raise self._bad(f"general.alignment is {self.alignment!r}, expected a positive multiple of 8")
        self.data_offset = -(-self._cursor // self.alignment) * self.alignment
        starts = sorted({self.data_offset + offset for *_, offset in rows} | {self.size})
        following = dict(zip(starts, starts[1:]))
        for name, shape, type_id, offset in rows:
            self._add_tensor(name, shape, type_id, self.data_offset + offset, following)

    def _add_tensor(
        self, name: str, shape: tuple[int, ...], type_id: int, start: int, following: dict[int, int]
    ) -> None:
        if name in self.tensors:
            raise self._bad(f"tensor {name!r} stands twice")
        if (start - self.data_offset) % self.alignment:
            raise self._bad(f"tensor {name!r} begins at an offset that is not a multiple of {self.alignment}")
        if 0 in shape or math.prod(shape) > 1 << 48:
            raise self._bad(f"tensor {name!r} has the impossible shape {list(shape)}")
        room = following.get(start, 0) if start < self.size else 0
        room = max(room - start, 0)
        rows, cols = math.prod(shape[:-1]), shape[-1]
        head = self._bytes[start : start + min(room, HEAD_BYTES)]
        found = catalog.resolve(type_id, rows, cols, room, self.alignment, head)
        known = catalog.meanings(type_id)
        if known and found is None:
            sizes = [size for each in known if (size := each.nbytes(rows, cols, head)) is not None]
            needed = f"needs {min(sizes)} bytes" if sizes else "has no defined size for this shape and header"
            raise Unreadable(
                f"{self.path}: tensor {name!r} ({known[0].name}, {list(shape)}) {needed}, {room} are there",
                hint="the file is truncated or was written by a broken tool; download or convert it again",
            )
        meaning, size = found if found else (None, room)
        self.tensors[name] = TensorInfo(name, shape, type_id, start, size, meaning)


def times(scales: Scales, outer: np.float32) -> Scales:
    """Scales with the one beside their tensor multiplied in. Raises Unreadable if that is too much for float32."""
    with np.errstate(over="ignore"):
        product = np.asarray(scales * outer, np.float32)
    if not np.isfinite(product).all():
        raise Unreadable(f"its scale {scales.max():g} times that beside it, {outer:g}, is no finite number")
    return product

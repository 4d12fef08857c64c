"""The header of a GGUF file, versions 2 and 3, little-endian: its metadata and its table of tensors.

gguf-py hangs on hostile counts, so the parser is our own: it believes no number before it has checked it against the
bytes that are left. What the type ids mean is decided in gguf_reader.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tritpack.formats.errors import Unreadable
from tritpack.formats.other_files import HEAD, kind_of

if TYPE_CHECKING:
    import numpy.typing as npt

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
"""Bytes, of a file that does not say."""
CACHE_LINE = 64
"""The alignment of the files that we write, in bytes: with the default of 32, half of the tensors of some layouts begin
inside a line, and every load of 64 bytes reads two."""
ALIGNMENT_KEY = "general.alignment"
MAX_DIMENSIONS = 4
MAX_NAME = 1 << 16
MAX_WEIGHTS = 1 << 48
MAX_NESTING = 4
MAX_PAIRS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_STRINGS = 1 << 23
MAX_ARRAYS = 1 << 16
"""Of these a header may hold no more, since each takes many times its bytes of memory: the largest vocabularies have
2 ** 19 merges. MAX_ARRAYS counts arrays inside arrays."""
MIN_HEADER = 24
"""Bytes of magic, version and the two counts."""
MIN_PAIR = 13
"""Bytes of the shortest metadata pair: 8 (length) + 0 (key) + 4 (type) + 1 (value)."""
MIN_ROW = 24
"""Bytes of the shortest row of the tensor table: 8 (length) + 0 (name) + 4 (no dimension) + 4 (type) + 8."""

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
"""Value type id -> dtype, of numbers and booleans."""
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The same for the module struct."""
BOOL, STRING, ARRAY = 7, 8, 9
TYPE_NAMES = {
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str", 9: "arr", 10: "u64",
    11: "i64", 12: "f64",
}  # fmt: skip

ROOM = 32
"""Bytes that a string of a vocabulary takes on average, its length word included, at most: most take 16."""


class StringArray(Sequence[str]):
    """An array of strings in the mapped file, decoded one at a time: few callers want a whole vocabulary."""

    def __init__(self, buffer: memoryview, bounds: npt.NDArray[np.int64] | list[int]) -> None:
        self._buffer = buffer
        self._bounds = bounds  # the start of string i, which ends 8 bytes before that of string i + 1

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __repr__(self) -> str:
        return f"an array of {len(self)} strings"

    def __iter__(self) -> Iterator[str]:
        buffer = self._buffer
        bounds = self._bounds if isinstance(self._bounds, list) else self._bounds.tolist()
        return (str(buffer[first : end - 8], "utf-8", "replace") for first, end in zip(bounds, bounds[1:]))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return str(self._buffer[self._bounds[i] : self._bounds[i + 1] - 8], "utf-8", "replace")


@dataclasses.dataclass(frozen=True)
class TensorRow:
    """One row of the tensor table. shape: [rows, columns], slowest dimension first, the reverse of GGUF's order; ()
    for a scalar. start: from byte 0 of the file, aligned; it may lie after the end of a truncated file."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    start: int


@dataclasses.dataclass(frozen=True)
class Header:
    """metadata_types: by key, the type's name in TYPE_NAMES, or `arr[NAME]`. encoded: by key, the type id and the bytes
    of the value as they stand in the file. data_offset: from byte 0 of the file."""

    version: int
    metadata: Mapping[str, Any]
    metadata_types: Mapping[str, str]
    encoded: Mapping[str, memoryview]
    alignment: int
    data_offset: int
    rows: tuple[TensorRow, ...]


def read_header(buffer: memoryview, *, plain: bool = False) -> Header:
    """Parse the header at the start of a file's bytes. Raises Unreadable, without the path.

    plain: arrays of numbers become memoryviews, so that numpy need not be imported; else np.ndarray.
    """
    return _Parser(buffer, plain).header()


class _Parser:
    """A cursor over the bytes of a file, and what was read so far."""

    def __init__(self, buffer: memoryview, plain: bool) -> None:
        self.buffer = buffer
        self.plain = plain
        self.size = len(buffer)
        self.cursor = 0
        self.metadata: dict[str, Any] = {}
        self.types: dict[str, str] = {}
        self.encoded: dict[str, memoryview] = {}
        self.objects = {STRING: 0, ARRAY: 0}

    @property
    def left(self) -> int:
        return self.size - self.cursor

    def header(self) -> Header:
        version = self._version()
        try:
            return self._after(version)
        except Unreadable as error:
            error.hint = error.hint or "the file is truncated or damaged; download or convert it again"
            raise

    def _after(self, version: int) -> Header:
        """Parse what follows magic and version."""
        tensor_count, pair_count = self._take("<Q"), self._take("<Q")
        if pair_count > self.left // MIN_PAIR or tensor_count > self.left // MIN_ROW:
            raise Unreadable(f"claims {pair_count} metadata pairs and {tensor_count} tensors in {self.left} bytes")
        if pair_count > MAX_PAIRS or tensor_count > MAX_TENSORS:
            most = f"at most {MAX_PAIRS} and {MAX_TENSORS} are read"
            raise Unreadable(f"claims {pair_count} metadata pairs and {tensor_count} tensors, {most}")
        for _ in range(pair_count):
            self._pair()
        relative_rows = [self._row() for _ in range(tensor_count)]
        alignment = self._alignment()
        data_offset = -(-self.cursor // alignment) * alignment
        rows = tuple(dataclasses.replace(row, start=data_offset + row.start) for row in relative_rows)
        _check_rows(rows, data_offset, alignment)
        return Header(version, self.metadata, self.types, self.encoded, alignment, data_offset, rows)

    def _version(self) -> int:
        if self.size < MIN_HEADER:
            raise Unreadable(f"{self.size} bytes are too few for a GGUF header")
        magic = bytes(self.buffer[: len(MAGIC)])
        if magic != MAGIC:
            kind = kind_of(bytes(self.buffer[:HEAD]))
            what = f"starts with {magic!r}, not with {MAGIC!r}" if kind is None else f"is {kind}"
            raise Unreadable(what, hint="this is not a GGUF file")
        self.cursor = len(MAGIC)
        version = self._take("<I")
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
            raise Unreadable(
                "is big-endian, which is not supported" if swapped else f"has unknown GGUF version {version}"
            )
        return version

    def _alignment(self) -> int:
        alignment = self.metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment % 8:
            raise Unreadable(f"{ALIGNMENT_KEY} is {alignment!r}, expected a positive multiple of 8")
        return alignment

    # -- numbers and strings -------------------------------------------------------------------------------------------

    def _take(self, form: str) -> int:
        end = self.cursor + struct.calcsize(form)
        if end > self.size:
            raise Unreadable(f"ends inside its header, at byte {self.size}")
        value: int = struct.unpack_from(form, self.buffer, self.cursor)[0]
        self.cursor = end
        return value

    def _string(self, what: str, limit: int) -> str:
        length = self._take("<Q")
        if length > min(limit, self.left):
            raise Unreadable(f"{what} claims {length} bytes, {self.left} are left")
        raw = bytes(self.buffer[self.cursor : self.cursor + length])
        self.cursor += length
        return raw.decode("utf-8", "replace")

    # -- metadata ------------------------------------------------------------------------------------------------------

    def _pair(self) -> None:
        key = self._string("a metadata key", MAX_NAME)
        if key in self.metadata:
            raise Unreadable(f"metadata key {key!r} stands twice")
        start = self.cursor
        type_id = self._take("<I")
        if type_id == ARRAY:
            self.metadata[key], element = self._array(key, depth=0)
            self.types[key] = f"arr[{element}]"
        else:
            self.metadata[key] = self._scalar(key, type_id)
            self.types[key] = TYPE_NAMES[type_id]
        self.encoded[key] = self.buffer[start : self.cursor]

    def _scalar(self, key: str, type_id: int) -> Any:
        if type_id == STRING:
            return self._string(f"metadata {key!r}", self.size)
        if type_id not in FORMATS:
            raise Unreadable(f"metadata {key!r} has unknown value type {type_id}")
        size = struct.calcsize(FORMATS[type_id])
        if size > self.left:
            raise Unreadable(f"ends inside metadata {key!r}")
        [value] = struct.unpack_from(f"<{FORMATS[type_id]}", self.buffer, self.cursor)
        self.cursor += size
        return value

    def _array(self, key: str, depth: int) -> tuple[Any, str]:
        """An array and the name of its element type."""
        if depth > MAX_NESTING:
            raise Unreadable(f"metadata {key!r} nests arrays deeper than {MAX_NESTING}")
        type_id, count = self._take("<I"), self._take("<Q")
        smallest = 12 if type_id == ARRAY else 8 if type_id == STRING else struct.calcsize(FORMATS.get(type_id, "B"))
        if count > self.left // smallest:
            raise Unreadable(f"metadata {key!r} claims {count} elements in {self.left} bytes")
        self._count(key, type_id, count)
        if type_id == ARRAY:
            return [self._array(key, depth + 1)[0] for _ in range(count)], "arr"
        if type_id == STRING:
            return self._strings(key, count), "str"
        if type_id not in FORMATS:
            raise Unreadable(f"metadata {key!r} has unknown element type {type_id}")
        values = self._numbers(type_id, self.buffer[self.cursor : self.cursor + count * smallest])
        self.cursor += count * smallest
        return values, TYPE_NAMES[type_id]

    def _numbers(self, type_id: int, data: memoryview) -> Any:
        """An array of numbers or booleans. Any byte but 0 is true."""
        if self.plain and sys.byteorder == "little":
            return data.cast(FORMATS[type_id])  # type: ignore[call-overload]
        values = np.frombuffer(data, SCALARS[type_id])
        return values.astype(bool) if type_id == BOOL else values

    def _count(self, key: str, type_id: int, count: int) -> None:
        """Count the elements of an array that become Python objects, over the whole header."""
        if type_id not in (STRING, ARRAY):
            return
        self.objects[type_id] += count
        most = MAX_STRINGS if type_id == STRING else MAX_ARRAYS
        if self.objects[type_id] > most:
            what = "strings" if type_id == STRING else "arrays inside arrays"
            raise Unreadable(f"metadata {key!r} makes it {self.objects[type_id]} {what}, at most {most} are read")

    def _strings(self, key: str, count: int) -> StringArray:
        short = None if self.plain else _bounds_of_short_strings(self.buffer, self.cursor, count)
        bounds = self._bounds(key, count) if short is None else short
        self.cursor = int(bounds[-1]) - 8
        return StringArray(self.buffer, bounds)

    def _bounds(self, key: str, count: int) -> list[int]:
        """See StringArray. Raises Unreadable where a length runs past the end."""
        position, buffer = self.cursor + 8, self.buffer
        unpack = struct.Struct("<Q").unpack_from
        bounds = [position]
        try:
            for _ in itertools.repeat(None, count):
                position += 8 + unpack(buffer, position - 8)[0]
                bounds.append(position)
        except (struct.error, OverflowError):
            raise Unreadable(f"ends inside metadata {key!r}") from None
        if position - 8 > self.size:
            raise Unreadable(f"metadata {key!r} runs past the end of the file")
        return bounds

    # -- tensor table --------------------------------------------------------------------------------------------------

    def _row(self) -> TensorRow:
        """A row whose start still counts from the data section."""
        name = self._string("a tensor name", MAX_NAME)
        dimensions = self._take("<I")
        if dimensions > MAX_DIMENSIONS:
            raise Unreadable(f"has {dimensions} dimensions, expected at most {MAX_DIMENSIONS}", tensor=name)
        shape = tuple(self._take("<Q") for _ in range(dimensions))[::-1]
        return TensorRow(name, shape, self._take("<I"), self._take("<Q"))


def _bounds_of_short_strings(buffer: memoryview, position: int, count: int) -> npt.NDArray[np.int64] | None:
    """The bounds of an array whose strings all have less than 256 bytes, as in vocabularies; None if one has more.

    It reads one byte of each length, which takes half of the time, and then compares all lengths at once.
    """
    lengths = bytes(buffer[position : position + count * ROOM])

    def starts() -> Iterator[int]:
        at = 0
        for _ in itertools.repeat(None, count):
            yield at
            at += 8 + lengths[at]
        yield at

    try:
        bounds = position + 8 + np.fromiter(starts(), np.int64, count + 1)
    except IndexError:
        return None
    if bounds[-1] - 8 > len(buffer):
        return None
    at_every_byte: npt.NDArray[np.uint64] = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    same = at_every_byte[bounds[:-1] - 8] == (np.diff(bounds) - 8).astype(np.uint64)
    return bounds if same.all() else None


def _check_rows(rows: Sequence[TensorRow], data_offset: int, alignment: int) -> None:
    names: set[str] = set()
    for row in rows:
        if row.name in names:
            raise Unreadable("stands twice in the table of tensors", tensor=row.name)
        names.add(row.name)
        if (row.start - data_offset) % alignment:
            raise Unreadable(f"begins at an offset that is not a multiple of {alignment}", tensor=row.name)
        if math.prod(row.shape) > MAX_WEIGHTS or max(row.shape, default=1) > MAX_WEIGHTS:
            raise Unreadable(f"has the impossible shape {list(row.shape)}", tensor=row.name)

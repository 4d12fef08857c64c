"""Writing the GGUF container, version 3, little-endian, in one streaming pass."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable
from tritpack.formats.files import atomic_output
from tritpack.formats.gguf_header import (
    ALIGNMENT_KEY,
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    MAGIC,
    SCALARS,
    STRING,
    TYPE_NAMES,
    Header,
)  # fmt: skip

SCALAR_IDS = {TYPE_NAMES[type_id]: type_id for type_id in SCALARS}
VOCABULARY = 1000
"""Strings in an array from which on its bytes are kept."""
NUMPY_TYPE_IDS = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7, "u8": 10, "i8": 11, "f8": 12}


@dataclasses.dataclass(frozen=True)
class TensorPlan:
    """A tensor to be written: its name, [rows, columns], GGUF type id and exact size. No data yet."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    nbytes: int


def _encode_string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _encode_strings(texts: Sequence[str]) -> bytes:
    """An array of strings, see _encode_string."""
    raw = list(map(str.encode, texts))
    lengths = map(struct.Struct("<Q").pack, map(len, raw))
    strings = itertools.chain.from_iterable(zip(lengths, raw))
    return struct.pack("<IIQ", ARRAY, STRING, len(raw)) + b"".join(strings)


@functools.lru_cache(4)
def _encode_vocabulary(texts: tuple[str, ...]) -> bytes:
    """An array of strings that is part of several headers: of plans, of their variants, of the file."""
    return _encode_strings(texts)


def _encode_value(key: str, value: Any, kind: str | None = None) -> bytes:
    """The type id and the bytes of a value: bool, int (u32 if it fits, else wider), float (f32), str, or array.

    kind: a scalar's type as the reader names it ("f64"), where the default would be another. Arrays: np.ndarray of
    numbers, a sequence of strings, or a list of arrays. A memoryview is all this already: see gguf_header.Header.
    """
    if isinstance(value, memoryview):
        return bytes(value)
    if kind in SCALAR_IDS and kind != "bool":
        value = np.array(value, SCALARS[SCALAR_IDS[kind]])[()]
    if isinstance(value, (bool, np.bool_)):
        return struct.pack("<I?", BOOL, bool(value))
    if isinstance(value, np.generic):
        return struct.pack("<I", NUMPY_TYPE_IDS[value.dtype.str[1:]]) + bytes(
            np.array(value).astype(value.dtype.newbyteorder("<")).tobytes()
        )
    if isinstance(value, int):
        for type_id, form in ((4, "<II"), (5, "<Ii"), (10, "<IQ"), (11, "<Iq")):
            with contextlib.suppress(struct.error):
                return struct.pack(form, type_id, value)
        raise ValueError(f"metadata {key!r}: {value} fits no GGUF integer")
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _encode_string(value)
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<")))
        return struct.pack("<IIQ", ARRAY, NUMPY_TYPE_IDS[value.dtype.str[1:]], value.size) + little.tobytes()
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return struct.pack("<IIQ", ARRAY, ARRAY, len(value)) + b"".join(_encode_value(key, item)[4:] for item in value)
    if isinstance(value, Sequence):
        return _encode_vocabulary(tuple(value)) if len(value) > VOCABULARY else _encode_strings(value)
    raise ValueError(f"metadata {key!r}: no GGUF type for {type(value).__name__}")


def alignment_of(metadata: Mapping[str, Any]) -> int:
    """The alignment of tensors, in bytes, in a file with this metadata."""
    return int(metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT))


def encode_header(
    metadata: Mapping[str, Any], tensors: Sequence[TensorPlan], types: Mapping[str, str] | None = None
) -> bytes:
    """Everything before the data section, padded to the alignment. types: GgufFile.metadata_types of the source, which
    keeps the widths of its numbers."""
    alignment = alignment_of(metadata)
    parts = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata)), encode_pairs(metadata, types)]
    offset = 0
    for tensor in tensors:
        parts.append(encode_row(tensor, offset))
        offset += padded(tensor.nbytes, alignment)
    header = b"".join(parts)
    return header + bytes(-len(header) % alignment)


def encode_pairs(metadata: Mapping[str, Any], types: Mapping[str, str] | None = None) -> bytes:
    """The metadata of a header."""
    types = types or {}
    return b"".join(_encode_string(key) + _encode_value(key, value, types.get(key)) for key, value in metadata.items())


def encode_row(tensor: TensorPlan, offset: int = 0) -> bytes:
    """A row of a header's table of tensors. offset: of the tensor, from the start of the data section."""
    dimensions = tensor.shape[::-1]
    numbers = struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, tensor.type_id, offset)
    return _encode_string(tensor.name) + numbers


def replaced_header(
    old: Header,
    metadata: Mapping[str, Any],
    types: Mapping[str, str] | None = None,
    type_ids: Mapping[str, int] = MappingProxyType({}),
) -> bytes:
    """Everything before the data section of a file whose header becomes another: its version, the alignment, and the
    places and names of its tensors stay.

    metadata: a value as the header encodes it (Header.encoded) stays as it is. type_ids: the tensors, by name, that get
    another. Raises Unreadable for names that are not UTF-8, which could not be written again.
    """
    if names := [name for name in (*metadata, *(row.name for row in old.rows)) if "\ufffd" in name]:
        raise Unreadable(f"its header has the name {names[0]!r}, which is not UTF-8: it is not written again")
    parts = [MAGIC, struct.pack("<IQQ", old.version, len(old.rows), len(metadata)), encode_pairs(metadata, types)]
    for row in old.rows:
        tensor = TensorPlan(row.name, row.shape, type_ids.get(row.name, row.type_id), 0)
        parts.append(encode_row(tensor, row.start - old.data_offset))
    header = b"".join(parts)
    return header + bytes(-len(header) % old.alignment)


def padded(nbytes: int, alignment: int) -> int:
    """So many bytes, rounded up to a multiple of the alignment."""
    return -(-nbytes // alignment) * alignment


def file_size(
    metadata: Mapping[str, Any], tensors: Sequence[TensorPlan], types: Mapping[str, str] | None = None
) -> int:
    """The exact size in bytes of the file that `write_gguf` makes of these."""
    alignment = alignment_of(metadata)
    data = sum(padded(tensor.nbytes, alignment) for tensor in tensors)
    return len(encode_header(metadata, tensors, types=types)) + data


def tensor_offsets(
    metadata: Mapping[str, Any], tensors: Sequence[TensorPlan], types: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Where the bytes of each tensor begin in the file with this header, by name."""
    alignment, offset = alignment_of(metadata), len(encode_header(metadata, tensors, types=types))
    offsets = {}
    for tensor in tensors:
        offsets[tensor.name] = offset
        offset += -(-tensor.nbytes // alignment) * alignment
    return offsets


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[TensorPlan],
    data: Iterable[Iterable[Bytes]],
    *,
    force: bool = False,
    check: Callable[[Path], None] | None = None,
    types: Mapping[str, str] | None = None,
) -> None:
    """Write a GGUF v3 file in one streaming pass, under a temporary name until it is complete.

    data: for each tensor, in order, its bytes in pieces. check: is given the complete temporary file before it gets
    its name; if it raises, no file is left. Raises UsageError, WriteFailed, and ValueError if the pieces of a tensor do
    not have its planned size (a bug of the caller).
    """
    with atomic_output(path, file_size(metadata, tensors, types), force=force, check=check) as stream:
        stream.write(encode_header(metadata, tensors, types=types))
        write_tensors(stream, tensors, data, alignment_of(metadata))


def write_tensors(
    stream: BinaryIO, tensors: Sequence[TensorPlan], data: Iterable[Iterable[Bytes]], alignment: int
) -> None:
    """Write the data section of a file. Raises ValueError if the data are not as planned."""
    for tensor, pieces in zip(tensors, data, strict=True):
        written = 0
        for piece in pieces:
            stream.write(np.ascontiguousarray(piece).data)
            written += piece.size
        if written != tensor.nbytes:
            raise ValueError(f"tensor {tensor.name!r}: planned {tensor.nbytes} bytes, got {written}")
        stream.write(bytes(-written % alignment))

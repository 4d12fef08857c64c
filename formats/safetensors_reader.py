"""Reading safetensors files lazily.

The safetensors library checks each header (its rules for offsets, overlaps and sizes). The data is memory-mapped here,
because the library's numpy side raises on bfloat16, or comes from elsewhere (`TensorBytes`). Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable, Unsupported, WriteFailed
from tritpack.formats.float_types import widen_bf16
from tritpack.formats.huge_pages import let_go
from tritpack.formats.inputs import map_input

LONGEST_NAME = 512
"""Characters of a tensor's name; patterns are matched with names, which must not take long."""
FLOATS = {"BF16": 2, "F16": 2, "F32": 4}
"""Bytes per value of the float types that are read, in safetensors' spelling."""


BLOCK = 1 << 20
"""Bytes that are compared at once."""
LARGEST_HEADER = 100_000_000
"""Bytes of the largest header that the safetensors library reads."""


class TensorBytes(Protocol):
    """Where the bytes of a file's tensors come from. Offsets count from the beginning of the file."""

    def view(self, first: int, last: int) -> Bytes:
        """Return bytes [first, last)."""

    def release(self, first: int, last: int) -> None:
        """Give back the pages that were read of bytes [first, last)."""


class MappedBytes:
    """The bytes of a mapped file."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._bytes: Bytes = np.frombuffer(view, np.uint8)

    def view(self, first: int, last: int) -> Bytes:
        return self._bytes[first:last]

    def release(self, first: int, last: int) -> None:
        let_go(self._view, first, last)


class BytesInMemory:
    """Bytes that no file holds: there are no pages to give back."""

    def __init__(self, data: Bytes) -> None:
        self._data = data

    def view(self, first: int, last: int) -> Bytes:
        return self._data[first:last]

    def release(self, first: int, last: int) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file.

    dtype: in safetensors' spelling (U8, BF16, ...). file: the file's name. offset, nbytes: where its data is in the
    file, in bytes. source: where they are read.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int
    source: TensorBytes = dataclasses.field(repr=False, compare=False)

    @property
    def data(self) -> Bytes:
        """Its bytes: a view of a mapped file, or what is fetched for this."""
        return self.source.view(self.offset, self.offset + self.nbytes)

    @property
    def rows(self) -> int:
        """The product of all dimensions but the last; 1 for a vector."""
        return int(np.prod(self.shape[:-1], dtype=np.int64)) if len(self.shape) > 1 else 1

    def some_rows(self, data: Bytes) -> StoredTensor:
        """Return some rows of the tensor as a tensor, with their bytes in memory: (rows, cols)."""
        cols = self.shape[-1] if self.shape else 1
        rows = data.size // (cols * FLOATS.get(self.dtype, 1))
        shape = (rows, cols) if len(self.shape) > 1 else self.shape
        return dataclasses.replace(self.over(data), shape=shape)

    def over(self, data: Bytes) -> StoredTensor:
        """Return the same tensor with its bytes in memory."""
        return dataclasses.replace(self, offset=0, nbytes=data.size, source=BytesInMemory(data))

    def release(self) -> None:
        """Give back the pages that were read, so that resident memory is bounded by a tensor and not by the file."""
        self.source.release(self.offset, self.offset + self.nbytes)

    def has_data_of(self, other: StoredTensor) -> bool:
        """Return whether both hold the same bytes. They are read in blocks, up to the first that differs."""
        blocks = ((first, min(first + BLOCK, self.nbytes)) for first in range(0, self.nbytes, BLOCK))
        return self.nbytes == other.nbytes and all(
            np.array_equal(
                self.source.view(self.offset + first, self.offset + last),
                other.source.view(other.offset + first, other.offset + last),
            )
            for first, last in blocks
        )

    def rows_bits(self, first: int, last: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the bit patterns of the floats in rows [first, last): uint16 or uint32 (last - first, cols).

        Raises Unsupported if the tensor does not hold floats.
        """
        if self.dtype not in FLOATS:
            raise Unsupported(f"is stored as {self.dtype}, expected {' or '.join(FLOATS)}", tensor=self.name)
        cols = self.shape[-1] if self.shape else 1
        size = FLOATS[self.dtype]
        row_bytes = size * cols
        raw = self.source.view(self.offset + first * row_bytes, self.offset + last * row_bytes)
        return raw.view(f"<u{size}").reshape(last - first, cols)

    def rows_f32(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """Return rows [first, last) widened to float32 (last - first, cols).

        Raises Unsupported if the tensor does not hold floats.
        """
        return self.widened(self.rows_bits(first, last))

    def widened(self, bits: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.float32]:
        """Return the float32 values of bit patterns of this tensor's type."""
        if self.dtype == "BF16":
            return widen_bf16(bits.astype(np.uint16, copy=False))
        return bits.view("<f2" if self.dtype == "F16" else "<f4").astype(np.float32)


def read_safetensors(path: Path) -> tuple[list[StoredTensor], str]:
    """Map a file and return its tensors and the free text of its header. Raises Unreadable."""
    view = map_input(path, smallest=8, what="a safetensors file")
    _check(path, path)
    (length,) = struct.unpack_from("<Q", view)
    return _tensors(bytes(view[8 : 8 + length]), path.name, MappedBytes(view))


def read_header(
    head: bytes, size: int, source: TensorBytes, *, name: str, path: str | Path
) -> tuple[list[StoredTensor], str]:
    """Return the same of a file that is elsewhere, from its first bytes (`header_bytes` of them).

    size: of the file, in bytes. path: what messages call it. Raises Unreadable, and WriteFailed where there is no space
    for a sparse file.
    """
    with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
        # The library reads files: this one has the header, and a hole where the data would be.
        hollow = Path(folder) / "header.safetensors"
        try:
            with open(hollow, "wb") as stream:
                stream.write(head)
                stream.truncate(size)
        except OSError as error:
            message = f"a sparse file for its header cannot be written: {error.strerror}"
            raise WriteFailed(message, path=path, hint="let TMPDIR name a folder with space") from error
        _check(hollow, path)
    return _tensors(head[8:], name, source)


def header_bytes(start: bytes, size: int, path: str | Path) -> int:
    """Return how many bytes of a file its header ends at. start: its first 8 bytes. Raises Unreadable."""
    if len(start) < 8:
        raise Unreadable(f"{size} bytes are too few for a safetensors file", path=path)
    (length,) = struct.unpack_from("<Q", start)
    if length > min(LARGEST_HEADER, size - 8):
        message = f"is not a safetensors file: its first bytes announce a header of {length} bytes"
        raise Unreadable(message, path=path)
    return 8 + int(length)


def _check(path: Path, shown: str | Path) -> None:
    """Let the library check the header of a file. shown: what messages call it. Raises Unreadable."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}", path=shown) from error
    except (SafetensorError, ValueError) as error:
        hint = "the download may be cut short; fetch it again"
        raise Unreadable(f"is not a whole safetensors file: {error}", path=shown, hint=hint) from error


def _tensors(text: bytes, file: str, source: TensorBytes) -> tuple[list[StoredTensor], str]:
    """Return the tensors of a header that was checked, and its free text."""
    header, start = json.loads(text), 8 + len(text)
    note = json.dumps(header.pop("__metadata__", None))
    tensors = []
    for name, entry in header.items():
        if len(name) > LONGEST_NAME:
            raise Unreadable(f"a tensor's name has {len(name)} characters: {name[:40]!r}...", path=file)
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        tensors.append(StoredTensor(name, entry["dtype"], shape, file, start + first, last - first, source))
    return tensors, note

"""Reading safetensors files lazily.

The safetensors library checks each header (its rules for offsets, overlaps and sizes). The data is memory-mapped here,
because the library's numpy side raises on bfloat16. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.float_types import widen_bf16
from tritpack.formats.inputs import map_input

LONGEST_NAME = 512
"""Characters of a tensor's name; patterns are matched with names, which must not take long."""
FLOATS = {"BF16": 2, "F16": 2, "F32": 4}
"""Bytes per value of the float types that are read, in safetensors' spelling."""


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file.

    dtype: in safetensors' spelling (U8, BF16, ...). data: its bytes, a view of the mapped file.
    file: the file's name. offset: of the data in the mapping, in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Bytes
    file: str
    mapping: mmap.mmap
    offset: int

    @property
    def rows(self) -> int:
        """The product of all dimensions but the last; 1 for a vector."""
        return int(np.prod(self.shape[:-1], dtype=np.int64)) if len(self.shape) > 1 else 1

    def release(self) -> None:
        """Give back the pages that were read, so that resident memory is bounded by a tensor and not by the file."""
        if hasattr(self.mapping, "madvise"):
            first = self.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self.mapping.madvise(mmap.MADV_DONTNEED, first, self.offset + self.data.size - first)

    def rows_bits(self, first: int, last: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the bit patterns of the floats in rows [first, last): uint16 or uint32 (last - first, cols).

        Raises Unsupported if the tensor does not hold floats.
        """
        if self.dtype not in FLOATS:
            raise Unsupported(f"is stored as {self.dtype}, expected {' or '.join(FLOATS)}", tensor=self.name)
        cols = self.shape[-1] if self.shape else 1
        size = FLOATS[self.dtype]
        raw = self.data[first * size * cols : last * size * cols]
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
    from safetensors import SafetensorError, safe_open

    mapping = map_input(path, smallest=8, what="a safetensors file")
    try:
        with safe_open(path, framework="np"):
            pass
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}", path=path) from error
    except (SafetensorError, ValueError) as error:
        hint = "the download may be cut short; fetch it again"
        raise Unreadable(f"is not a whole safetensors file: {error}", path=path, hint=hint) from error
    (length,) = struct.unpack_from("<Q", mapping)
    header = json.loads(mapping[8 : 8 + length])
    note = json.dumps(header.pop("__metadata__", None))
    data: Bytes = np.frombuffer(mapping, np.uint8)
    tensors = []
    for name, entry in header.items():
        if len(name) > LONGEST_NAME:
            raise Unreadable(f"a tensor's name has {len(name)} characters: {name[:40]!r}...", path=path)
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        shape = tuple(entry["shape"])
        tensors.append(StoredTensor(name, entry["dtype"], shape, data[first:last], path.name, mapping, first))
    return tensors, note

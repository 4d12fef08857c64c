"""The oracle's own reader of safetensors: names, shapes and rows, mapped into memory and widened to float32.

It shares no code with converter/sources/checkpoint.py, on purpose.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.inputs import open_input, read_input

F32 = npt.NDArray[np.float32]
Rows = slice | npt.NDArray[np.int64]
STORED = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "U8": "u1", "U32": "<u4", "I32": "<u4", "I64": "<i8"}
FLOATS = ("BF16", "F16", "F32")
CHUNK = 1 << 22
ALL = slice(None)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file; `raw` are its bytes, not read before they are used."""

    name: str
    kind: str
    shape: tuple[int, ...]
    raw: npt.NDArray[np.uint8]
    mapping: mmap.mmap
    offset: int  # of raw in the mapping

    def release(self) -> None:
        """Let go of the pages that were read: the checkpoint need not fit into memory."""
        if hasattr(self.mapping, "madvise"):
            first = self.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self.mapping.madvise(mmap.MADV_DONTNEED, first, self.offset + self.raw.size - first)

    def array(self, rows: Rows = ALL) -> npt.NDArray[Any]:
        """Elements as they are stored (bfloat16 as uint16), all or some rows."""
        if self.kind not in STORED:
            raise Unsupported(f"it holds {self.kind}, expected one of {', '.join(STORED)}", tensor=self.name)
        stored: npt.NDArray[Any] = self.raw.view(STORED[self.kind]).reshape(self.shape)
        return stored if isinstance(rows, slice) and rows == ALL else stored[rows]

    def floats(self, rows: Rows = ALL) -> F32:
        """Values in float32, exactly; never NaN or infinity."""
        if self.kind not in FLOATS:
            raise Unsupported(f"it holds {self.kind}, expected one of {', '.join(FLOATS)}", tensor=self.name)
        stored = self.array(rows)
        if self.kind == "BF16":
            bits = stored.astype(np.uint32)
            bits <<= 16  # in place: memory for large arrays that come and go is given back and zeroed each time
            wide: F32 = bits.view(np.float32)
        else:
            wide = stored.astype(np.float32)
        if not np.isfinite(wide).all():
            raise Unreadable("it holds values that are not finite", tensor=self.name)
        return wide

    def chunks(self) -> Iterator[F32]:
        """All rows in order, a few million values at a time."""
        step = max(1, CHUNK // self.shape[1])
        return (self.floats(slice(first, first + step)) for first in range(0, self.shape[0], step))


def open_tensors(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a checkpoint folder by name, and the free text in the headers of all its files."""
    tensors: dict[str, Tensor] = {}
    notes = []
    for name in _weight_files(folder):
        in_file, note = _open(folder / name)
        notes.append(note)
        for tensor in in_file:
            if tensor.name in tensors:
                raise Unreadable("it is in another file too", path=folder / name, tensor=tensor.name)
            tensors[tensor.name] = tensor
    if not tensors:
        raise Unreadable("there are no safetensors files with weights", path=folder)
    return tensors, " ".join(notes)


def _weight_files(folder: Path) -> list[str]:
    """As transformers: one file, else what the index names; else every shard."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        return ["model.safetensors"]
    if not index.exists():
        return sorted(path.name for path in folder.glob("model*.safetensors"))
    names = sorted(set(json.loads(read_input(index))["weight_map"].values()))
    for name in names:
        if Path(name).name != name:
            raise Unreadable(f"{name!r} is not a file of this folder", path=index)
    return names


def _open(path: Path) -> tuple[list[Tensor], str]:
    with open_input(path) as stream:
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    data = np.frombuffer(mapping, np.uint8)
    (size,) = struct.unpack("<Q", data[:8].tobytes())
    if size > len(data) - 8:
        raise Unreadable(f"a header of {size} bytes does not fit in {len(data)}", path=path)
    header = json.loads(data[8 : 8 + size].tobytes())
    note = json.dumps(header.pop("__metadata__", None))
    return [_tensor(path, name, entry, data[8 + size :], mapping) for name, entry in header.items()], note


def _tensor(path: Path, name: str, entry: dict[str, Any], data: npt.NDArray[np.uint8], mapping: mmap.mmap) -> Tensor:
    if len(name) > 512:
        raise Unreadable(f"the name {name[:40]!r}... has {len(name)} characters", path=path)
    kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, start, end)) or not start <= end <= len(data):
        raise Unreadable("its shape or place is impossible, or the file is truncated", path=path, tensor=name)
    if kind in STORED and math.prod(shape) * np.dtype(STORED[kind]).itemsize != end - start:
        message = f"{end - start} bytes are not its shape {list(shape)} in {kind}"
        raise Unreadable(message, path=path, tensor=name)
    return Tensor(name, kind, shape, data[start:end], mapping, len(mapping) - len(data) + start)

"""Writing safetensors in one streaming pass: names, dtypes and shapes first, then the data as it comes."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritpack.formats.files import atomic_output
from tritpack.formats.progress import ByteCount, Progress, silent

SIZES = {"U8": 1, "BF16": 2, "F16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor to be written: its name, its dtype as safetensors spells it, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * SIZES[self.dtype]


def write_safetensors(
    path: Path,
    entries: Sequence[Entry],
    data: Iterable[Iterable[npt.NDArray[np.generic]]],
    *,
    force: bool = False,
    progress: Progress = silent,
) -> None:
    """Write a safetensors file. data: for each entry, in order, its elements in pieces. progress: counts bytes.

    Raises UsageError, WriteFailed (see atomic_output), and ValueError if the pieces of a tensor do not have its size (a
    bug of the caller).
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        offsets = [offset, offset := offset + entry.nbytes]
        header[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with atomic_output(path, offset + len(raw) + 8, force=force) as stream:
        stream.write(struct.pack("<Q", len(raw)) + raw)
        count = ByteCount(progress, offset)
        for entry, pieces in zip(entries, data, strict=True):
            written = 0
            for piece in count.through(entry.name, pieces):
                stream.write(np.ascontiguousarray(piece).data)
                written += piece.nbytes
            if written != entry.nbytes:
                raise ValueError(f"tensor {entry.name!r}: planned {entry.nbytes} bytes, got {written}")
        count.end()

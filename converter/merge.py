"""The parts of a split file to one file, byte for byte."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import UsageError, WriteFailed
from tritpack.formats.files import refuse_existing
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.gguf_writer import TensorPlan, file_size, write_gguf
from tritpack.formats.progress import ByteCount, Progress, silent
from tritpack.formats.split_files import COUNT, KEYS

PIECE = 1 << 24
"""Bytes that are copied at once."""


@dataclasses.dataclass(frozen=True)
class Merged:
    """The result of a merge. parts: the files that were read, in order. path: the output, of so many bytes."""

    parts: tuple[Path, ...]
    path: Path
    tensors: int
    nbytes: int

    def __str__(self) -> str:
        return f"{self.path}: {self.nbytes} bytes, {self.tensors} tensors of {len(self.parts)} parts"


def merge(file: str | Path, output: str | Path, *, force: bool = False, progress: Progress | None = None) -> Merged:
    """Write a split GGUF, given by its first part, as one file.

    Metadata, tensors and their order stay; only the keys of the split go. So a set that convert has written becomes
    the file that it would have written without the split. force: overwrite an existing output.
    Raises Unreadable for parts that are missing, damaged or of another set, UsageError, WriteFailed.
    """
    path = Path(output)
    refuse_existing(path, force=force, inputs=[file])
    source = GgufFile(file)
    refuse_existing(path, force=force, inputs=source.files)
    if len(source.files) == 1 and not source.metadata.get(COUNT):
        raise UsageError("is one whole file, so there is nothing to merge", path=source.path, hint="use it as it is")
    metadata = {key: value for key, value in source.encoded_metadata().items() if key not in KEYS}
    tensors = [TensorPlan(t.name, t.shape, t.type_id, t.nbytes) for t in source.tensors.values()]
    write_gguf(
        path,
        metadata,
        tensors,
        _data(source, progress or silent),
        force=force,
        check=lambda partial: _check_written(partial, source),
        types=source.metadata_types,
    )
    nbytes = file_size(metadata, tensors, source.metadata_types)
    return Merged(tuple(source.files), path, len(tensors), nbytes)


def _data(source: GgufFile, progress: Progress) -> Iterator[Iterator[Bytes]]:
    count = ByteCount(progress, sum(tensor.nbytes for tensor in source.tensors.values()))
    for tensor in source.tensors.values():
        yield count.through(tensor.name, _pieces(source, tensor))
    count.end()


def _pieces(source: GgufFile, tensor: TensorInfo) -> Iterator[Bytes]:
    stored = source.bytes_of(tensor)
    for first in range(0, tensor.nbytes, PIECE):
        yield stored[first : first + PIECE]
        source.release(tensor)  # so that memory is bounded by a piece


def _check_written(partial: Path, source: GgufFile) -> None:
    """Read the header of the finished file. Raises WriteFailed if a tensor is not that of the source, Unreadable if a
    part has changed meanwhile."""
    source.unchanged.check()
    written = GgufFile(partial).tensors
    for name, tensor in source.tensors.items():
        if name not in written or (written[name].shape, written[name].layout) != (tensor.shape, tensor.layout):
            raise WriteFailed(f"was not written as {tensor.layout}", path=partial, tensor=name)

"""A GGUF file that stays on a server: its header, and the few bytes of tensors that say what they are.

They are put where they belong in a sparse file of the same size, so that whoever reads headers needs to know nothing of
servers. All other bytes of that file are holes, and read as zeros.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from tritpack.converter.sources.range_file import RangeFile, check_size
from tritpack.converter.sources.remote_checkpoint import AT_ONCE
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import TritpackError, Unreadable, WriteFailed, locating
from tritpack.formats.gguf_header import Header, TensorRow
from tritpack.formats.gguf_reader import GgufFile, ReadOptions, TensorInfo
from tritpack.formats.gguf_stream import GgufStream
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.bases import GridScales
from tritpack.formats.layouts.layout import HEAD_BYTES
from tritpack.formats.split_files import part_name

ROW_TENSOR = "blk.0.ffn_down.weight"
"""The tensor whose first row tells whether scales change within rows: see formats/model_metadata.py."""
LONGEST_ROW = 1 << 20
"""Bytes that are read of it; no row of a ternary layout is longer."""
LARGEST_PIECE = 1 << 20
"""Bytes of the largest tensor that is fetched: a scale beside a tensor has four."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,199}")
"""Names that are one part of a path on every system."""
MOST_HEADS = 4096
"""Tensors whose first bytes are asked for."""


def sparse_copies(files: Sequence[RangeFile], folder: Path) -> Path:
    """Write what headers need of the files of one GGUF, or of a split set, and return the path of the first.

    Raises Unreadable, WriteFailed, and what RangeFile.read raises.
    """
    paths = [folder / name for name in local_names(files)]
    for file, path in zip(files, paths):
        _sparse_copy(file, path)
    return paths[0]


def local_names(files: Sequence[RangeFile]) -> list[str]:
    """Return names for copies of the files of one GGUF: their own, or others where a server's name is not plain."""
    if all(PLAIN_NAME.fullmatch(file.name) for file in files):
        return [file.name for file in files]
    if len(files) == 1:
        return ["model.gguf"]
    return [part_name("model", number, len(files)) for number in range(1, len(files) + 1)]


def _sparse_copy(file: RangeFile, path: Path) -> None:
    read = bytearray()
    check_size(file.size, file.shown)

    def take(count: int) -> bytes:
        piece = file.read(len(read), min(len(read) + count, file.size))
        read.extend(piece)
        return piece

    with locating(path=file.shown):
        header = GgufStream(take, file.size).header
        if len(read) > header.data_offset:
            del read[header.data_offset :]
        spans = _spans(header, file.size)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        parts = list(pool.map(lambda span: file.read(*span), spans))
    try:
        with open(path, "wb") as stream:
            os.truncate(stream.fileno(), file.size)
            stream.write(read)
            for (first, _), part in zip(spans, parts):
                stream.seek(first)
                stream.write(part)
    except OSError as error:
        message = f"no file of {file.size} bytes can be made in {path.parent}: {error.strerror or error}"
        raise WriteFailed(message, path=file.shown, hint="TMPDIR names another folder") from error


def _spans(header: Header, size: int) -> list[tuple[int, int]]:
    """Return which bytes of tensors say what they are: [first, last)."""
    heads = [row for row in header.rows if _size_is_in_its_bytes(row)]
    if len(heads) > MOST_HEADS:
        raise Unreadable(f"has {len(heads)} tensors whose first bytes say their size, at most {MOST_HEADS} are asked")
    spans = [(row.start, row.start + HEAD_BYTES) for row in heads]
    for row in header.rows:
        if row.name == ROW_TENSOR and len(row.shape) == 2:
            ends = [other.start for other in header.rows if other.start > row.start]
            spans.append(
                (row.start, row.start + min((min(ends, default=size) - row.start) // row.shape[0], LONGEST_ROW))
            )
    return [(first, min(last, size)) for first, last in spans if first < min(last, size)]


def _size_is_in_its_bytes(row: TensorRow) -> bool:
    return any(isinstance(meaning.layout, GridScales) for meaning in catalog.meanings(row.type_id))


class RemoteGguf(GgufFile):
    """A GGUF that stays on a server. Tensors' bytes are fetched when they are asked for, and are bounded.

    ranges: its files. Opening reads what headers need. Raises what GgufFile, RangeFile.read and sparse_copies raise.
    """

    def __init__(self, ranges: Sequence[RangeFile]) -> None:
        self.ranges: Final = list(ranges)
        with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
            try:
                super().__init__(sparse_copies(ranges, Path(folder)), ReadOptions(any_part=True))
            except TritpackError as error:  # nobody knows the folder
                shown = {Path(folder) / name: file.shown for name, file in zip(local_names(ranges), ranges)}
                error.path = shown.get(Path(error.path or ""), error.path)
                raise

    @property
    def shown_files(self) -> list[str]:
        return [file.shown for file in self.ranges]

    def bytes_of(self, tensor: TensorInfo) -> Bytes:
        """The stored bytes of a tensor; of ROW_TENSOR, its first row, and zeros."""
        if tensor.name == ROW_TENSOR:
            return super().bytes_of(tensor)
        if tensor.nbytes > LARGEST_PIECE:
            message = f"its {tensor.nbytes} bytes stay on the server"
            raise Unreadable(message, path=self.ranges[tensor.file_index].shown, tensor=tensor.name)
        return RangeBytes(self.ranges[tensor.file_index]).view(tensor.file_offset, tensor.file_offset + tensor.nbytes)


class RangeBytes:
    """The bytes of a file's tensors, fetched when they are asked for: see safetensors_reader.TensorBytes."""

    def __init__(self, file: RangeFile) -> None:
        self._file = file

    def view(self, first: int, last: int) -> Bytes:
        return np.frombuffer(self._file.read(first, last), np.uint8)

    def release(self, first: int, last: int) -> None:
        pass

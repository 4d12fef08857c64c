"""The ternary tensors of a GGUF file whose bytes come once, in order, and are kept nowhere: a member of an archive."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable, locating
from tritpack.formats.gguf_header import Header, TensorRow, read_header
from tritpack.formats.gguf_reader import TensorInfo, tensor_info
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.layout import HEAD_BYTES, Layout
from tritpack.formats.split_files import NUMBER
from tritpack.formats.ternary import TernaryTensor

FIRST_READ = 1 << 20
LARGEST_HEADER = 256 << 20
"""Bytes: the largest vocabularies take 20 MB."""
LARGEST_TENSOR = 1 << 30
"""Weights, and bytes in the file: the largest ternary embedding has half of it. What is decoded is in memory."""

Read = Callable[[int], bytes]
"""Returns so many of the next bytes, fewer only at the end."""


@dataclasses.dataclass(frozen=True)
class StreamedTensor:
    """One ternary tensor. ternary: its codes, and its scales without what a tensor beside it multiplies them by; None
    if it cannot be decoded, for the reason `problem`."""

    info: TensorInfo
    stored: Bytes
    ternary: TernaryTensor | None
    problem: str | None = None


class GgufStream:
    """A GGUF file of `nbytes` bytes, read from its first byte on with `read`.

    first_part: `tilings` of the first part, where this is another part of a split file: the first one alone says how
    tensors are tiled. Opening reads the header. Raises Unreadable if that cannot be parsed.
    """

    def __init__(self, read: Read, nbytes: int, first_part: Mapping[str, Any] | None = None) -> None:
        self._read = read
        self._nbytes = nbytes
        self._pending = b""
        self._position = 0
        self.header = self._header()
        number = self.header.metadata.get(NUMBER)
        self.is_later_part = isinstance(number, int) and number > 0
        own = {key: value for key, value in self.header.metadata.items() if key == catalog.TILING_KEY}
        self.tilings: Mapping[str, Any] = first_part if first_part is not None and self.is_later_part else own
        self._layouts = catalog.layouts_of(self.tilings)

    def tensors(self) -> Iterator[StreamedTensor]:
        """Yield the ternary tensors in the order of their bytes. Other tensors are read over. Raises Unreadable."""
        rows: dict[int, list[TensorRow]] = {}
        for row in self.header.rows:
            rows.setdefault(row.start, []).append(row)
        starts = sorted(rows)
        for start, end in zip(starts, [*starts[1:], self._nbytes]):
            ternary = [row for row in rows[start] if self._may_be_ternary(row)]
            if not ternary:
                continue
            if len(ternary) > 1:  # a few bytes for each of a million tensors, and all of them are decoded
                raise Unreadable(f"begins where {ternary[0].name!r} does", tensor=ternary[1].name)
            if not self._position <= start < end <= self._nbytes:
                raise Unreadable("lies outside of the file", tensor=ternary[0].name)
            self._skip(start - self._position)
            data = self._gather(end - start, ternary[0].name)
            for row in ternary:
                if (tensor := self._decoded(row, data)) is not None:
                    yield tensor

    def _may_be_ternary(self, row: TensorRow) -> bool:
        return 0 not in row.shape and any(meaning.layout for meaning in catalog.meanings(row.type_id))

    def _gather(self, room: int, name: str) -> Bytes:
        if room > LARGEST_TENSOR:
            raise Unreadable(f"has {room} bytes, more than any tensor of a ternary model", tensor=name)
        return np.frombuffer(self._take(room), np.uint8)

    def _decoded(self, row: TensorRow, data: Bytes) -> StreamedTensor | None:
        with locating(tensor=row.name):
            info = tensor_info(row, data.size, self.header.alignment, bytes(data[:HEAD_BYTES]))
        layout: Layout | None = self._layouts.get(info.layout)
        if layout is None:  # another meaning of the same type id
            return None
        stored = data[: info.nbytes]
        if info.rows * info.cols > LARGEST_TENSOR:
            return StreamedTensor(info, stored, None, f"{info.rows} x {info.cols} is larger than any tensor")
        try:
            return StreamedTensor(info, stored, layout.unpack(stored, info.rows, info.cols))
        except Unreadable as error:
            return StreamedTensor(info, stored, None, error.message)

    # -- the bytes -----------------------------------------------------------------------------------------------------

    def _header(self) -> Header:
        """Parse the header from as many bytes as it takes; what is read beyond it stays pending."""
        size = FIRST_READ
        while True:
            self._pending += self._read(size - len(self._pending))
            whole = len(self._pending) < size or size >= min(self._nbytes, LARGEST_HEADER)
            try:
                return read_header(memoryview(self._pending))
            except Unreadable:
                if whole:
                    raise
            size *= 2

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._take(min(count, FIRST_READ)))

    def _take(self, count: int) -> bytes:
        data, self._pending = self._pending[:count], self._pending[count:]
        if len(data) < count:
            data += self._read(count - len(data))
        if len(data) < count:
            raise Unreadable(f"ends after {self._position + len(data)} bytes, inside a tensor")
        self._position += count
        return data

"""What becomes of one tensor while the blocks of its bytes come by.

A job takes the blocks in any order and from several threads. Float rows are encoded block by block, codes are packed
block by block where storage and layout allow it; everything else is gathered and done at the end.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from tritpack.converter.plan import Plan, PlannedTensor
from tritpack.converter.sources.source_tensors import Place, SourceTensor
from tritpack.converter.storage.row_reader import RowReader
from tritpack.converter.targets.layout_choice import LayoutChoice
from tritpack.formats import float_types
from tritpack.formats.arrays import Bytes, Codes, Scales
from tritpack.formats.errors import Unreadable, Unsupported, WriteFailed, locating
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.ternary import scales_differ

PART = 1 << 18
"""Bytes that are decoded at a time: they and their codes stay in the cache."""


class Sink(Protocol):
    """Where the bytes of tensors go, and what is noted of them. Tensors go by their names in the output."""

    def write(self, tensor: str, offset: int, data: Bytes) -> None:
        """Write bytes of a tensor, from `offset` in it on, which is a multiple of 8."""

    def note(self, tensor: str, scales: Scales, *, zero: bool) -> None:
        """Take note of the scales of a ternary tensor, and whether it is all zero."""

    def read(self, tensor: str, offset: int, nbytes: int) -> Bytes:
        """Return bytes of a tensor that were written."""

    def settle(self, tensor: str) -> None:
        """Take note that a tensor has got its other type, and that bytes of it were written twice."""

    def finish(self, tensor: str) -> None:
        """Hash a tensor that is finished, and take note of it."""

    def is_finished(self, tensor: str) -> bool:
        """Return whether an earlier run has finished it."""


class Job(abc.ABC):
    """The work on one tensor of the output.

    unit: a block holds a multiple of so many bytes; 0 if the job needs the whole tensor. keeps: whether the blocks have
    to stay in memory until `end`. place: of the tensor's bytes in the source; None if no blocks of it come by.
    """

    unit: int
    keeps: bool = False

    def __init__(self, tensor: PlannedTensor, sink: Sink) -> None:
        self.tensor = tensor
        self.sink = sink
        self.place = tensor.source.place

    @abc.abstractmethod
    def take(self, offset: int, data: Bytes) -> None:
        """Do what can be done with a block, which lies at `offset` in the tensor."""

    def end(self) -> list[Callable[[], None]]:
        """Return what is left to do after all blocks, as tasks that may run side by side."""
        return []

    def close(self) -> None:
        """Do what comes after these tasks."""
        self.sink.finish(self.tensor.output.name)

    def write(self, offset: int, data: Bytes) -> None:
        self.sink.write(self.tensor.output.name, offset, data)


class WholeJob(Job):
    """Any tensor: it is done when its bytes are complete."""

    unit = 0
    keeps = True

    def __init__(self, tensor: PlannedTensor, sink: Sink, choice: LayoutChoice) -> None:
        super().__init__(tensor, sink)
        self._choice = choice
        self._data: Bytes | None = None

    def take(self, offset: int, data: Bytes) -> None:
        self._data = data

    def end(self) -> list[Callable[[], None]]:
        return [self._pack if self.tensor.ternary else self._encode]

    def close(self) -> None:
        self._data = None
        self.tensor.source.release()
        super().close()

    def _source(self) -> SourceTensor:
        source = self.tensor.source
        return source if self._data is None else source.over(self._data)  # None: it lies in no file, or not by itself

    def _encode(self) -> None:
        source, kind, offset = self._source(), self.tensor.kind, 0
        with locating(tensor=source.name):
            if (stored := source.stored_as(kind)) is not None:
                self.write(0, stored)  # quantised once is enough
                return
            if self.tensor.otherwise and not all(float_types.survives(kind, piece) for piece in source.pieces()):
                kind = self.tensor.otherwise
                self.sink.settle(self.tensor.output.name)
            for piece in source.pieces():
                self.write(offset, data := float_types.encode(kind, piece))
                offset += data.size

    def _pack(self) -> None:
        source, name, choice = self._source(), self.tensor.output.name, self._choice
        with locating(tensor=source.name):
            ternary = source.ternary()
            assert ternary is not None  # the plan has looked
            stored = choice.stored(name, ternary)
            packed = choice.layout.pack(stored)
        back = choice.layout.unpack(packed, *stored.shape)
        if not np.array_equal(back.codes, stored.codes) or scales_differ(back, stored)[0].any():
            raise _not_survived(self.tensor)
        self.sink.note(name, ternary.scales, zero=not ternary.codes.any())
        self.write(0, packed)


class FloatRows(Job):
    """A tensor of floats, encoded block by block."""

    def __init__(self, tensor: PlannedTensor, sink: Sink) -> None:
        super().__init__(tensor, sink)
        self.unit = 8 * tensor.source.row_nbytes  # so that every block begins with a whole word of the output
        self._row_out = tensor.output.nbytes // (tensor.output.shape[0] if len(tensor.output.shape) > 1 else 1)

    def take(self, offset: int, data: Bytes) -> None:
        first = offset // self.tensor.source.row_nbytes
        with locating(tensor=self.tensor.source.name):
            self.write(first * self._row_out, self._encoded(data))

    def _encoded(self, data: Bytes) -> Bytes:
        source, plain = self.tensor.source, self.tensor.source.plain_type
        if plain is not None:
            with contextlib.suppress(Unsupported):  # for a value that is refused, in the words of the slower way
                return float_types.encode_rows(self.tensor.kind, plain, data, *self._shape(data))[0]
        rows = source.over(data)
        if (stored := rows.stored_as(self.tensor.kind)) is not None:
            return stored
        return np.concatenate([float_types.encode(self.tensor.kind, piece) for piece in rows.pieces()])

    def _shape(self, data: Bytes) -> tuple[int, int]:
        """Return (rows, cols) of a block."""
        return data.size // self.tensor.source.row_nbytes, self.tensor.output.shape[-1]


class CodeRows(Job):
    """A ternary tensor with one scale, decoded and packed block by block. Every packed block is decoded again."""

    def __init__(self, tensor: PlannedTensor, sink: Sink, layout: Layout, reader: RowReader) -> None:
        super().__init__(tensor, sink)
        self._layout, self._reader = layout, reader
        self.keeps = reader.looks_first
        self.unit = reader.row_nbytes * layout.row_unit
        self._blocks: dict[int, Bytes] = {}
        self._any = threading.Event()
        if not self.keeps:  # now, and not from a mapped file that somebody may cut short while threads work
            with locating(tensor=tensor.source.name):
                self._scales = reader.scales()
        rows, cols = tensor.output.shape
        head, tail = layout.frame((rows, cols), np.ones((1, 1), np.float32))
        self._head, self._row_out = head.size, (tensor.output.nbytes - head.size - tail.size) // rows

    def take(self, offset: int, data: Bytes) -> None:
        if not self.keeps:
            self._convert(offset, data)
            return
        with locating(tensor=self.tensor.source.name):
            self._reader.look(offset // self._reader.row_nbytes, data)
        self._blocks[offset] = data

    def end(self) -> list[Callable[[], None]]:
        if self.keeps:
            with locating(tensor=self.tensor.source.name):
                self._scales = self._reader.scales()
        return [functools.partial(self._convert, offset, data) for offset, data in self._blocks.items()]

    def close(self) -> None:
        self._blocks.clear()
        rows, cols = self.tensor.output.shape
        head, tail = self._layout.frame((rows, cols), self._scales)
        self.write(0, head)
        self.write(self.tensor.output.nbytes - tail.size, tail)
        self.sink.note(self.tensor.output.name, self._scales, zero=not self._any.is_set())
        super().close()

    def _convert(self, offset: int, data: Bytes) -> None:
        step = max(1, PART // self.unit) * self.unit
        for first in range(0, data.size, step):
            part = data[first : first + step]
            with locating(tensor=self.tensor.source.name):
                for row, codes in self._reader.codes((offset + first) // self._reader.row_nbytes, part):
                    self._pack(row, codes)

    def _pack(self, row: int, codes: Codes) -> None:
        body = np.zeros(len(codes) * self._row_out, np.uint8)
        self._layout.fill(codes, body)
        if not np.array_equal(self._layout.codes_of(body, *codes.shape), codes):
            raise _not_survived(self.tensor)
        if not self._any.is_set() and codes.any():
            self._any.set()
        self.write(self._head + row * self._row_out, body)


class OpenRows(FloatRows):
    """A table in bf16 that becomes f16 if every value survives, and stays bf16 if not. Both take two bytes a value."""

    def __init__(self, tensor: PlannedTensor, sink: Sink) -> None:
        super().__init__(tensor, sink)
        self._changed = threading.Event()
        self._narrowed: dict[int, int] = {}

    def take(self, offset: int, data: Bytes) -> None:
        if not self._changed.is_set():
            encoded = self._narrow(data)
            if encoded is not None:
                self._narrowed[offset] = data.size
                self.write(offset, encoded)
                return
            self._changed.set()
        if not float_types.rows_survive("bf16", "bf16", data, *self._shape(data)):
            raise Unreadable("holds a value that is not finite", tensor=self.tensor.source.name)
        self.write(offset, data)

    def end(self) -> list[Callable[[], None]]:
        if not self._changed.is_set():
            return []
        return [functools.partial(self._widen, offset, size) for offset, size in self._narrowed.items()]

    def close(self) -> None:
        if self._changed.is_set():
            self.sink.settle(self.tensor.output.name)
        super().close()

    def _narrow(self, data: Bytes) -> Bytes | None:
        """Return rows as f16, or None if a value does not survive."""
        with contextlib.suppress(Unsupported):
            encoded, survived = float_types.encode_rows("f16", "bf16", data, *self._shape(data))
            return encoded if survived else None
        return None

    def _widen(self, offset: int, size: int) -> None:
        """Write rows again as bf16, which gives back what they were: all of them survived."""
        narrow = self.sink.read(self.tensor.output.name, offset, size)
        self.write(offset, float_types.encode_rows("bf16", "f16", narrow, *self._shape(narrow))[0])


def jobs_of(plan: Plan, sink: Sink) -> list[Job]:
    """Return the job of each tensor of a plan that is not finished yet."""
    starts: dict[tuple[str, int], Place] = {}
    jobs = []
    for tensor in plan.tensors:
        place = tensor.source.place
        if sink.is_finished(tensor.output.name):
            continue
        if place is not None and place.nbytes and starts.setdefault(place[:2], place) == place:
            jobs.append(_job(tensor, plan.choice, sink))
        else:  # no bytes, or another tensor's bytes begin at the same place: it is read by itself
            jobs.append(job := WholeJob(tensor, sink, plan.choice))
            job.place = None
    return jobs


def _job(tensor: PlannedTensor, choice: LayoutChoice, sink: Sink) -> Job:
    if tensor.otherwise:
        return OpenRows(tensor, sink)
    if not tensor.ternary:
        return FloatRows(tensor, sink) if tensor.source.row_nbytes else WholeJob(tensor, sink, choice)
    if (reader := tensor.row_reader(choice.layout)) is not None:
        return CodeRows(tensor, sink, choice.layout, reader)
    return WholeJob(tensor, sink, choice)


def _not_survived(tensor: PlannedTensor) -> WriteFailed:
    return WriteFailed(f"did not survive {tensor.kind}; this is a bug of tritpack", tensor=tensor.output.name)

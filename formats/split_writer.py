"""Writing a split GGUF: where a list of tensors is cut, and all its files, which get their names together.

Names and keys are those of llama-gguf-split. Its limits count the bytes of tensors alone; here they are those of whole
files, since they come from what a disk or a host takes.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import UsageError
from tritpack.formats.files import atomic_set
from tritpack.formats.gguf_header import ALIGNMENT_KEY, MIN_HEADER
from tritpack.formats.gguf_writer import (
    TensorPlan,
    alignment_of,
    encode_header,
    encode_pairs,
    encode_row,
    file_size,
    padded,
    write_tensors,
)
from tritpack.formats.split_files import COUNT, MAX_PARTS, NUMBER, TENSORS, part_name

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
"""Units of --split-max-size, as in llama.cpp."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file to write. nbytes: its exact size. The keys of the split stand at the end of the metadata.

    Values that are known later, such as hashes, may replace others of the same length.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[TensorPlan, ...]
    nbytes: int

    def header(self, types: Mapping[str, str] | None = None) -> bytes:
        """Everything before the data section. types: see encode_header."""
        return encode_header(self.metadata, self.tensors, types)

    def offsets(self) -> list[int]:
        """Where each tensor begins, from byte 0 of the file."""
        sizes = [padded(tensor.nbytes, alignment_of(self.metadata)) for tensor in self.tensors]
        return list(itertools.accumulate(sizes, initial=self.nbytes - sum(sizes)))[: len(sizes)]


def parse_size(text: str) -> int:
    """Return the bytes of a text like 500M or 2G. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.upper(), re.ASCII)
    if match is None or int(match[1]) == 0:
        raise UsageError(f"{text!r} is not a size", hint="give a number with K, M or G (thousands of bytes): 500M, 2G")
    return int(match[1]) * UNITS[match[2]]


def split_plan(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[TensorPlan],
    types: Mapping[str, str] | None = None,
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    no_tensor_first_split: bool = False,
) -> list[Shard]:
    """Cut a file into shards, each as full as the limits allow, in the order of the tensors.

    path: of the whole; its name gives those of the shards. The first shard has the metadata, and no tensors if that is
    asked for or if they do not fit. What fits into one file is one: `path` itself, without the keys of a split.
    max_bytes: of a whole file. Raises UsageError for a limit that a single tensor, or the metadata, exceeds.
    """
    if max_tensors is not None and max_tensors < 1:
        raise UsageError(f"{max_tensors} tensors per file are too few", hint="give at least 1")
    groups = _Cut(metadata, types, max_bytes, max_tensors).cut(tensors, no_tensor_first_split)
    if len(groups) == 1:
        return [Shard(path, metadata, tuple(tensors), file_size(metadata, tensors, types))]
    if len(groups) > MAX_PARTS:
        raise UsageError(f"the limits ask for {len(groups)} files, and a split has at most {MAX_PARTS}")
    shards = []
    for index, group in enumerate(groups):
        keys = _keys(metadata, index, len(groups), len(tensors))
        name = part_name(path.name.removesuffix(".gguf"), index + 1, len(groups))
        shards.append(Shard(path.with_name(name), keys, tuple(group), file_size(keys, group, types)))
    return shards


def write_shards(
    shards: Sequence[Shard],
    data: Iterable[Iterable[Bytes]],
    *,
    force: bool = False,
    check: Callable[[Path], None] | None = None,
    types: Mapping[str, str] | None = None,
) -> None:
    """Write all shards in one streaming pass; they get their names when all are complete.

    data: for each tensor of all shards, in order, its bytes in pieces. check: is given the first of the complete
    temporary files. Raises what write_gguf does.
    """
    rest = iter(data)
    size = sum(shard.nbytes for shard in shards)
    with atomic_set([shard.path for shard in shards], size, force=force, check=check) as partials:
        for shard, partial in zip(shards, partials):
            with open(partial, "wb") as stream:
                stream.write(shard.header(types))
                mine = itertools.islice(rest, len(shard.tensors))
                write_tensors(stream, shard.tensors, mine, alignment_of(shard.metadata))
        if next(rest, None) is not None:
            raise ValueError("there are data after the last tensor")


def _keys(metadata: Mapping[str, Any], index: int, count: int, tensors: int) -> dict[str, Any]:
    """The metadata of a shard: all of it in the first, else no more than a reader needs. The order is that of
    llama-gguf-split, which therefore writes the same bytes."""
    kept = metadata if index == 0 else {key: metadata[key] for key in (ALIGNMENT_KEY,) if key in metadata}
    return {**kept, NUMBER: np.uint16(index), TENSORS: np.int32(tensors), COUNT: np.uint16(count)}


class _Cut:
    """Finds where shards end. max_bytes, max_tensors: the limits of each, None for no limit."""

    def __init__(
        self,
        metadata: Mapping[str, Any],
        types: Mapping[str, str] | None,
        max_bytes: int | None,
        max_tensors: int | None,
    ) -> None:
        self.max_bytes, self.max_tensors = max_bytes, max_tensors
        self.alignment = alignment_of(metadata)
        # The numbers of a shard have a fixed width, so any will do.
        self.fixed = [MIN_HEADER + len(encode_pairs(_keys(metadata, index, 1, 1), types)) for index in (0, 1)]
        self.groups: list[list[TensorPlan]] = []

    def cut(self, tensors: Iterable[TensorPlan], no_tensor_first_split: bool) -> list[list[TensorPlan]]:
        self._begin()
        if self._is_too_large(size := self._size()):
            message = f"a file with the metadata alone has {size} bytes, and {self.max_bytes} are allowed"
            raise UsageError(message, hint="allow larger files, or limit the number of tensors instead")
        if no_tensor_first_split:
            self._begin()
        for tensor in tensors:
            size = self._size(tensor)
            if len(self.groups[-1]) == self.max_tensors or self._is_too_large(size):
                self._begin()
                size = self._size(tensor)
            if self._is_too_large(size):
                message = f"takes a file of {size} bytes, and {self.max_bytes} are allowed"
                hint = "a tensor is never cut: allow larger files (--split-max-size, in a recipe split_max_size)"
                raise UsageError(message, tensor=tensor.name, hint=hint)
            self.groups[-1].append(tensor)
            self.header += len(encode_row(tensor))
            self.data += padded(tensor.nbytes, self.alignment)
        return self.groups

    def _begin(self) -> None:
        self.header, self.data = self.fixed[min(len(self.groups), 1)], 0
        self.groups.append([])

    def _size(self, tensor: TensorPlan | None = None) -> int:
        """Bytes of the file so far, and with one more tensor."""
        header, data = self.header, self.data
        if tensor is not None:
            header, data = header + len(encode_row(tensor)), data + padded(tensor.nbytes, self.alignment)
        return padded(header, self.alignment) + data

    def _is_too_large(self, size: int) -> bool:
        return self.max_bytes is not None and size > self.max_bytes

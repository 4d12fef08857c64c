"""A checkpoint on the Hub: small files in the cache, the headers of the weights by range requests, data on demand."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.hub_file import RemoteFile, RemoteReader
from tritpack.converter.sources.hub_repository import Repository
from tritpack.converter.sources.range_file import RangeFile
from tritpack.formats.arrays import Bytes
from tritpack.formats.files import sha256_file
from tritpack.formats.safetensors_reader import StoredTensor, header_bytes, read_header

FIRST_BYTES = 64 << 10
"""Bytes that are fetched of a shard at first: most headers are shorter."""
SMALL = 16
"""Bytes of the largest tensor that may be a scale of one element. All of a shard are fetched together."""
GAP = 64 << 10
"""Bytes between two of these that are fetched rather than skipped: another request takes as long."""
AT_ONCE = 8
"""Requests that run at the same time."""

Span = tuple[int, int]


class RemoteCheckpoint(CheckpointFolder):
    """A checkpoint on the Hub, whose weights stay there. folder: where its small files are."""

    def __init__(self, repository: Repository, folder: Path, shards: Iterable[str]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            opened = pool.map(lambda name: RemoteShard(RemoteFile(repository, name)), shards)
            self._shards = {shard.file.listed.name: shard for shard in opened}
        self._readers: dict[str, RemoteReader] = {}
        super().__init__(folder)

    def _names(self) -> set[str]:
        return {name for name in super()._names() if not name.endswith(".safetensors")} | {*self._shards}

    def _read_header(self, name: str) -> tuple[list[StoredTensor], str]:
        return self._shards[name].tensors, self._shards[name].note

    @property
    def shard_files(self) -> list[tuple[str, int]]:
        return [(name, self._shards[name].file.size) for name in self.weight_files]

    def open_shard(self, name: str) -> RemoteReader:
        self._readers[name] = RemoteReader(self._shards[name].file)
        return self._readers[name]

    def finish(self, name: str, sha256: str) -> None:
        self._readers.pop(name).check(sha256)

    def fingerprint(self) -> str:
        keys = [(name, self._shards[name].file.listed.key) for name in self.weight_files]
        return f"{super().fingerprint()} {keys}"

    @functools.cached_property
    def file_hashes(self) -> dict[str, str]:
        """The SHA-256 of each file, by name. Those of weights are the Hub's: `finish` compares them with the bytes."""
        return {
            name: self._shards[name].sha256() if name in self._shards else sha256_file(self.folder / name)
            for name in self.source_files
        }


class RangeShard:
    """A safetensors file of which parts are read, and whose header has been. The source of its tensors' bytes."""

    def __init__(self, file: RangeFile) -> None:
        self._file = file
        head = file.read(0, min(FIRST_BYTES, file.size))
        end = header_bytes(head[:8], file.size, file.shown)
        head = head[:end] + file.read(min(len(head), end), end)
        self.tensors, self.note = read_header(head, file.size, self, name=file.name, path=file.shown)

    def view(self, first: int, last: int) -> Bytes:
        small = self._small.get(first, b"") if last - first <= SMALL else b""
        return np.frombuffer(small if len(small) == last - first else self._file.read(first, last), np.uint8)

    def release(self, first: int, last: int) -> None:
        pass

    @functools.cached_property
    def _small(self) -> dict[int, bytes]:
        """The bytes of all small tensors, by offset."""
        spans = sorted((tensor.offset, tensor.offset + tensor.nbytes) for tensor in self.tensors)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = pool.map(self._fetch, _groups([(a, b) for a, b in spans if 0 < b - a <= SMALL]))
            return {offset: data for part in parts for offset, data in part.items()}

    def _fetch(self, group: list[Span]) -> dict[int, bytes]:
        begin = group[0][0]
        data = self._file.read(begin, group[-1][1])
        return {first: data[first - begin : last - begin] for first, last in group}


class RemoteShard(RangeShard):
    """A safetensors file on the Hub."""

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        super().__init__(file)

    def sha256(self) -> str:
        """Return the SHA-256 of the file: the Hub's, or where it lists another hash, that of its bytes."""
        if len(self.file.listed.key) == 64:
            return self.file.listed.key
        digest = hashlib.sha256()
        for piece in self.file.pieces():
            digest.update(piece)
        return digest.hexdigest()


def _groups(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """Yield sorted spans in groups that one request fetches."""
    group: list[Span] = []
    for span in spans:
        if group and span[0] - group[-1][1] > GAP:
            yield group
            group = []
        group.append(span)
    if group:
        yield group

"""The files of a source that hold its tensors, as a pass reads them."""

from __future__ import annotations

from typing import Protocol

from tritpack.converter.sources.checkpoint import CheckpointFolder, ShardReader
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.inputs import open_input


class Shards(Protocol):
    """What a pass asks of a source."""

    @property
    def shard_files(self) -> list[tuple[str, int]]:
        """The names and sizes of the files, in the order in which a pass reads them."""

    def open_shard(self, name: str) -> ShardReader:
        """Open a file at its first byte. Raises Unreadable, NetworkTrouble."""

    def finish(self, name: str, sha256: str) -> None:
        """Compare the hash of a file with what the source says of it. Raises IntegrityFailed."""

    def fingerprint(self) -> str:
        """Return what tells the source from others and from later versions of itself, as text."""


def shards_of(source: CheckpointFolder | GgufFile) -> Shards:
    """Return the files of a source. A folder, or a repository on the Hub, knows them itself."""
    return GgufShards(source) if isinstance(source, GgufFile) else source


class GgufShards:
    """The file of a GGUF, or all files of a split one."""

    def __init__(self, file: GgufFile) -> None:
        self._folder = file.path.parent
        self.fingerprint = file.unchanged.fingerprint
        self.shard_files = [(path.name, path.stat().st_size) for path in file.files]

    def open_shard(self, name: str) -> ShardReader:
        return open_input(self._folder / name)

    def finish(self, name: str, sha256: str) -> None:
        """Compare nothing: no hash of the file is known beforehand."""

"""Opening and reading a checkpoint that stays on the Hub, as a conversion does."""

from __future__ import annotations

import hashlib

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import open_source
from tritpack.converter.sources.remote_checkpoint import RemoteCheckpoint


def opened(name: str) -> RemoteCheckpoint:
    source = open_source(name, remote=True)
    assert isinstance(source, RemoteCheckpoint)
    return source


def streamed(source: CheckpointFolder, name: str, block: int = 10_007) -> bytes:
    """Read a shard as the conversion does, in blocks, and finish it."""
    data, buffer = bytearray(), bytearray(block)
    with source.open_shard(name) as shard:
        while count := shard.readinto(memoryview(buffer)):
            data += buffer[:count]
    source.finish(name, hashlib.sha256(data).hexdigest())
    return bytes(data)

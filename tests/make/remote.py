"""A hub to which the client of this process talks, and a checkpoint that stays on it, read as a conversion does."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.make.hub_server import HubServer
from tritpack.converter.sources import hub_errors
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import open_source
from tritpack.converter.sources.remote_checkpoint import RemoteCheckpoint


@contextlib.contextmanager
def serving(
    repos: Mapping[str, Path | Mapping[str, Path]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """Run a hub with these repositories, for a client with an empty cache and the token hf_secret."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    constants = pytest.importorskip("huggingface_hub.constants")

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(hub_errors, "PAUSES", (0.0,) * 5)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    with HubServer(repos) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        huggingface_hub.close_session()
        yield running
    huggingface_hub.close_session()


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

"""The bytes of files on the Hub: in order, over broken connections, and never of two versions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.make.hub_server import HubServer
from tests.make.remote import opened, streamed
from tritpack.converter.sources import hub_file, hub_transfer
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.formats.errors import IntegrityFailed, NetworkTrouble

huggingface_hub = pytest.importorskip("huggingface_hub")


def test_a_stream_is_the_file(server: HubServer, repos: dict[str, Path], tmp_path: Path) -> None:
    for source in (CheckpointFolder(repos["org/sharded"]), opened("org/sharded")):
        for name, size in source.shard_files:
            data = streamed(source, name)
            assert len(data) == size and data == (repos["org/sharded"] / name).read_bytes(), name
    assert not [path for path in (tmp_path / "cache").rglob("*.safetensors") if path.exists()]


@pytest.mark.parametrize("cut", [200_000, -200_000], ids=["closed", "reset"])
def test_a_cut_stream_continues_at_its_byte(server: HubServer, repos: dict[str, Path], cut: int) -> None:
    source = opened("org/tiny")
    server.cuts["model.safetensors"] = [200_000, cut, 0, 1]
    server.requests.clear()
    assert streamed(source, "model.safetensors") == (repos["org/tiny"] / "model.safetensors").read_bytes()
    starts = [int((sent or "")[6:-1]) for sent in server.sent_ranges("model.safetensors")]
    assert starts[:2] == [0, 200_000] and starts == sorted(starts) and len(starts) == 5


def test_tries_without_progress_are_bounded(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened("org/tiny")
    server.cuts["model.safetensors"] = [50_000, *[0] * 5]
    with pytest.raises(NetworkTrouble, match=r"connection"):
        streamed(source, "model.safetensors")
    # With progress they are not: each of these answers is enough to begin counting again.
    monkeypatch.setattr(hub_file, "ENOUGH", 1000)
    server.cuts["model.safetensors"] = [1000] * 20
    streamed(source, "model.safetensors")


def test_a_silent_server_is_not_waited_for(
    server: HubServer, repos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened("org/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    server.stalls.add("model.safetensors")
    assert streamed(source, "model.safetensors") == (repos["org/tiny"] / "model.safetensors").read_bytes()
    assert not server.stalls and len(server.sent_ranges("model.safetensors")) == 3
    monkeypatch.setattr(hub_transfer, "PATIENCE", 0.5)
    server.trickle.add("model.safetensors")
    with pytest.raises(NetworkTrouble, match=r"no progress in 0.5 seconds"):
        streamed(source, "model.safetensors")


def test_whoever_takes_the_bytes_may_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Answer:
        def iter_bytes(self) -> Iterator[bytes]:
            for _ in range(4):
                clock[0] += 1
                yield b"a"

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    taken = 0
    for _ in hub_transfer.pieces_of(Answer(), "a file"):
        clock[0] += 1000
        taken += 1
    assert taken == 4


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json"])
def test_a_wrong_hash(server: HubServer, name: str) -> None:
    server.corrupt.add(name)
    with pytest.raises(IntegrityFailed, match=rf"{name} has hash [0-9a-f]+, expected [0-9a-f]+") as raised:
        source = opened("org/sharded")
        for shard, _ in source.shard_files:
            streamed(source, shard)
    assert raised.value.path == "org/sharded"


def test_a_weight_file_that_is_not_large(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file has a git blob id, which is counted while it is read."""
    monkeypatch.setattr("tests.make.hub_server.LARGE", ())
    source = opened("org/tiny")
    streamed(source, "model.safetensors")
    assert (
        source.file_hashes["model.safetensors"] == server.snapshots["org/tiny", "main"][1]["model.safetensors"].sha256
    )
    server.corrupt.add("model.safetensors")
    with pytest.raises(IntegrityFailed, match=r"has hash"):
        streamed(source, "model.safetensors")


def test_another_version_is_not_mixed_in(server: HubServer) -> None:
    server.etags["model.safetensors"] = ['"first"']
    source = opened("org/tiny")
    server.etags["model.safetensors"] = ['"first"', '"second"']
    server.cuts["model.safetensors"] = [200_000]
    with pytest.raises(IntegrityFailed, match=r"was changed on the server") as raised:
        streamed(source, "model.safetensors")
    assert raised.value.path == "org/tiny"


def test_other_bytes_than_those_asked_for(server: HubServer) -> None:
    source = opened("org/tiny")
    server.shifted.add("model.safetensors")
    with pytest.raises(NetworkTrouble, match=r"has bytes 1-\d+/\d+, expected byte 0 of \d+"):
        streamed(source, "model.safetensors")


def test_a_file_that_does_not_end(server: HubServer) -> None:
    source = opened("org/tiny")
    server.endless.add("model.safetensors")
    with pytest.raises(IntegrityFailed, match=r"sends more of model.safetensors"):
        streamed(source, "model.safetensors")


def test_only_public_names_of_the_client_are_used() -> None:
    public = {"huggingface_hub": {*huggingface_hub.__all__, "constants"}, "huggingface_hub.utils": {"tqdm"}}
    imported = [
        (path.name, node.module, name.name)
        for path in (REPOSITORY / "converter" / "sources").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("huggingface_hub")
        for name in node.names
    ]
    assert len(imported) > 10
    assert [line for line in imported if line[2] not in public.get(line[1] or "", ())] == []


def test_the_clients_download_discards_a_cut_one(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """snapshot_download would have Xet's speed; it is not used because its next run begins at byte 0 again."""

    def download() -> None:
        name = "model.safetensors"
        huggingface_hub.snapshot_download("org/tiny", cache_dir=tmp_path / "client", allow_patterns=[name])

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.cuts["model.safetensors"] = [300_000, *[0] * 5]
    with pytest.raises(Exception):  # noqa: B017 (its class changes with the client's HTTP library)
        download()
    server.cuts.clear()
    server.requests.clear()
    download()
    assert server.sent_ranges("model.safetensors") == [None]

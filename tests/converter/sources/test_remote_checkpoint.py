"""A checkpoint that stays on the Hub: planned from its headers, and streamed, against a hub of ours on this machine."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.make.checkpoints import read_safetensors
from tests.make.hub_server import HubServer
from tritpack.converter.options import ConvertOptions
from tritpack.converter.plan import make_plan
from tritpack.converter.sources import hub_errors, hub_file, hub_transfer
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import open_source
from tritpack.converter.sources.remote_checkpoint import RemoteCheckpoint
from tritpack.formats.errors import IntegrityFailed, NetworkTrouble, Unreadable

huggingface_hub = pytest.importorskip("huggingface_hub")

HOLE = 3 << 30
"""Bytes of a tensor that nothing needs, in the middle of the file."""
OPTIONS = ConvertOptions(embedding_type="f16")


def write_shard(path: Path, tensors: dict[str, tuple[str, list[int], bytes]], hole_after: int | None = None) -> None:
    """Write tensors, with a hole of HOLE bytes after so many of them."""
    header: dict[str, object] = {}
    offset = 0
    for number, (name, (dtype, shape, data)) in enumerate(tensors.items()):
        if number == hole_after:
            header["unused"] = {"dtype": "U8", "shape": [HOLE], "data_offsets": [offset, offset + HOLE]}
            offset += HOLE
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for number, (_, _, data) in enumerate(tensors.values()):
            if number == hole_after:
                stream.seek(HOLE, 1)
            stream.write(data)


@pytest.fixture(scope="module")
def repos(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("repositories")
    tensors = read_safetensors(tiny_checkpoint / "model.safetensors")
    for name in ("sharded", "sparse", "broken"):
        shutil.copytree(tiny_checkpoint, base / name)
        (base / name / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for number, names in enumerate((list(tensors)[::2], list(tensors)[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        write_shard(base / "sharded" / file, {name: tensors[name] for name in names})
        weight_map |= dict.fromkeys(names, file)
    (base / "sharded" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    write_shard(base / "sparse" / "model.safetensors", tensors, len(tensors) // 2)
    (base / "broken" / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + bytes(100))
    return {"org/tiny": tiny_checkpoint, **{f"org/{name}": base / name for name in ("sharded", "sparse", "broken")}}


@pytest.fixture
def server(repos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub, to which the client of this process talks."""
    from huggingface_hub import constants

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(hub_errors, "PAUSES", (0.0,) * 5)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
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


# -- planning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "sharded"])
def test_a_plan_is_that_of_the_download(server: HubServer, repos: dict[str, Path], name: str) -> None:
    local, remote = CheckpointFolder(repos[f"org/{name}"]), opened(f"org/{name}")
    plans = [make_plan(source, OPTIONS, hashed=True) for source in (local, remote)]
    for field in ("why", "warnings", "unused", "output_bytes", "peak_bytes", "types"):
        assert getattr(plans[0], field) == getattr(plans[1], field), field
    assert plans[0].metadata.keys() == plans[1].metadata.keys()
    for key, value in plans[0].metadata.items():
        assert np.array_equal(plans[1].metadata[key], value), key
    assert [tensor.output for tensor in plans[0].tensors] == [tensor.output for tensor in plans[1].tensors]
    assert local.shard_files == remote.shard_files and local.file_hashes == remote.file_hashes


def test_a_plan_reads_little_of_a_large_shard(server: HubServer, tmp_path: Path) -> None:
    plan = make_plan(opened("org/sparse"), OPTIONS, hashed=True)
    assert plan.unused == ("unused",)
    ternary = [tensor for tensor in plan.tensors if tensor.ternary]
    assert len(ternary) == 14 and all((tensor.source.scales() > 0).all() for tensor in ternary)
    ranges = [request.range for request in server.requests if request.elsewhere]
    assert None not in ranges and len(ranges) == 3  # the header, and the scales on both sides of the hole
    assert server.sent < 1 << 20
    assert {request.token for request in server.requests if request.elsewhere} == {None}
    assert not [path for path in tmp_path.rglob("*.safetensors") if path.exists()]


def test_data_are_those_of_the_file(server: HubServer, repos: dict[str, Path]) -> None:
    local, remote = CheckpointFolder(repos["org/tiny"]), opened("org/tiny")
    for name, tensor in local.tensors.items():
        assert np.array_equal(remote.tensors[name].data, tensor.data), name
        assert remote.tensors[name].has_data_of(tensor), name
    table = "model.embed_tokens.weight"
    server.sent = 0
    rows = remote.tensors[table].rows_f32(3, 5)
    assert np.array_equal(rows, local.tensors[table].rows_f32(3, 5))
    assert server.sent == rows.size * 2
    assert not remote.tensors[table].has_data_of(local.tensors["model.norm.weight"])


def test_a_header_is_bounded(server: HubServer) -> None:
    with pytest.raises(Unreadable, match=rf"org/broken/model.safetensors: .* a header of {1 << 40} bytes"):
        opened("org/broken")
    server.snapshots["org/tiny", "main"][1]["model.safetensors"].data = b"1234567"
    with pytest.raises(Unreadable, match=r"7 bytes are too few"):
        opened("org/tiny")


def test_a_header_is_judged_as_that_of_a_local_file(server: HubServer) -> None:
    # The whole file is one byte shorter than its header says.
    stored = server.snapshots["org/tiny", "main"][1]["model.safetensors"]
    stored.data = stored.data[:-1]
    with pytest.raises(Unreadable, match=r"org/tiny/model.safetensors: is not a whole safetensors file"):
        opened("org/tiny")


def test_a_server_without_ranges(server: HubServer, repos: dict[str, Path]) -> None:
    source = opened("org/tiny")
    server.whole.add("model.safetensors")
    with pytest.raises(NetworkTrouble, match=r"does not send parts of model.safetensors") as raised:
        source.tensors["model.embed_tokens.weight"].rows_f32(0, 1)
    assert raised.value.path == "org/tiny" and raised.value.hint is not None and "--stream" in raised.value.hint
    # All of it can be had, and a cut answer continues: what is there already is passed over.
    server.cuts["model.safetensors"] = [200_000, 300_000]
    assert streamed(source, "model.safetensors") == (repos["org/tiny"] / "model.safetensors").read_bytes()


def test_without_an_answer_the_cache_is_used(server: HubServer, repos: dict[str, Path]) -> None:
    folder = open_source("org/tiny")
    assert isinstance(folder, CheckpointFolder)
    server.failures = [["/api/models", 503, 99]]
    cached = open_source("org/tiny", remote=True)
    assert type(cached) is CheckpointFolder and cached.folder == folder.folder
    with pytest.raises(NetworkTrouble):
        open_source("org/sharded", remote=True)


# -- streaming ---------------------------------------------------------------------------------------------------------


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
    stored = server.snapshots["org/tiny", "main"][1]["model.safetensors"]
    assert {request.if_range for request in server.requests} == {f'"{stored.sha256}"'}


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


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_another_version_is_not_mixed_in(server: HubServer, honours_if_range: bool) -> None:
    server.etags["model.safetensors"] = ['"first"']
    source = opened("org/tiny")
    server.etags["model.safetensors"] = ['"first"', '"second"']
    server.cuts["model.safetensors"] = [200_000]
    if not honours_if_range:
        server.etags["model.safetensors"] = ['W/"second"']
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
        for path in (REPOSITORY / "converter").rglob("*.py")
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

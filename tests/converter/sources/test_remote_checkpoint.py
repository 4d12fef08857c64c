"""A checkpoint that stays on the Hub is planned from its headers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.make.hub_server import HubServer
from tests.make.remote import opened, streamed
from tritpack.converter.options import ConvertOptions
from tritpack.converter.plan import make_plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import open_source
from tritpack.formats.errors import NetworkTrouble, Unreadable

huggingface_hub = pytest.importorskip("huggingface_hub")

OPTIONS = ConvertOptions(embedding_type="f16")


@pytest.mark.parametrize("name", ["tiny", "sharded"])
def test_a_plan_is_that_of_the_download(server: HubServer, repos: dict[str, Path], name: str) -> None:
    local, remote = CheckpointFolder(repos[f"org/{name}"]), opened(f"org/{name}")
    told = dataclasses.replace(OPTIONS, name=name, origin=remote.origin)
    plans = [make_plan(local, told), make_plan(remote, OPTIONS)]
    for field in ("why", "warnings", "unused", "output_bytes", "peak_bytes", "types"):
        assert getattr(plans[0], field) == getattr(plans[1], field), field
    assert plans[0].metadata.keys() == plans[1].metadata.keys()
    for key, value in plans[0].metadata.items():
        assert np.array_equal(plans[1].metadata[key], value), key
    assert [tensor.output for tensor in plans[0].tensors] == [tensor.output for tensor in plans[1].tensors]
    assert local.shard_files == remote.shard_files and local.file_hashes == remote.file_hashes


def test_a_plan_reads_little_of_a_large_shard(server: HubServer, tmp_path: Path) -> None:
    plan = make_plan(opened("org/sparse"), OPTIONS)
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

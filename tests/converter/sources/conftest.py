"""A hub on this machine with checkpoints, to which the client of this process talks."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.make.checkpoints import read_safetensors
from tests.make.hub_server import HubServer
from tests.make.remote import serving

HOLE = 3 << 30
"""Bytes of a tensor that nothing needs, in the middle of the file of org/sparse."""


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
    with serving(repos, tmp_path / "cache", monkeypatch) as running:
        yield running

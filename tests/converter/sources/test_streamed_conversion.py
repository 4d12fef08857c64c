"""convert --stream: the bytes of a local conversion, and no checkpoint on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import exit_code_of, run
from tests.make.hub_server import HubServer
from tests.make.remote import serving
from tritpack.converter.convert import convert
from tritpack.converter.sources.checkpoint import HASHED_FILES
from tritpack.converter.sources.hub_choice import SMALL_FILES
from tritpack.formats.errors import IntegrityFailed
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.integrity import recorded_hashes
from tritpack.formats.model_metadata import from_gguf

pytest.importorskip("huggingface_hub")


@pytest.mark.parametrize("name", ["tiny", "sharded"])
def test_a_streamed_conversion_is_the_local_one(name: str, server: HubServer, tmp_path: Path) -> None:
    convert(f"org/{name}", tmp_path / "streamed.gguf", stream=True)
    assert not [path for path in (tmp_path / "cache").rglob("*.safetensors") if path.exists()]
    convert(f"org/{name}", tmp_path / "local.gguf")
    assert (tmp_path / "streamed.gguf").read_bytes() == (tmp_path / "local.gguf").read_bytes()


def test_all_files_of_a_checkpoint_are_fetched(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack with a rotated basis has its contract in a file of its own."""
    assert all(map(SMALL_FILES.fullmatch, HASHED_FILES))
    folder = shared / "checkpoints" / "bonsai2_rotated_mlx"
    with serving({"org/pack": folder}, tmp_path / "cache", monkeypatch):
        convert("org/pack", tmp_path / "streamed.gguf", stream=True, outtype="t2")
    convert(folder, tmp_path / "local.gguf", outtype="t2")
    streamed, local = (GgufFile(tmp_path / f"{name}.gguf") for name in ("streamed", "local"))
    rotation = from_gguf(streamed).rotation
    assert rotation is not None and rotation == from_gguf(local).rotation
    assert recorded_hashes(streamed) == recorded_hashes(local)


def test_a_cut_connection_goes_on_at_its_byte(server: HubServer, tmp_path: Path) -> None:
    convert("org/tiny", tmp_path / "whole.gguf", stream=True)
    server.cuts["model.safetensors"] = [100_000, 200_000]
    convert("org/tiny", tmp_path / "streamed.gguf", stream=True)
    assert (tmp_path / "streamed.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_other_bytes_than_the_hub_lists_are_no_file(server: HubServer, tmp_path: Path) -> None:
    stored = server.snapshots["org/tiny", "main"][1]["model.safetensors"]
    stored.data = stored.data[:-2] + b"\x00\x00"
    with pytest.raises(IntegrityFailed, match=r"model.safetensors"):
        convert("org/tiny", tmp_path / "x.gguf", stream=True)
    assert not list(tmp_path.glob("*x.gguf*"))


def test_a_dry_run_downloads_no_weights(server: HubServer, tmp_path: Path) -> None:
    result = run("convert", "org/sparse", "-o", str(tmp_path / "x.gguf"), "--dry-run", "--json")
    assert exit_code_of(result) == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["outtype"] == "i2_s" and plan["estimated_seconds"] > 0 and server.sent < 1 << 20
    assert not [path for path in tmp_path.rglob("*.safetensors") if path.exists()]


def test_stream_is_for_the_hub(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """A local source is read in one pass in any case."""
    convert(tiny_checkpoint, tmp_path / "x.gguf", stream=True)
    assert (tmp_path / "x.gguf").read_bytes() == tiny_gguf.read_bytes()

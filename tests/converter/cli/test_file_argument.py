"""FILE arguments that are bundles: the GGUF that is needed is unpacked, used, and removed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import exit_code_of, run
from tritpack.converter.convert import convert
from tritpack.converter.release.bundle.create import create_bundle
from tritpack.converter.release.bundle.gguf_member import bundle_in
from tritpack.converter.repack import repack


@pytest.fixture(scope="module")
def bundles(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `one.tar.zst` (i2_s) and `two.tar.zst` (the same as t158, in three parts, besides)."""
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    convert(tiny_checkpoint, folder / "one" / "m-I2_S.gguf")
    convert(tiny_checkpoint, folder / "two" / "m-I2_S.gguf")
    convert(tiny_checkpoint, folder / "two" / "m-T158.gguf", outtype="t158", split_max_tensors=10)
    for name in ("one", "two"):
        create_bundle(folder / name, folder / f"{name}.tar.zst")
    return folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files; it is empty at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def test_the_only_gguf_of_a_bundle_is_used(bundles: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle, plain = bundles / "one.tar.zst", bundles / "one" / "m-I2_S.gguf"
    result = run("verify", bundle, "--source", tiny_checkpoint, "--level", "weights", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["verdict"] == "pass" and report["file"] == str(bundle)
    assert "unpacked m-I2_S.gguf into a temporary folder" in result.stderr
    for command in (["generate", "-p", "sea", "-n", "3"], ["tokenize", "-p", "sea"]):
        found, expected = (json.loads(run(command[0], file, *command[1:], "--json").stdout) for file in (bundle, plain))
        assert found["ids"] == expected["ids"], command
    assert run("repack", bundle, "-o", tmp_path / "t.gguf", "--outtype", "t158", "-q").exit_code == 0
    repack(plain, tmp_path / "expected.gguf", outtype="t158")
    assert (tmp_path / "t.gguf").read_bytes() == (tmp_path / "expected.gguf").read_bytes()
    assert run("export", bundle, "-o", tmp_path / "folder", "-q").exit_code == 0
    assert (tmp_path / "folder" / "model.safetensors").is_file()


def test_inspect_shows_the_gguf_of_a_bundle(bundles: Path) -> None:
    bundle = bundles / "one.tar.zst"
    found = json.loads(run("inspect", bundle, "--stats", "--json").stdout)
    expected = json.loads(run("inspect", bundles / "one" / "m-I2_S.gguf", "--stats", "--json").stdout)
    assert (found.pop("file"), found.pop("files")) == (str(bundle), ["m-I2_S.gguf"])
    del expected["file"], expected["files"]
    assert all(str(bundle) in row["command"] for row in found["engines"] if row["command"])
    for row in (*found["engines"], *expected["engines"]):
        del row["command"]
    assert found == expected


def test_one_of_several_is_named(bundles: Path) -> None:
    bundle = bundles / "two.tar.zst"
    result = run("inspect", bundle)
    assert exit_code_of(result) == 2
    assert "has 2 GGUF files: m-I2_S.gguf, m-T158-00001-of-00003.gguf" in str(result.exception)
    assert "two.tar.zst#m-I2_S.gguf" in result.exception.hint
    for member, layout in {"m-I2_S.gguf": "i2_s", "m-T158-00001-of-00003.gguf": "t158"}.items():
        found = json.loads(run("inspect", f"{bundle}#{member}", "--json").stdout)
        assert layout in found["layouts"] and not found["problems"], member
    result = run("inspect", f"{bundle}#m-TL1.gguf")
    assert exit_code_of(result) == 2 and "has no GGUF file 'm-TL1.gguf'" in str(result.exception)


def test_errors_name_the_bundle(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("inspect", tmp_path / "no.tar.zst")
    assert exit_code_of(result) == 3 and "no.tar.zst: cannot be read" in str(result.exception)
    bundle = bundles / "one.tar.zst"
    result = run("logits", bundle, "--tokens", "1", "-o", bundle, "--force")
    assert exit_code_of(result) == 2 and "is an input" in str(result.exception)
    result = run("repack", bundle, "-o", bundle, "--force")
    assert exit_code_of(result) == 2 and "is an input" in str(result.exception)
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "README.md").write_text("a card")
    create_bundle(tmp_path / "release", tmp_path / "empty.tar.zst")
    result = run("generate", tmp_path / "empty.tar.zst", "-p", "sea")
    assert exit_code_of(result) == 2 and "has no GGUF file" in str(result.exception)
    (tmp_path / "release" / "bad.gguf").write_bytes(b"GGUF" + bytes(40))
    create_bundle(tmp_path / "release", tmp_path / "bad.tar.zst")
    result = run("generate", tmp_path / "bad.tar.zst", "-p", "sea")
    assert exit_code_of(result) == 3 and "bad.tar.zst: has unknown GGUF version 0" in str(result.exception)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    result = run("generate", bundle, "-p", "sea")
    assert exit_code_of(result) == 5 and "TMPDIR" in result.exception.hint


def test_a_damaged_bundle_is_not_used(bundles: Path, tmp_path: Path) -> None:
    damaged = bytearray((bundles / "one.tar.zst").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "one.tar.zst").write_bytes(damaged)
    assert exit_code_of(run("inspect", tmp_path / "one.tar.zst")) in (3, 6)


def test_only_names_of_bundles_are_bundles(tmp_path: Path) -> None:
    for name in ("m.gguf", "ORG/NAME", "m.gguf#x", "x.tar.zst.gguf"):
        assert bundle_in(name) is None, name
    (tmp_path / "folder.tar.zst").mkdir()
    assert bundle_in(str(tmp_path / "folder.tar.zst")) is None
    assert bundle_in("x.tar.zst") == (Path("x.tar.zst"), None)
    assert bundle_in("a/x.tar.zst#sub/m.gguf") == (Path("a/x.tar.zst"), "sub/m.gguf")

"""Bundles: the same bytes for the same files, read once, and unpacked whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import exit_code_of, run
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.release.bundle import archive
from tritpack.converter.release.bundle.check import check_bundle, list_bundle
from tritpack.converter.release.bundle.create import create_bundle
from tritpack.converter.release.bundle.extract import extract_bundle
from tritpack.converter.release.contents import Contents, ContentsReader
from tritpack.converter.release.manifest import NAME, read_manifest, write_manifest
from tritpack.formats.errors import IntegrityFailed, Unreadable, UsageError
from tritpack.formats.gguf_stream import Read


@pytest.fixture(scope="module")
def release(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "release"
    (folder / "tokenizer").mkdir(parents=True)
    shutil.copy(demo_gguf, folder / "demo-I2_S.gguf")
    (folder / "README.md").write_text("a card\n")
    (folder / "tokenizer" / "größe.json").write_text("{}")
    (folder / ("n" * 120 + ".txt")).write_text("a long name")
    return folder


@pytest.fixture(scope="module")
def bundle(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "demo.tar.zst"
    create_bundle(release, path)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_unpacks_to_the_files_and_their_manifest(release: Path, bundle: Path, tmp_path: Path) -> None:
    folder = extract_bundle(bundle, tmp_path / "out")
    files = files_of(folder)
    assert files.pop(NAME) == list_bundle(bundle).encoded()
    assert files == files_of(release)
    assert read_manifest(folder) == list_bundle(bundle)
    assert check_bundle(folder).tensors == check_bundle(bundle).tensors == 28


def test_tar_unpacks_it_too(release: Path, bundle: Path, tmp_path: Path) -> None:
    if shutil.which("tar") is None or shutil.which("zstd") is None:
        pytest.skip("tar or zstd is not installed")
    subprocess.run(["tar", "--zstd", "-xf", bundle, "-C", tmp_path], check=True)
    files = files_of(tmp_path)
    del files[NAME]
    assert files == files_of(release)


def test_the_bytes_depend_on_the_files_alone(release: Path, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "named otherwise"
    shutil.copytree(release, copy)
    for path in copy.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    before = os.umask(0o077)
    try:
        create_bundle(copy, tmp_path / "other.tar.zst", threads=1)
        write_manifest(copy)
        create_bundle(copy, tmp_path / "with a manifest.tar.zst", threads=3)
    finally:
        os.umask(before)
    assert (tmp_path / "other.tar.zst").read_bytes() == bundle.read_bytes()
    assert (tmp_path / "with a manifest.tar.zst").read_bytes() == bundle.read_bytes()


def test_several_jobs_give_the_same_bytes_with_any_number_of_threads() -> None:
    """More bytes than one job has, in pieces of another size than a job's."""
    data = bytes(range(256)) * (3 * archive.JOB_SIZE // 256) + b"end"
    pieces = [data[first : first + 777_777] for first in range(0, len(data), 777_777)]
    made = set()
    for threads in (1, 2, 5):
        compressor = archive.new_compressor(threads, len(data))
        made.add(b"".join(map(compressor.compress, pieces)) + compressor.flush())
    assert len(made) == 1


def test_i2_s_is_within_two_percent_of_the_entropy(release: Path, tmp_path: Path) -> None:
    """The decision for ordinary GGUF files as members rests on this."""
    part = create_bundle(release, tmp_path / "x.tar.zst").ternary["demo-I2_S.gguf"]
    rows = inspect(release / "demo-I2_S.gguf", stats=True)["tensors"]
    weights = {row["name"]: row["shape"][0] * row["shape"][1] for row in rows if "entropy_bits" in row}
    bits = sum(row["entropy_bits"] * weights[row["name"]] for row in rows if "entropy_bits" in row)
    assert part.weights == sum(weights.values())
    assert part.bound == pytest.approx(bits / part.weights, rel=1e-12)
    assert part.bits_per_weight is not None and 0.99 < part.bits_per_weight / part.bound < 1.02


def test_each_file_is_read_once_and_nothing_is_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = ContentsReader.read

    def noted(self: ContentsReader, path: str, nbytes: int, source: Read) -> Contents:
        read.append(path)
        return whole(self, path, nbytes, source)

    monkeypatch.setattr(ContentsReader, "read", noted)
    monkeypatch.chdir(tmp_path)
    check_bundle(bundle)
    assert read == list(list_bundle(bundle).files)
    assert not list(tmp_path.iterdir())


def test_parts_of_a_split_file_are_decoded_as_the_first_one_says(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    convert(tiny_checkpoint, folder / "m.gguf", outtype="tl2", split_max_tensors=12)
    create_bundle(folder, tmp_path / "x.tar.zst")
    found = check_bundle(tmp_path / "x.tar.zst")
    assert found.problems == []
    rows = inspect(folder / "m-00001-of-00002.gguf", stats=True)["tensors"]
    codes = {name: value for tensors in found.manifest.codes_sha256.values() for name, value in tensors.items()}
    assert codes == {row["name"]: row["codes_sha256"] for row in rows if "codes_sha256" in row}


def test_what_cannot_be_decoded_is_said(tmp_path: Path, tiny_gguf: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"GGUF")
    (folder / "b.gguf").write_bytes(tiny_gguf.read_bytes()[:-80])
    result = run("bundle", "create", folder, "-o", tmp_path / "x.tar.zst")
    assert result.exit_code == 0
    assert "a.gguf: 4 bytes are too few" in result.output
    result = run("bundle", "check", tmp_path / "x.tar.zst")
    assert result.exit_code == 0 and "b.gguf: " in result.stderr


# -- what create refuses -----------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_what_its_manifest_lists_is_not_bundled(release: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(release, tmp_path / "release")
    write_manifest(folder)
    (folder / "README.md").write_text("a cord\n")
    with pytest.raises(IntegrityFailed, match="has the SHA-256") as caught:
        create_bundle(folder, tmp_path / "x.tar.zst")
    assert caught.value.hint and "remove manifest.json" in caught.value.hint
    (folder / "new.txt").write_text("")
    with pytest.raises(IntegrityFailed, match="not in the manifest"):
        create_bundle(folder, tmp_path / "x.tar.zst")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_hidden_files_are_left_out_and_said(release: Path, bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(release, tmp_path / "release")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "state").write_text("")
    (folder / ".DS_Store").write_text("")
    assert create_bundle(folder, tmp_path / "x.tar.zst").left_out == [".DS_Store", ".cache"]
    assert (tmp_path / "x.tar.zst").read_bytes() == bundle.read_bytes()


def test_impossible_outputs_and_folders_are_refused(release: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for said, folder, output, kind in (
        ("ends in .tar.zst", release, tmp_path / "x.zip", UsageError),
        ("lies in the folder", release, release / "x.tar.zst", UsageError),
        ("exists already", release, bundle, UsageError),
        ("has no files", tmp_path / "empty", tmp_path / "x.tar.zst", UsageError),
        ("does not exist", tmp_path / "no", tmp_path / "x.tar.zst", Unreadable),
        ("is not a folder", bundle, tmp_path / "x.tar.zst", Unreadable),
    ):
        with pytest.raises(kind, match=said):
            create_bundle(folder, output)
            pytest.fail(said)
    with pytest.raises(UsageError, match="exists already"):
        extract_bundle(bundle, tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


# -- the commands ------------------------------------------------------------------------------------------------------


def test_the_commands_speak_json(release: Path, bundle: Path, tmp_path: Path) -> None:
    made = json.loads(run("bundle", "create", release, "-o", tmp_path / "x.tar.zst", "--json").stdout)
    assert made["schema"] == "tritpack.bundle.create/1" and made["nbytes"] == bundle.stat().st_size
    figures = made["ternary"]["demo-I2_S.gguf"]
    assert 0 < figures["entropy_bits"] < figures["bits_per_weight"]
    checked = json.loads(run("bundle", "check", bundle, "--json").stdout)
    assert checked["schema"] == "tritpack.bundle.check/1" and checked["tensors"] == 28
    assert "signature" in checked["note"]
    listed = json.loads(run("bundle", "list", bundle, "--json").stdout)
    assert listed["schema"] == "tritpack.bundle.list/1" and listed["files"] == checked["files"]
    unpacked = json.loads(run("bundle", "extract", bundle, "-o", tmp_path / "out", "--json").stdout)
    assert unpacked == {"schema": "tritpack.bundle.extract/1", "bundle": str(bundle), "output": str(tmp_path / "out")}


def test_empty_files_are_files(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "empty").write_text("")
    for command in (["create", tmp_path / "release", "-o", tmp_path / "x.tar.zst"], ["check", tmp_path / "x.tar.zst"]):
        assert run("bundle", *command).exit_code == 0, command
    assert (extract_bundle(tmp_path / "x.tar.zst", tmp_path / "out") / "empty").read_bytes() == b""


def test_the_commands_speak_to_people(release: Path, bundle: Path, tmp_path: Path) -> None:
    assert "bits per weight, entropy of the codes 1.5782 (+0." in run(
        "bundle", "create", release, "-o", tmp_path / "x.tar.zst"
    ).stdout  # fmt: skip
    assert "only a signature shows that" in run("bundle", "check", bundle).stdout
    assert "README.md" in run("bundle", "list", bundle).stdout
    damaged = bytearray(bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "x.tar.zst").write_bytes(damaged)
    assert exit_code_of(run("bundle", "check", tmp_path / "x.tar.zst")) in (3, 6)
    assert exit_code_of(run("bundle", "extract", tmp_path / "x.tar.zst", "-o", tmp_path / "out")) in (3, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.zst"]

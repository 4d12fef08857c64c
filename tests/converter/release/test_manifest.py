"""manifest.json: what it lists is compared, and it is refused unless it is exactly what was written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.converter.release.bundles import FILES, manifest_of
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.release import manifest as module
from tritpack.converter.release.manifest import (
    NAME,
    check_folder,
    parse_manifest,
    read_manifest,
    release_files,
    write_manifest,
)
from tritpack.formats.errors import IntegrityFailed, TritpackError, Unreadable, UsageError


@pytest.fixture
def folder(tmp_path: Path, tiny_gguf: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tiny-I2_S.gguf").write_bytes(tiny_gguf.read_bytes())
    (folder / "README.md").write_text("a card\n")
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    (folder / ".DS_Store").write_text("hidden")
    write_manifest(folder)
    return folder


def test_a_manifest_lists_every_other_file_and_all_codes(folder: Path) -> None:
    document = json.loads((folder / NAME).read_bytes())
    assert list(document) == ["schema", "name", "files", "codes_sha256", "sha256"]
    assert [row["path"] for row in document["files"]] == ["README.md", "tiny-I2_S.gguf", "tokenizer/tokenizer.json"]
    assert document["name"] == inspect(folder / "tiny-I2_S.gguf")["name"]
    rows = inspect(folder / "tiny-I2_S.gguf", stats=True)["tensors"]
    codes = {row["name"]: row["codes_sha256"] for row in rows if "codes_sha256" in row}
    assert codes and document["codes_sha256"] == {"tiny-I2_S.gguf": codes}
    manifest, contents = check_folder(folder)
    assert list(contents) == list(manifest.files)


def test_a_manifest_is_replaced_only_on_request(folder: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        write_manifest(folder)
    (folder / "README.md").write_text("another card\n")
    write_manifest(folder, force=True, name="NAME")
    assert check_folder(folder)[0].name == "NAME"


def test_a_folder_of_releases_names_them(folder: Path) -> None:
    with pytest.raises(Unreadable, match="is not a release") as caught:
        read_manifest(folder.parent)
    assert caught.value.hint == f"give one release: {folder}"


def test_every_change_of_a_folder_is_named(folder: Path) -> None:
    good = (folder / "README.md").read_bytes()
    for said, change in {
        "'README.md' has the SHA-256": lambda path: path.write_text("a cord\n"),
        "'README.md' has 8 bytes": lambda path: path.write_text("a card\n\n"),
        "'README.md' is in the manifest and not in the folder": Path.unlink,
        "'new.txt' is in the folder and not in the manifest": lambda path: (folder / "new.txt").write_text(""),
    }.items():
        change(folder / "README.md")
        with pytest.raises(IntegrityFailed) as caught:
            check_folder(folder)
            pytest.fail(said)
        assert said in str(caught.value), said
        assert caught.value.path == folder, said
        (folder / "README.md").write_bytes(good)
        (folder / "new.txt").unlink(missing_ok=True)
    check_folder(folder)


def test_a_wrong_hash_of_codes_is_named(folder: Path) -> None:
    manifest = read_manifest(folder)
    codes = {name: dict(tensors) for name, tensors in manifest.codes_sha256.items()}
    tensor = next(iter(codes["tiny-I2_S.gguf"]))
    for said, value in {"another": "0" * 64, "none": None, "one too many": "1" * 64}.items():
        changed = {name: dict(tensors) for name, tensors in codes.items()}
        named = "blk.9.ffn_up.weight" if said == "one too many" else tensor
        changed["tiny-I2_S.gguf"][named] = value or ""
        if value is None:
            del changed["tiny-I2_S.gguf"][named]
        forged = module.Manifest(manifest.name, manifest.files, changed)
        (folder / NAME).write_bytes(forged.encoded())
        with pytest.raises(IntegrityFailed) as caught:
            check_folder(folder)
            pytest.fail(said)
        assert caught.value.tensor == named, said


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("README.md")])
def test_a_release_holds_files_alone(make: Any, folder: Path) -> None:
    make(folder / "odd")
    if (folder / "odd").is_dir():  # an empty folder is nothing that could be listed
        check_folder(folder)
        return
    with pytest.raises(Unreadable, match="is not a regular file"):
        check_folder(folder)
    with pytest.raises(Unreadable, match="is not a regular file"):
        write_manifest(folder, force=True)


def test_every_changed_byte_of_a_manifest_is_noticed() -> None:
    good = manifest_of(FILES)
    assert parse_manifest(good).encoded() == good
    for position in range(len(good)):
        for bit in (0, 5):
            changed = good[:position] + bytes([good[position] ^ 1 << bit]) + good[position + 1 :]
            with pytest.raises((IntegrityFailed, Unreadable)):
                parse_manifest(changed)
                pytest.fail(f"bit {bit} of byte {position} was changed")
    for changed in (good + b"\n", b" " + good, good.replace(b"\n", b"\r\n"), good[:-1]):
        with pytest.raises(IntegrityFailed, match="as tritpack writes it"):
            parse_manifest(changed)
            pytest.fail(repr(changed[-20:]))


DOCUMENTS: dict[str, tuple[Any, str]] = {
    "not an object": ([], "schema"),
    "another schema": ({"schema": "tritpack.manifest/2"}, "'tritpack.manifest/2', expected 'tritpack.manifest/1'"),
    "other keys": ({"files": []}, "the keys"),
    "files is not a list": ({"files": {}}, "'files' is not a list"),
    "a file without a size": ({"files": [{"path": "a", "sha256": "0" * 64}]}, "is not a file with"),
    "a negative size": ({"files": [{"path": "a", "nbytes": -1, "sha256": "0" * 64}]}, "is not a file with"),
    "an impossible size": ({"files": [{"path": "a", "nbytes": 1 << 70, "sha256": "0" * 64}]}, "is not a file with"),
    "true as a size": ({"files": [{"path": "a", "nbytes": True, "sha256": "0" * 64}]}, "is not a file with"),
    "not a hash": ({"files": [{"path": "a", "nbytes": 1, "sha256": "0" * 63 + "G"}]}, "is not a file with"),
    "one key more": ({"files": [{"path": "a", "nbytes": 1, "sha256": "0" * 64, "x": 1}]}, "is not a file with"),
    "not sorted": ({"files": [{"path": p, "nbytes": 1, "sha256": "0" * 64} for p in "ba"]}, "not sorted"),
    "a file twice": ({"files": [{"path": p, "nbytes": 1, "sha256": "0" * 64} for p in "aa"]}, "'a' twice"),
    "codes is a list": ({"codes_sha256": []}, "codes_sha256"),
    "codes without a hash": ({"codes_sha256": {"a.gguf": {"t": 1}}}, "codes_sha256"),
    "a name that is no text": ({"name": 7}, "'name' is '7'"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_not_a_manifest_is_refused(name: str) -> None:
    value, reason = DOCUMENTS[name]
    document = value
    if isinstance(value, dict) and "schema" not in value:
        document = {"schema": module.SCHEMA, "name": None, "files": [], "codes_sha256": {}, **value}
        if name != "other keys":
            document["sha256"] = module._hash(document)
    with pytest.raises(TritpackError) as caught:
        parse_manifest(json.dumps(document).encode())
    assert isinstance(caught.value, Unreadable)
    assert reason in str(caught.value)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-1e999"])
def test_numbers_that_json_lacks_are_refused(number: bytes) -> None:
    data = b'{"schema": "tritpack.manifest/1", "name": NUMBER, "files": [], "codes_sha256": {}, "sha256": ""}'
    with pytest.raises(Unreadable, match="is not JSON"):
        parse_manifest(data.replace(b"NUMBER", number))


def test_folders_without_end_are_refused(folder: Path) -> None:
    (folder / "/".join("d" * 18)).mkdir(parents=True)
    with pytest.raises(Unreadable, match="nested deeper than 16 folders"):
        release_files(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b'"\\ud800"', b"\xff"])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match="is not JSON"):
        parse_manifest(data)

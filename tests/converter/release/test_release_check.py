"""The check of a folder and of a bundle: one byte that changed, wherever it is, is found and named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import run
from tests.converter.release.test_attestation import document_of, edited
from tests.converter.release.test_check import change_last_byte, checked
from tritpack.converter.release.attestation import attestation_name
from tritpack.converter.release.bundle.create import create_bundle
from tritpack.converter.release.card import write_card
from tritpack.converter.release.manifest import NAME, write_manifest
from tritpack.converter.release.signing import sign, signature_name


def completed(folder: Path) -> Path:
    """The folder with its card and manifest written anew, as whoever changes it on purpose can."""
    write_card(folder, force=True)
    write_manifest(folder, force=True)
    return folder


def bundled(folder: Path) -> Path:
    bundle = folder.with_name("m.tar.zst")
    create_bundle(folder, bundle, force=True)
    return bundle


@pytest.mark.parametrize("kind", ["folder", "bundle"])
def test_a_good_release(kind: str, release: Path, tiny_checkpoint: Path) -> None:
    path = release if kind == "folder" else bundled(release)
    code, said = checked(path, "--source", tiny_checkpoint, "--json")
    assert code == 0, said
    document = json.loads(said)
    assert document["kind"] == kind and document["attested"][0]["proved_again"] is True
    code, said = checked(path)
    assert code == 0 and "GOOD" in said and "only a signature" in said


@pytest.mark.parametrize("name", ["m.gguf", "m.intoto.json", "README.md"])
def test_a_changed_file_of_a_folder_is_named(name: str, release: Path) -> None:
    change_last_byte(release / name)
    code, said = checked(release)
    assert code == 6 and f"'{name}'" in said


def test_every_byte_of_a_manifest_is_checked(release: Path) -> None:
    data = (release / NAME).read_bytes()
    for position in range(0, len(data), 97):
        changed = bytearray(data)
        changed[position] ^= 1
        (release / NAME).write_bytes(changed)
        code, said = checked(release)
        assert code in (3, 6) and NAME in said, position


def test_every_byte_of_a_bundle_is_checked(release: Path) -> None:
    bundle = bundled(release)
    data = bundle.read_bytes()
    for position in range(0, len(data), len(data) // 20):
        changed = bytearray(data)
        changed[position] ^= 1
        bundle.write_bytes(changed)
        code, said = checked(bundle)
        assert code in (3, 6) and str(bundle) in said, position


def other_hash(text: str) -> str:
    return re.sub("[0-9a-f]{64}", hashlib.sha256(b"other").hexdigest(), text, count=1)


def change_card(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(other_hash(card.read_text("utf-8")), "utf-8")


def change_subject(folder: Path) -> None:
    file = folder / "m.gguf"
    digest = hashlib.sha256(b"other").hexdigest()
    data = edited(document_of(file), "subject", 0, "digest", "sha256", value=digest)
    attestation_name(file).write_bytes(data)


def change_codes(folder: Path) -> None:
    file = folder / "m.gguf"
    name = next(iter(document_of(file)["predicate"]["codes_sha256"]))
    data = edited(document_of(file), "predicate", "codes_sha256", name, value="0" * 64)
    attestation_name(file).write_bytes(data)


def change_verdict(folder: Path) -> None:
    file = folder / "m.gguf"
    attestation_name(file).write_bytes(edited(document_of(file), "predicate", "verdict", value="fail"))


def remove_attestation(folder: Path) -> None:
    (folder / "m.intoto.json").unlink()


def add_a_row(folder: Path) -> None:
    with open(folder / "README.md", "a", encoding="utf-8") as stream:
        stream.write(f"\n| `absent.gguf` | | `{'0' * 64}` |\n")


def add_a_row_in_front(folder: Path) -> None:
    card = folder / "README.md"
    rows = card.read_text("utf-8").replace("| `m.gguf` |", f"| `m.gguf` | | `{'0' * 64}` |\n| `m.gguf` |", 1)
    card.write_text(rows, "utf-8")


def remove_all_rows(folder: Path) -> None:
    (folder / "README.md").write_text("# m\n")


ON_PURPOSE: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "a hash in the card": (change_card, 6, "README.md: gives 'm.gguf' the SHA-256"),
    "a file in the card": (add_a_row, 6, "README.md: gives the hash of 'absent.gguf'"),
    "a second hash in the card": (add_a_row_in_front, 6, f"README.md: gives 'm.gguf' the SHA-256 {'0' * 64}"),
    "no hash in the card": (remove_all_rows, 6, "README.md: does not give the hash of 'm.gguf'"),
    "a hash in the attestation": (change_subject, 6, "m.intoto.json: 'm.gguf' is "),
    "codes in the attestation": (change_codes, 6, "m.intoto.json: tensor "),
    "the verdict": (change_verdict, 1, "m.intoto.json: the attested verdict is fail"),
    "no attestation": (remove_attestation, 6, "'m.gguf' has no attestation, 'm.intoto.json'"),
}


@pytest.mark.parametrize("kind", ["folder", "bundle"])
@pytest.mark.parametrize("case", ON_PURPOSE)
def test_what_contradicts_a_manifest_that_was_written_anew(case: str, kind: str, release: Path) -> None:
    change, expected, words = ON_PURPOSE[case]
    change(release)
    write_manifest(release, force=True)
    code, said = checked(release if kind == "folder" else bundled(release))
    assert code == expected and words in said


@pytest.mark.parametrize("kind", ["folder", "bundle"])
def test_documents_do_not_fill_the_memory(kind: str, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritpack.converter.release.release_check.LARGEST", 10_000)
    for number in range(3):
        (release / f"{number}.intoto.json").write_bytes(b" " * 4000)
    write_manifest(release, force=True)
    code, said = checked(release if kind == "folder" else bundled(release))
    assert code == 3 and "of attestations, signatures and card, expected at most 10000" in said


def test_a_folder_needs_a_manifest_and_a_gguf(attested: Path, tmp_path: Path) -> None:
    code, said = checked(attested.parent)
    assert code == 3 and NAME in said
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("a")
    write_manifest(tmp_path / "empty")
    code, said = checked(tmp_path / "empty")
    assert code == 3 and "no .gguf file" in said
    assert checked(tmp_path / "empty", "--attestation", attestation_name(attested))[0] == 2


@pytest.mark.parametrize("kind", ["folder", "bundle"])
def test_a_signed_release(kind: str, attested: Path, keys: Path) -> None:
    sign(attestation_name(attested), keys / "our.pem")
    path = completed(attested.parent)
    path = path if kind == "folder" else bundled(path)
    code, said = checked(path, "--public-key", keys / "our.pub")
    assert code == 0 and "each attestation is signed" in said
    code, said = checked(path, "--public-key", keys / "other.pub")
    assert code == 6 and said.startswith(f"{path}/m.intoto.json.sig: is not the signature of {path}/m.intoto.json ")
    signature_name(attestation_name(attested)).unlink()
    completed(attested.parent)
    code, said = checked(path if kind == "folder" else bundled(attested.parent), "--public-key", keys / "our.pub")
    assert code == 6 and "'m.intoto.json' has no signature" in said


def test_a_signature_of_the_whole(release: Path, tmp_path: Path, keys: Path) -> None:
    bundle = bundled(release)
    signature = sign(bundle, keys / "our.pem")
    assert checked(bundle, "--public-key", keys / "our.pub", "--signature", signature)[0] == 0
    assert checked(bundle, "--public-key", keys / "other.pub", "--signature", signature)[0] == 6
    shutil.copy(release / NAME, tmp_path / NAME)
    signature = sign(tmp_path / NAME, keys / "our.pem")
    result = run("check", release, "--public-key", keys / "our.pub", "--signature", signature)
    assert result.exit_code == 0 and "manifest.json is signed" in result.output

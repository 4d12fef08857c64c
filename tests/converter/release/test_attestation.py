"""Attestations: a statement that others can read, equal bytes for equal inputs, and no byte that can change unseen."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import exit_code_of, run
from tests.converter.verify.breakages import flip_code
from tests.make.checkpoints import edited_gguf
from tests.make.hub_server import HubServer
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.release.attestation import (
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    attestation_name,
    content_hash,
    encode,
    parse_attestation,
    write_attestation,
)
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.rung import Report
from tritpack.formats.errors import CheckFailed, IntegrityFailed, TritpackError, Unreadable


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def document_of(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(attestation_name(file).read_bytes())
    return document


def test_a_statement_says_what_was_proved(attested_once: Path, tiny_checkpoint: Path) -> None:
    document = document_of(attested_once)
    assert document["_type"] == STATEMENT_TYPE and document["predicateType"] == PREDICATE_TYPE
    assert document["subject"] == [{"name": "m.gguf", "digest": {"sha256": sha256(attested_once)}}]
    predicate = document["predicate"]
    assert predicate["verdict"] == "pass" and predicate["level"] == "weights"
    assert {rung["name"]: rung["verdict"] for rung in predicate["rungs"]} == {"structure": "pass", "weights": "pass"}
    files = {entry["name"]: entry["digest"]["sha256"] for entry in predicate["source"]["files"]}
    assert files["model.safetensors"] == sha256(tiny_checkpoint / "model.safetensors")
    assert "repository" not in predicate["source"]
    rows = inspect(attested_once, stats=True)["tensors"]
    assert predicate["codes_sha256"] == {row["name"]: row["codes_sha256"] for row in rows if "codes_sha256" in row}


def test_the_reader_of_in_toto_accepts_it(attested_once: Path) -> None:
    statement = pytest.importorskip("in_toto_attestation.v1.statement", reason="in-toto-attestation is not installed")
    parsers = pytest.importorskip("google.protobuf.json_format")
    messages = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    parsed = parsers.Parse(attestation_name(attested_once).read_bytes(), messages.Statement())
    statement.Statement.copy_from_pb(parsed).validate()


def test_equal_files_give_equal_bytes(attested: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another folder"
    shutil.copytree(tiny_checkpoint, elsewhere)
    report = verify(attested, elsewhere, level="weights")
    again = write_attestation(report, tmp_path / "again.intoto.json", file=attested)
    assert again.read_bytes() == attestation_name(attested).read_bytes()


def test_the_subjects_of_a_split_set_are_its_parts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, tmp_path / "m.gguf", split_max_tensors=8)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) > 2 and attestation_name(parts[0]) == tmp_path / "m.intoto.json"
    report = verify(parts[0], tiny_checkpoint, level="structure")
    write_attestation(report, attestation_name(parts[0]), file=parts[0])
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in document_of(parts[0])["subject"]}
    assert subjects == {part.name: sha256(part) for part in parts}


def test_a_source_of_the_hub_is_named_with_its_commit(tiny_gguf: Path, tmp_path: Path, server: HubServer) -> None:
    report = verify(tiny_gguf, "org/tiny", level="structure")
    write_attestation(report, tmp_path / "a.intoto.json", file=tiny_gguf)
    source = json.loads((tmp_path / "a.intoto.json").read_bytes())["predicate"]["source"]
    commit = server.snapshots["org/tiny", "main"][0]
    assert (source["repository"], source["commit"]) == ("org/tiny", commit)


def test_what_failed_is_not_attested(attested: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bad = edited_gguf(attested, tmp_path / "bad.gguf", tensors=flip_code)
    result = run("verify", bad, "--source", tiny_checkpoint, "--level", "weights", "--attest", tmp_path / "bad.json")
    assert exit_code_of(result) == 1 and "nothing is attested" in str(result.exception)
    assert not (tmp_path / "bad.json").exists()


def test_the_command_writes_it_and_replaces_nothing_unasked(attested: Path, tiny_checkpoint: Path) -> None:
    target = attestation_name(attested)
    before = target.read_bytes()
    arguments = ("verify", attested, "--source", tiny_checkpoint, "--level", "weights", "--attest", target)
    assert exit_code_of(run(*arguments)) == 2
    target.write_bytes(b"an older one")
    assert exit_code_of(run(*arguments, "--force")) == 0
    assert target.read_bytes() == before


def test_a_checkpoint_has_nothing_to_attest(tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    result = run("verify", tiny_checkpoint, "--source", tiny_checkpoint, "--attest", target)
    assert exit_code_of(result) == 2 and not target.exists()


# -- reading -----------------------------------------------------------------------------------------------------------


def test_no_byte_can_change_unseen(attested_once: Path) -> None:
    data = attestation_name(attested_once).read_bytes()
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises((Unreadable, IntegrityFailed, CheckFailed)) as caught:
            parse_attestation(bytes(changed), "a.json")
        assert str(caught.value).startswith("a.json: "), position


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a space": lambda data: data.replace(b"\n ", b"\t ", 1),
    "a key that stands twice": lambda data: data.replace(
        b'"verdict": "pass"', b'"verdict": "fail", "verdict": "pass"', 1
    ),
    "one line more": lambda data: data + b"\n",
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_json_does_not_see_cannot_change_either(case: str, attested_once: Path) -> None:
    data = attestation_name(attested_once).read_bytes()
    with pytest.raises(IntegrityFailed, match="as tritpack writes it"):
        parse_attestation(CHANGES[case](data), "a.json")


def edited(document: dict[str, Any], *keys: str | int, value: Any) -> bytes:
    """The file of a statement with another value, and with its own hash made right again."""
    document = json.loads(json.dumps(document))
    holder = document
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    if isinstance(document.get("predicate"), dict):
        document["predicate"]["statement_sha256"] = content_hash(document)
    return encode(document)


WRONG = {
    "another type": (("_type",), "https://in-toto.io/Statement/v0.1", "_type"),
    "another predicate": (("predicateType",), "https://slsa.dev/provenance/v1", "predicateType"),
    "a predicate that is no object": (("predicate",), [], "predicate is list"),
    "no subject": (("subject",), [], "subject is empty"),
    "a subject without a hash": (("subject", 0, "digest"), {"md5": "0"}, "sha256 is NoneType"),
    "a subject twice": (("subject",), [{"name": "a", "digest": {"sha256": "0" * 64}}] * 2, "subject names 'a' twice"),
    "a hash in capitals": (("subject", 0, "digest", "sha256"), "A" * 64, "hexadecimal"),
    "a name that is a number": (("subject", 0, "name"), 5, "name is int"),
    "an unknown verdict": (("predicate", "verdict"), "perfect", "verdict is 'perfect'"),
    "an unknown level": (("predicate", "level"), ["weights"], "level is list"),
    "rungs that are none": (("predicate", "rungs"), ["weights"], "rung is str"),
    "a commit that is none": (("predicate", "source", "commit"), 5, "commit is int"),
    "a branch for a commit": (("predicate", "source", "commit"), "main", "'main' cannot be on the Hub"),
    "a repository that is none": (("predicate", "source", "repository"), "a/b](c", "cannot be on the Hub"),
    "records that are none": (("predicate", "source", "recorded_in_file"), [], "recorded_in_file is list"),
    "an option that is none": (("predicate", "options"), {"quantize": 5}, "quantize is 5"),
    "an option that is text": (("predicate", "options"), {"strict": "yes"}, "strict is str"),
    "input that is a number": (("predicate", "options"), {"inputs": [5]}, "inputs is int"),
    "codes that are none": (("predicate", "codes_sha256", "blk.0.attn_q.weight"), "", "blk.0.attn_q.weight"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_statement_of_ours_is_named(case: str, attested_once: Path) -> None:
    keys, value, words = WRONG[case]
    with pytest.raises(Unreadable, match=words) as caught:
        parse_attestation(edited(document_of(attested_once), *keys, value=value), "a.json")
    assert str(caught.value).startswith("a.json: ")


@pytest.mark.parametrize("data", [b"", b"null", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"_type": "\\ud800"}'])
def test_what_is_no_json_document_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        parse_attestation(data, "a.json")


def test_a_report_that_failed_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    class Failed(Report):
        verdict = "fail"  # type: ignore[assignment]

    with pytest.raises(TritpackError, match="nothing is attested"):
        write_attestation(Failed("m", "s", []), tmp_path / "a.json", file=tmp_path / "absent.gguf")

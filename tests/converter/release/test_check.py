"""`tritpack check`: what was changed, and where, is said in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import exit_code_of, run
from tests.converter.release.test_attestation import document_of, edited
from tritpack.converter.release.attestation import attestation_name
from tritpack.formats.errors import TritpackError


def change_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def checked(*arguments: str | Path) -> tuple[int, str]:
    """The exit code of `check`, and what it says."""
    result = run("check", *arguments, "-q")
    said = str(result.exception) if isinstance(result.exception, TritpackError) else result.output
    return exit_code_of(result), said


def test_a_good_file(attested_once: Path) -> None:
    code, said = checked(attested_once)
    assert code == 0 and "GOOD" in said and "only a signature" in said
    code, said = checked(attested_once, "--json")
    assert code == 0
    document = json.loads(said)
    assert document["schema"] == "tritpack.check/1" and document["kind"] == "gguf"
    assert document["attested"][0]["proved_again"] is False


def test_it_is_proved_again(attested_once: Path, tiny_checkpoint: Path) -> None:
    code, said = checked(attested_once, "--source", tiny_checkpoint, "--json")
    assert code == 0 and json.loads(said)["attested"][0]["proved_again"] is True


def test_a_renamed_file_is_the_same_file(attested: Path) -> None:
    renamed = attested.rename(attested.with_name("renamed.gguf"))
    assert checked(renamed)[0] == 3
    assert checked(renamed, "--attestation", attestation_name(attested))[0] == 0


def test_a_changed_file_is_named(attested: Path) -> None:
    change_last_byte(attested)
    code, said = checked(attested)
    assert code == 6 and said.startswith(f"{attested}: m.gguf has SHA-256 ")


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_another_source_is_named(where: str, attested: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    (source / where).write_bytes((source / where).read_bytes() + b"\n")
    code, said = checked(attested, "--source", source)
    assert code == 6 and f"file of the source '{where}'" in said


def test_a_source_of_another_model_is_not_proved(attested: Path, online_checkpoint: Path) -> None:
    assert checked(attested, "--source", online_checkpoint)[0] == 1


def test_codes_that_were_attested_otherwise_are_named(attested: Path, tiny_checkpoint: Path) -> None:
    document = document_of(attested)
    name = next(iter(document["predicate"]["codes_sha256"]))
    data = edited(document, "predicate", "codes_sha256", name, value="0" * 64)
    attestation_name(attested).write_bytes(data)
    assert checked(attested)[0] == 0, "only a proof sees it"
    code, said = checked(attested, "--source", tiny_checkpoint)
    assert code == 6 and f"codes of tensor '{name}'" in said


def test_a_rung_that_was_not_climbed_again_is_said(attested: Path, tiny_checkpoint: Path) -> None:
    rungs = document_of(attested)["predicate"]["rungs"]
    claimed = [*rungs, {**rungs[0], "name": "logits"}]
    attestation_name(attested).write_bytes(edited(document_of(attested), "predicate", "rungs", value=claimed))
    code, said = checked(attested, "--source", tiny_checkpoint)
    assert code == 0 and "the rung logits is attested as passed, and was not proved again" in said


@pytest.mark.parametrize("rungs", [[], [{"name": "weights", "verdict": "skipped"}]])
def test_a_pass_of_no_rung_is_none(rungs: list[dict[str, str]], attested: Path) -> None:
    attestation_name(attested).write_bytes(edited(document_of(attested), "predicate", "rungs", value=rungs))
    code, said = checked(attested)
    assert code == 1 and "no rung is attested as passed" in said


@pytest.mark.parametrize("key", ["verdict", "rungs"])
def test_an_attested_failure_is_a_failure(key: str, attested: Path) -> None:
    value = "fail" if key == "verdict" else [{"name": "weights", "verdict": "fail"}]
    attestation_name(attested).write_bytes(edited(document_of(attested), "predicate", key, value=value))
    code, said = checked(attested)
    assert code == 1 and "the attested verdict is fail" in said


def test_what_is_not_there(attested: Path) -> None:
    attestation_name(attested).unlink()
    code, said = checked(attested)
    assert code == 3 and "m.intoto.json" in said
    assert checked(attested, "--attestation", attested.with_name("absent"))[0] == 3
    assert checked(attested.with_name("absent.gguf"))[0] == 3
    assert checked(attested, "--revision", "main")[0] == 2

"""Signatures with a local key pair, and what does not match."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import exit_code_of, run
from tritpack.converter.release.attestation import attestation_name
from tritpack.converter.release.signing import sign, signature_name, verify_signature
from tritpack.formats.errors import IntegrityFailed, MissingRequirement, TritpackError, Unreadable, UsageError


@pytest.fixture
def signed(keys: Path, tmp_path: Path) -> Path:
    path = tmp_path / "a.json"
    path.write_text("{}")
    assert sign(path, keys / "our.pem") == signature_name(path)
    return path


def test_a_signature_is_accepted(signed: Path, keys: Path) -> None:
    verify_signature(signed, signature_name(signed), keys / "our.pub")
    with pytest.raises(UsageError, match="exists already"):
        sign(signed, keys / "our.pem")
    sign(signed, keys / "our.pem", force=True)


def test_what_does_not_match(signed: Path, keys: Path) -> None:
    signature = signature_name(signed)
    with pytest.raises(IntegrityFailed, match="Key mismatch"):
        verify_signature(signed, signature, keys / "other.pub")
    envelope = json.loads(signature.read_bytes())
    envelope["dsseEnvelope"]["payload"] = "e30="
    signature.write_text(json.dumps(envelope))
    with pytest.raises(IntegrityFailed):
        verify_signature(signed, signature, keys / "our.pub")
    envelope["dsseEnvelope"] = []
    signature.write_text(json.dumps(envelope))
    with pytest.raises(IntegrityFailed):
        verify_signature(signed, signature, keys / "our.pub")
    sign(signed, keys / "our.pem", force=True)
    signed.write_text("{ }")
    with pytest.raises(IntegrityFailed, match=r"a\.json") as caught:
        verify_signature(signed, signature, keys / "our.pub")
    assert caught.value.path == signature


@pytest.mark.parametrize("key", ["locked.pem", "rsa.pem", "our.pub", "absent.pem"])
def test_keys_that_cannot_sign(key: str, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(Unreadable) as caught:
        sign(tmp_path / "a.json", keys / key)
    assert caught.value.path == keys / key and not signature_name(tmp_path / "a.json").exists()


def test_what_is_no_key_or_signature(signed: Path, keys: Path) -> None:
    with pytest.raises(Unreadable, match="not a public key"):
        verify_signature(signed, signature_name(signed), keys / "our.pem")
    with pytest.raises(Unreadable, match="not a signature"):
        verify_signature(signed, signed, keys / "our.pub")
    with pytest.raises(Unreadable):
        verify_signature(signed, signed.with_name("absent"), keys / "our.pub")


def test_a_signed_attestation_from_the_command_line(attested: Path, tiny_checkpoint: Path, keys: Path) -> None:
    target = attestation_name(attested)
    result = run(
        "verify", attested, "--source", tiny_checkpoint, "--level", "weights", "--attest", target,
        "--sign-key", keys / "our.pem", "--force",
    )  # fmt: skip
    assert exit_code_of(result) == 0
    result = run("check", attested, "--public-key", keys / "our.pub")
    assert exit_code_of(result) == 0 and "is signed with the key" in result.output
    result = run("check", attested, "--public-key", keys / "other.pub")
    assert exit_code_of(result) == 6 and str(signature_name(target)) in str(result.exception)
    assert exit_code_of(run("check", attested, "--signature", signature_name(target))) == 2


def test_the_extra_is_named_where_it_is_missing(attested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model_signing", "model_signing.signing", "model_signing.verifying"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingRequirement) as caught:
        sign(attested, attested)
    assert caught.value.hint == 'pip install "tritpack[attest]"'
    result = run("verify", attested, "--source", "absent", "--attest", attested.with_name("new"), "--sign-key", "k")
    assert exit_code_of(result) == 7, "before the work"
    result = run("verify", attested, "--source", "absent", "--sign-key", "k")
    assert exit_code_of(result) == 2 and isinstance(result.exception, TritpackError)

"""Attested files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.make.hub_server import HubServer
from tests.make.remote import serving
from tritpack.converter.release.attestation import attestation_name, write_attestation
from tritpack.converter.release.card import write_card
from tritpack.converter.release.manifest import write_manifest
from tritpack.converter.verify.ladder import verify


@pytest.fixture(scope="package")
def attested_once(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF with its attestation beside it, for tests that change neither."""
    file = Path(shutil.copy(tiny_gguf, tmp_path_factory.mktemp("attested") / "m.gguf"))
    write_attestation(verify(file, tiny_checkpoint, level="weights"), attestation_name(file), file=file)
    return file


@pytest.fixture
def attested(attested_once: Path, tmp_path: Path) -> Path:
    """A copy of both, to be changed."""
    shutil.copytree(attested_once.parent, tmp_path / "attested")
    return tmp_path / "attested" / attested_once.name


@pytest.fixture(scope="package")
def release_once(attested_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release: an attested GGUF, a file of a tokenizer, a card and a manifest."""
    folder = tmp_path_factory.mktemp("release") / "attested"
    shutil.copytree(attested_once.parent, folder)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "a.bin").write_bytes(b"large by its name")
    write_card(folder)
    write_manifest(folder)
    return folder


@pytest.fixture
def release(release_once: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(release_once, tmp_path / "release"))


@pytest.fixture
def server(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with org/tiny, to which the client of this process talks."""
    with serving({"org/tiny": tiny_checkpoint}, tmp_path / "cache", monkeypatch) as running:
        yield running


@pytest.fixture(scope="package")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pairs our and other (.pem, .pub), a locked key and an RSA key."""
    pytest.importorskip("model_signing.signing", reason="model_signing is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    folder = tmp_path_factory.mktemp("keys")
    plain = serialization.NoEncryption()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    for name in ("our", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.pem").write_bytes(key.private_bytes(*form, plain))
        public = key.public_key().public_bytes(form[0], serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
    (folder / "locked.pem").write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    (folder / "rsa.pem").write_bytes(rsa.generate_private_key(65537, 2048).private_bytes(*form, plain))
    return folder

"""Attested files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.make.hub_server import HubServer
from tests.make.remote import serving
from tritpack.converter.release.attestation import attestation_name, write_attestation
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


@pytest.fixture
def server(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with org/tiny, to which the client of this process talks."""
    with serving({"org/tiny": tiny_checkpoint}, tmp_path / "cache", monkeypatch) as running:
        yield running

"""The bill of materials: valid by CycloneDX's own schema, equal bytes, and nothing that nobody said."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf
from tests.make.hub_server import HubServer
from tritpack.converter.release.attestation import attestation_name, write_attestation
from tritpack.converter.release.bill_of_materials import write_bill_of_materials
from tritpack.converter.verify.ladder import verify

ORIGIN = {
    "general.license": "mit",
    "general.source.url": "https://huggingface.co/org/tiny",
}


def written(file: Path) -> tuple[dict[str, Any], bytes]:
    """The document and its bytes, after CycloneDX's own validator has seen them."""
    pytest.importorskip("cyclonedx.output.json", reason="cyclonedx-python-lib is not installed")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = pytest.importorskip("cyclonedx.validation.json").JsonStrictValidator(schema.SchemaVersion.V1_6)
    path = write_bill_of_materials(
        file.with_name("m.cdx.json"), file=file, attestation=attestation_name(file), force=True
    )
    assert validator.validate_str(path.read_text("utf-8")) is None
    return json.loads(path.read_bytes()), path.read_bytes()


def attested_with(metadata: dict[str, Any], good: Path, source: str | Path, folder: Path) -> Path:
    """A file with these keys too, and its attestation beside it."""
    file = edited_gguf(good, folder / "m.gguf", metadata=lambda pairs: pairs.update(metadata))
    write_attestation(verify(file, source, level="structure"), attestation_name(file), file=file)
    return file


def test_it_says_what_is_known(attested: Path, tiny_checkpoint: Path) -> None:
    document, data = written(attested)
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model" and "licenses" not in model
    assert model["components"][0]["name"] == "m.gguf" and model["components"][0]["hashes"][0]["alg"] == "SHA-256"
    assert "purl" not in model["pedigree"]["ancestors"][0]
    names = {component["name"] for component in model["pedigree"]["ancestors"][0]["components"]}
    assert names == {path.name for path in tiny_checkpoint.iterdir()} - {"model.safetensors.index.json"}
    assert written(attested)[1] == data and "timestamp" not in document["metadata"]


def test_the_source_of_the_hub_is_its_ancestor(tiny_gguf: Path, tmp_path: Path, server: HubServer) -> None:
    file = attested_with(ORIGIN, tiny_gguf, "org/tiny", tmp_path)
    model = written(file)[0]["metadata"]["component"]
    commit = server.snapshots["org/tiny", "main"][0]
    assert model["pedigree"]["ancestors"][0]["purl"] == f"pkg:huggingface/org/tiny@{commit}"
    assert model["licenses"] == [{"license": {"id": "MIT"}}]
    urls = {reference["type"]: reference["url"] for reference in model["externalReferences"]}
    assert urls == {"attestation": "m.intoto.json", "source-distribution": "https://huggingface.co/org/tiny"}


def test_a_licence_without_an_identifier_keeps_its_name(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    named = {"general.license": "other", "general.license.name": "own-terms", "general.license.link": "https://a.b/c"}
    file = attested_with(named, tiny_gguf, tiny_checkpoint, tmp_path)
    licences = written(file)[0]["metadata"]["component"]["licenses"]
    assert licences == [{"license": {"name": "own-terms", "url": "https://a.b/c"}}]


def test_text_of_a_file_can_be_anything(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    odd = {
        "general.name": "a\n<b>\u202e",
        "general.license": "no such\nlicence",
        "general.license.link": "https://a b/<c>",
        "general.source.url": "https://a.b/ c",
    }
    model = written(attested_with(odd, tiny_gguf, tiny_checkpoint, tmp_path))[0]["metadata"]["component"]
    assert model["name"] == odd["general.name"]
    assert model["licenses"] == [{"license": {"name": odd["general.license"]}}]
    assert [reference["type"] for reference in model["externalReferences"]] == ["attestation"]


@pytest.mark.parametrize("name", ["a model", "100%", "a#b?c", "modèle"])
def test_an_attestation_can_have_any_name(name: str, attested: Path) -> None:
    attestation_name(attested).rename(attested.with_name(f"{name}.intoto.json"))
    file = attested.rename(attested.with_name(f"{name}.gguf"))
    [reference] = written(file)[0]["metadata"]["component"]["externalReferences"]
    assert unquote(reference["url"]) == f"{name}.intoto.json"


@pytest.mark.parametrize("metadata", [{"general.name": np.arange(3)}, {"general.source.url": "https://hub/100%"}])
def test_metadata_that_are_no_name_or_address_are_left_out(
    metadata: dict[str, Any], attested: Path, tmp_path: Path
) -> None:
    file = edited_gguf(attested, tmp_path / "m.gguf", metadata=lambda pairs: pairs.update(metadata))
    shutil.copy(attestation_name(attested), attestation_name(file))
    model = written(file)[0]["metadata"]["component"]
    assert len(model["externalReferences"]) == 1 and isinstance(model["name"], str)


def test_verify_writes_it(attested: Path, tiny_checkpoint: Path) -> None:
    _, data = written(attested)
    result = run(
        "verify", attested, "--source", tiny_checkpoint, "--level", "weights", "--force",
        "--attest", attestation_name(attested), "--bom", attested.with_name("n.cdx.json"),
    )  # fmt: skip
    assert exit_code_of(result) == 0 and attested.with_name("n.cdx.json").read_bytes() == data


def test_the_extra_is_named_where_it_is_missing(attested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.output.json", None)
    result = run("verify", attested, "--source", "absent", "--attest", attested.with_name("new"), "--bom", "b")
    assert exit_code_of(result) == 7
    assert run("verify", attested, "--source", "absent", "--bom", "b").exit_code != 0

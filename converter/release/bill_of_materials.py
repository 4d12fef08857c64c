"""A CycloneDX bill of materials of a GGUF (an ML-BOM): its files, licence, source and attestation.

It says what the metadata of the file and its attestation say, and nothing else. It has no time, and its serial number
follows from its content: equal inputs give equal bytes.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tritpack.converter.release.attestation import Attestation, read_attestation
from tritpack.converter.release.signing import PIP
from tritpack.converter.version import VERSION
from tritpack.formats.errors import MissingRequirement
from tritpack.formats.files import atomic_output, sha256_file
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.json_text import json_text

if TYPE_CHECKING:
    from cyclonedx.model import ExternalReference
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

SUFFIX = ".cdx.json"
ADDRESS = re.compile(r"https://[\w.-]+(/([\w./~+@:-]|%[0-9a-fA-F]{2})*)?", re.ASCII)
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:tritpack:bill-of-materials:1")


def write_bill_of_materials(
    output: str | Path, *, file: str | Path, attestation: str | Path, force: bool = False
) -> Path:
    """Write the bill of materials of a GGUF to OUTPUT (NAME.cdx.json). attestation: that of FILE.

    Raises MissingRequirement without cyclonedx-python-lib, UsageError if OUTPUT exists and `force` is not given,
    Unreadable, IntegrityFailed, WriteFailed.
    """
    require_extra()
    document = bill_of_materials(GgufFile(file), read_attestation(attestation))
    data = (json_text(document) + "\n").encode("utf-8")
    with atomic_output(Path(output), len(data), force=force) as stream:
        stream.write(data)
    return Path(output)


def require_extra() -> None:
    """Raise MissingRequirement if no bill of materials can be written here."""
    try:
        import cyclonedx.output.json  # noqa: F401
    except ImportError as error:
        message = f"a bill of materials needs cyclonedx-python-lib ({error.name or error} is not installed)"
        raise MissingRequirement(message, hint=PIP) from error


def bill_of_materials(file: GgufFile, attestation: Attestation) -> dict[str, Any]:
    """Return the CycloneDX 1.6 document of a file."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    tool = Component(name="tritpack", version=VERSION, type=ComponentType.APPLICATION, bom_ref="tritpack")
    metadata = BomMetaData(tools=_repository([tool]), component=_model(file, attestation))
    document: dict[str, Any] = json.loads(JsonV1Dot6(Bom(metadata=metadata)).output_as_string())
    del document["metadata"]["timestamp"]
    del document["serialNumber"]
    # The library has no class for model cards.
    document["metadata"]["component"]["modelCard"] = {
        "modelParameters": {"modelArchitecture": str(file.metadata.get("general.architecture", "unknown"))}
    }
    number = uuid.uuid5(NAMESPACE, json.dumps(document, sort_keys=True))
    return {**document, "serialNumber": f"urn:uuid:{number}"}


def _repository(tools: list[Component]) -> Any:
    from cyclonedx.model.tool import ToolRepository

    return ToolRepository(components=tools)


def _model(file: GgufFile, attestation: Attestation) -> Component:
    """The model, of its files; its ancestor is the source."""
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    predicate, metadata = attestation.predicate, file.metadata
    names = sorted({tensor.layout for tensor in file.tensors.values() if file.layout_of(tensor)})
    properties = {
        "tritpack:layouts": ", ".join(names),
        "tritpack:verify:verdict": predicate["verdict"],
        "tritpack:verify:level": predicate["level"],
        "tritpack:verify:conclusion": predicate["conclusion"],
    }
    return Component(
        name=name if isinstance(name := metadata.get("general.name"), str) and name else file.path.stem,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        licenses=[*_licences(metadata)],
        components=_files(attestation.subjects, "file"),
        pedigree=Pedigree(ancestors=[_source(attestation)]),
        external_references=[*_references(metadata, attestation)],
        properties=[Property(name=name, value=value) for name, value in properties.items()],
    )


def _files(hashes: Mapping[str, str], prefix: str) -> list[Component]:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(
            name=name,
            type=ComponentType.FILE,
            bom_ref=f"{prefix}:{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )
        for name, digest in hashes.items()
    ]


def _source(attestation: Attestation) -> Component:
    """The checkpoint. What only the file says of it is left to the attestation."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    source = attestation.predicate["source"]
    organisation, _, name = source.get("repository", "").partition("/")
    commit = source.get("commit")
    return Component(
        name=name or "source checkpoint",
        group=organisation or None,
        version=commit,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="source",
        purl=PackageURL("huggingface", organisation, name, commit) if name else None,
        components=_files(attestation.source_files, "source"),
    )


def _licences(metadata: Mapping[str, Any]) -> Iterator[License]:
    """The licence that the metadata give, by its SPDX identifier if it has one; none if they give none."""
    from cyclonedx.model import XsUri
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.spdx import fixup_id

    licence, name, link = (str(metadata.get(f"general.license{part}", "")) for part in ("", ".name", ".link"))
    if identifier := fixup_id(licence):
        yield DisjunctiveLicense(id=identifier)
    elif licence or name:
        url = XsUri(link) if ADDRESS.fullmatch(link) else None
        yield DisjunctiveLicense(name=name or licence, url=url)


def _references(metadata: Mapping[str, Any], attestation: Attestation) -> Iterator[ExternalReference]:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri

    digest = HashType(alg=HashAlgorithm.SHA_256, content=sha256_file(attestation.path))
    yield ExternalReference(
        type=ExternalReferenceType.ATTESTATION, url=XsUri(quote(attestation.path.name)), hashes=[digest]
    )
    url = metadata.get("general.source.url")
    if isinstance(url, str) and ADDRESS.fullmatch(url):
        yield ExternalReference(type=ExternalReferenceType.SOURCE_DISTRIBUTION, url=XsUri(url))

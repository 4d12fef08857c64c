"""Where a file or checkpoint comes from, as far as it says so itself, and whether its folder has an attestation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritpack.converter.release.attestation_name import attestation_name
from tritpack.converter.sources.origin_keys import COMMIT_KEY, HUB, REPOSITORY_KEY

if TYPE_CHECKING:  # its reader of READMEs takes time to import
    from tritpack.converter.sources.origin import Origin

ADDRESS_KEYS = ("general.source.url", "general.source.repo_url")
"""Keys of GGUF files with the address of the source. That of a base model is not the source."""
FAMILY_KEY = "tritpack.source.family"


def recorded(metadata: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """Return what a GGUF file says of its source, each None if it does not. path: of the file, None if it lies
    elsewhere; `attestation` is the name of the one beside it, of which nothing is compared here."""
    repository, commit = (_text(metadata.get(key)) for key in (REPOSITORY_KEY, COMMIT_KEY))
    addresses = (_text(metadata.get(key)) for key in ADDRESS_KEYS)
    return {
        "repository": repository,
        "commit": commit,
        "url": next(filter(None, addresses), repository and HUB + repository),
        "license": _text(metadata.get("general.license")),
        "attestation": _attestation(path) if path is not None else None,
    }


def of_checkpoint(origin: Origin) -> dict[str, Any]:
    """Return where a checkpoint comes from, as its path and its README say; the keys of `recorded`."""
    return {
        "repository": origin.repository,
        "commit": origin.commit,
        "url": origin.repository and HUB + origin.repository,
        "license": origin.card.get("general.license"),
        "attestation": None,
    }


def is_known(origin: Mapping[str, Any]) -> bool:
    """Return whether anything says where a file comes from."""
    return any(origin[key] for key in ("repository", "url", "attestation"))


def _attestation(path: Path) -> str | None:
    beside = attestation_name(path)
    return beside.name if beside.is_file() else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None

"""The name of an attestation. Without what reads and writes one, so that inspect stays quick."""

from __future__ import annotations

from pathlib import Path

from tritpack.formats.split_files import name_of_set

SUFFIX = ".intoto.json"


def attestation_name(file: str | Path) -> Path:
    """Return the path of the attestation beside a GGUF: NAME.intoto.json, without the number of a part."""
    path = Path(file)
    return path.with_name(name_of_set(path.name) + SUFFIX)

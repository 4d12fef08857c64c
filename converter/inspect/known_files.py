"""Published files that many people have, recognised by their size and hashes (known_files.yaml)."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from tritpack.converter.yaml_tables import read_table
from tritpack.formats.gguf_reader import GgufFile

BY_SIZE, BY_HEADER, BY_HASH = "size", "header", "sha256"
"""How sure it is: another file can have the same size; the same header and size is likely, the same hash is proof."""


@functools.cache
def known_files() -> tuple[dict[str, Any], ...]:
    """Return the entries: name, nbytes, sha256, note and, where it is known, header_sha256."""
    return tuple(read_table(Path(__file__).with_name("known_files.yaml")))


def recognise(file: GgufFile, *, whole: bool) -> dict[str, Any] | None:
    """Return the published file that a file is or looks like, None if there is none of its size.

    whole: compare the SHA-256 of the whole file, which reads all of it. The result has `name`, `note` and `by`, one of
    BY_SIZE, BY_HEADER and BY_HASH; `differs` says that a hash is another one, so that the file was changed.
    """
    entry = next((entry for entry in known_files() if entry["nbytes"] == file.size), None)
    if entry is None or len(file.files) > 1:
        return None
    result = {"name": entry["name"], "note": entry["note"], "by": BY_SIZE, "differs": False}
    if whole:
        return {**result, "by": BY_HASH, "differs": file.sha256 != entry["sha256"]}
    if "header_sha256" in entry:
        header = hashlib.sha256(file.header_bytes.data).hexdigest()
        return {**result, "by": BY_HEADER, "differs": header != entry["header_sha256"]}
    return result

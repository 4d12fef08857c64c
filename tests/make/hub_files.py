"""The files of the hub of the tests, and how it lists them."""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".gguf", ".bin")
"""Endings of files that go by LFS."""


@dataclasses.dataclass
class StoredFile:
    data: bytes | mmap.mmap

    def __post_init__(self) -> None:
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.git = hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


def stored(path: Path) -> StoredFile:
    """Return a file; one of more than 1 GB is sparse, so it is mapped, and its hash is not taken."""
    if path.stat().st_size < 1 << 30:
        return StoredFile(path.read_bytes())
    file = object.__new__(StoredFile)
    with open(path, "rb") as stream:
        file.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    file.sha256, file.git = "5" * 64, "6" * 40
    return file


def _lfs(name: str, stored: StoredFile, key: str) -> dict[str, Any]:
    size = len(stored.data)
    return {"lfs": {key: stored.sha256, "size": size, "pointerSize": 134}} if name.endswith(LARGE) else {}


def info(repo: str, commit: str, files: Mapping[str, StoredFile]) -> dict[str, Any]:
    """Return what the Hub says of a repository."""
    siblings = [
        {"rfilename": name, "size": len(stored.data), "blobId": stored.git, **_lfs(name, stored, "sha256")}
        for name, stored in files.items()
    ]
    return {"_id": "0", "id": repo, "modelId": repo, "sha": commit, "private": False, "siblings": siblings, "tags": []}


def tree(files: Mapping[str, StoredFile]) -> list[dict[str, Any]]:
    """Return the list of its files."""
    return [
        {"type": "file", "path": name, "oid": stored.git, "size": len(stored.data), **_lfs(name, stored, "oid")}
        for name, stored in files.items()
    ]

"""Bundles made member by member, so that a test can make each of them wrong."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from tritpack.converter.release.contents import ContentsReader
from tritpack.converter.release.manifest import NAME, Entry, Manifest

Piece = tuple[bytes, bytes]
"""The header of a member and its bytes, without padding."""
FILES = {"README.md": b"a card\n", "sub/b.txt": b"b" * 700}


def entry_of(path: str, data: bytes) -> Entry:
    contents = ContentsReader().read(path, len(data), io.BytesIO(data).read)
    return Entry(path, len(data), contents.sha256)


def manifest_of(files: dict[str, bytes]) -> bytes:
    """The manifest.json of such files, bad paths included."""
    entries = {path: entry_of(path, files[path]) for path in sorted(files)}
    return Manifest("model", entries, {}).encoded()


def header(path: str, size: int, kind: bytes = b"0", link: str = "", **fields: Any) -> bytes:
    """A tar header as tritpack writes it, but for what is given."""
    info = tarfile.TarInfo(path)
    info.size, info.type, info.linkname = size, kind, link
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def member(path: str, data: bytes) -> Piece:
    return header(path, len(data)), data


def members_of(files: dict[str, bytes]) -> list[Piece]:
    """The members of the bundle of some files, manifest first."""
    return [member(NAME, manifest_of(files)), *(member(path, files[path]) for path in sorted(files))]


def archive(pieces: Sequence[Piece], end: bytes = bytes(1024)) -> bytes:
    return b"".join(head + data + bytes(-len(data) % 512) for head, data in pieces) + end


def compress(data: bytes, *, declared: int | None = None, checksum: bool = True) -> bytes:
    """One zstd frame. declared: the size in its header, its own by default."""
    frame = zstandard.ZstdCompressor(write_checksum=checksum).compress(data)
    if declared is None:
        return frame
    assert 256 <= len(data) < 65536 + 256 and 256 <= declared < 65536 + 256, "the size is two bytes there"
    return frame[:5] + (declared - 256).to_bytes(2, "little") + frame[7:]


def write(folder: Path, pieces: Sequence[Piece], end: bytes = bytes(1024)) -> Path:
    path = folder / "x.tar.zst"
    path.write_bytes(compress(archive(pieces, end)))
    return path

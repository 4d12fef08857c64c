"""What an input of the target `bundle` stands for: a JSON document.

    {"files": {PATH: CONTENT}, "headers": {PATH: {FIELD: VALUE}}, "manifest": {KEY: VALUE}, "end": NUMBER or CONTENT}

`files` are what a right bundle has, with hashes and sizes that are right. `headers` replaces fields of their tar
headers, whose checksum is right again if it is not given. `manifest` replaces keys of the manifest, whose own hash is
right again. `end` is what follows the members, a number of zeros or other bytes. CONTENT is as in inputs.py.
"""

from __future__ import annotations

import contextlib
import tarfile
from typing import Any

import zstandard

from tests.fuzz.inputs import MOST_DATA, content
from tritpack.converter.release import manifest as manifests
from tritpack.converter.release.bundle.archive import padding_of
from tritpack.converter.release.contents import ContentsReader
from tritpack.formats.json_text import json_text

FIELDS = {
    "name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12),
    "checksum": (148, 8), "type": (156, 1), "linkname": (157, 100), "magic": (257, 8), "prefix": (345, 155),
}  # fmt: skip
"""Of a tar header: offset and bytes."""
NUMBERS = ("mode", "uid", "gid", "size", "mtime", "checksum")


def bundle(document: Any) -> bytes:
    """The bytes of NAME.tar.zst for a document."""
    document = document if isinstance(document, dict) else {}
    named = document.get("files")
    files = {path: content(value) for path, value in named.items()} if isinstance(named, dict) else {}
    heads = _object(document.get("headers"))
    members = [(manifests.NAME, _manifest(files, document)), *sorted(files.items())]
    archive = b"".join(
        header({"name": path, "size": len(data), **_object(heads.get(path))}) + data + padding_of(len(data))
        for path, data in members
    )
    return zstandard.ZstdCompressor(write_checksum=True).compress(archive + _end(document.get("end")))


def _end(value: Any) -> bytes:
    return bytes(value) if isinstance(value, int) and 0 <= value < MOST_DATA else content(value)


def _manifest(files: dict[str, bytes], document: dict[str, Any]) -> bytes:
    reader, entries, codes = ContentsReader(), [], {}
    for path, data in sorted(files.items()):
        left = [data]
        contents = reader.read(path, len(data), lambda count, left=left: _take(left, count))  # type: ignore[misc]
        entries.append({"path": path, "nbytes": len(data), "sha256": contents.sha256})
        if contents.ternary is not None:
            codes[path] = contents.ternary.codes
    body = {"schema": manifests.SCHEMA, "name": "m", "files": entries, "codes_sha256": codes}
    body |= _object(document.get("manifest"))
    with contextlib.suppress(ValueError, TypeError):  # numbers that JSON has no text for
        body.setdefault("sha256", manifests._hash({key: body[key] for key in manifests.KEYS[:-1]}))
    return f"{json_text(body)}\n".encode("utf-8", "surrogatepass")


def _take(left: list[bytes], count: int) -> bytes:
    data, left[0] = left[0][:count], left[0][count:]
    return data


def header(fields: dict[str, Any]) -> bytes:
    """A tar header as tritpack writes it, but for these fields; one that is no number is the text that stands there."""
    info = tarfile.TarInfo("x")
    block = bytearray(info.tobuf(tarfile.PAX_FORMAT))
    for name, value in fields.items():
        offset, width = FIELDS.get(name, (0, 0))
        if name in NUMBERS and isinstance(value, int) and 0 <= value < 8 ** (width - 1):
            value = f"{value:0{width - 1}o}"
        block[offset : offset + width] = content(value)[:width].ljust(width, b"\0")
    if "checksum" not in fields:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def seeds(gguf: bytes) -> dict[str, Any]:
    """A right bundle with a GGUF, and one with every field of a header."""
    files = {
        "README.md": "a card",
        "m-I2_S.gguf": "\0" + gguf.decode("latin-1"),
        "report/report.json": {"verdict": "pass"},
    }
    fields = {"mode": 0o644, "uid": 0, "size": 6, "mtime": 0, "type": "0", "linkname": "", "prefix": ""}
    return {
        "right": {"files": files, "manifest": {"name": "m"}, "end": 1024},
        "fields": {"files": {"a": "a card", "b/c": ""}, "headers": {"a": fields}, "end": 1024},
    }

"""What an input of a fuzzer is: the bytes of a GGUF file, or a JSON document that stands for files or answers.

A folder is an object: name of a file -> its JSON, its text, or after "\\0" its bytes as Latin-1. A safetensors file may
be {"header": JSON, "bytes": number}: the data are a pattern of legal codes, so that seeds stay small.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_DATA = 1 << 21
NAME = re.compile(r"(?!\.+(/|$))[\w.-]{1,80}(/(?!\.+$)[\w.-]{1,80})?", re.ASCII)
CODES = b"\x24"
"""Two bits each: 0, 1, 2, 0. As floats of any type: the same small positive number, so that floats are ternary too."""

NEGATIVE = b"\xa4"
"""CODES in the high byte of a 16-bit float that is negative."""


def parsed(data: bytes) -> Any:
    """The document of an input, or None if it is not one."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def content(value: Any) -> bytes:
    """The bytes of a file of a folder."""
    if isinstance(value, str):
        raw = value.startswith("\0") and all(ord(char) < 256 for char in value)
        return value[1:].encode("latin-1") if raw else value.encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()


def safetensors(value: dict[str, Any]) -> bytes:
    """A file with this header before data of this length."""
    header, size = content(value.get("header")), value.get("bytes")
    count = min(size, MOST_DATA) if isinstance(size, int) and size > 0 else 0
    header += b" " * (-len(header) % 8)
    data = bytearray(CODES * count)
    for start, end in _biases(value.get("header")):
        data[start + 1 : end : 2] = NEGATIVE * len(data[start + 1 : end : 2])
    return struct.pack("<Q", len(header)) + header + data


def _biases(header: Any) -> Iterator[tuple[int, int]]:
    """Where the biases of MLX's groups are, which are minus the scales."""
    for name, entry in header.items() if isinstance(header, dict) else ():
        place = entry.get("data_offsets") if isinstance(entry, dict) else None
        if name.endswith(".biases") and isinstance(place, list) and [type(number) for number in place] == [int, int]:
            start, end = (max(0, min(number, MOST_DATA)) for number in place)
            yield start, end


def ini(sections: dict[str, Any]) -> bytes:
    """The text of an .ini file with these sections."""
    lines = [
        line
        for name, keys in sections.items()
        for line in (
            f"[{name}]",
            *(f"{key} = {value}" for key, value in (keys if isinstance(keys, dict) else {}).items()),
        )
    ]
    return content("\n".join(lines))


def write_folder(files: Any, folder: Path) -> None:
    """Write the files of a document; what is not a name of a file is left out."""
    for name, value in files.items() if isinstance(files, dict) else ():
        if not NAME.fullmatch(name):
            continue
        path = folder / name
        if path.parent.is_file() or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = name.endswith(".safetensors") and isinstance(value, dict)
        path.write_bytes(safetensors(value) if whole else content(value))

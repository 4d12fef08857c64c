"""JSON documents: as every command writes them, and as files are read."""

from __future__ import annotations

import json
import math
import re
from typing import Any

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Write a value as indented JSON. NaN and infinity, for which JSON has no number, become null."""
    return json.dumps(_strict(value), indent=2, ensure_ascii=ascii_only, allow_nan=False)


def parse_json(data: bytes) -> Any:
    """Parse a JSON document. Raises ValueError, also for half of a surrogate pair, which no text can hold, and
    RecursionError."""
    value = json.loads(data)
    if SURROGATE.search(data):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            raise ValueError(f"\\u{half:04x} is half of a surrogate pair, and no text") from error
    return value


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

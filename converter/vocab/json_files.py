"""Reader of the JSON files in a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tritpack.formats.errors import Unreadable
from tritpack.formats.inputs import read_input
from tritpack.formats.json_text import parse_json


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, or {} if there is no such file. Raises Unreadable."""
    if not path.exists():
        return {}
    try:
        value = parse_json(read_input(path))
    except (ValueError, RecursionError) as exc:
        raise Unreadable(f"cannot be read as JSON ({exc})", path=path) from exc
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object", path=path)
    return value

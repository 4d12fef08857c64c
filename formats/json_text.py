"""JSON documents as every command writes them."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Write a value as indented JSON. NaN and infinity, for which JSON has no number, become null."""
    return json.dumps(_strict(value), indent=2, ensure_ascii=ascii_only, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""What the results of inspect have in common, whatever was inspected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritpack.formats.model_spec import TABLES

SCHEMA = "tritpack.inspect/1"


def is_table(name: str) -> bool:
    """Return whether a tensor of that GGUF name is the embedding or the head."""
    return name.removesuffix(".weight") in TABLES


def summary(value: Any) -> Any:
    """Return a value of the metadata for people and JSON; a long array is its length and its first elements."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, list(value)[:6]))}}}"
    if isinstance(value, (int, float, str)):
        return value
    if hasattr(value, "__len__"):
        first = [summary(_plain(item)) for item in value[:6]]
        return first if len(value) <= 6 else {"length": len(value), "first": first}
    return value


def _plain(item: Any) -> Any:
    """A scalar of numpy as Python's; anything else, an array in a list of arrays too, as it is."""
    return item.item() if hasattr(item, "item") and not hasattr(item, "__len__") else item

"""What the results of inspect have in common, whatever was inspected."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tritpack.formats.model_spec import TABLES, ModelSpec

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


def hyperparameters(spec: ModelSpec) -> dict[str, Any]:
    """Return the fields of a spec for JSON: of a rotation its sizes, without signs and names of matrices."""
    fields = dataclasses.asdict(dataclasses.replace(spec, rotation=None))
    if (rotation := spec.rotation) is not None:
        fields["rotation"] = {
            "block": rotation.block,
            "sign_widths": sorted(rotation.signs),
            "matrices": len(rotation.weights),
            "tables": sorted(rotation.tables),
            "grouped_heads": rotation.grouped_heads,
        }
    return fields


def codes_in_all(rows: Sequence[Mapping[str, Any]], threes: int) -> dict[str, int] | None:
    """Return how many codes of all tensors are -1, 0, +1 and, of damaged ones, 3; None if none was decoded.

    rows: of the tensors, with their figures.
    """
    counts = [row["counts"] for row in rows if "counts" in row]
    if not counts and not threes:
        return None
    totals = (sum(count[code] for count in counts) for code in range(3))
    return {**dict(zip(("minus", "zero", "plus"), totals)), "code_3": threes}


def _plain(item: Any) -> Any:
    """A scalar of numpy as Python's; anything else, an array in a list of arrays too, as it is."""
    return item.item() if hasattr(item, "item") and not hasattr(item, "__len__") else item

"""The conditions of a rule: whether they hold for a model, and how they read in a sentence.

A condition is a field of PackedModel and what it has to be: one value or any of a list. Of a field with several values
one must be among them. `FIELD_not` is true where none is, `FIELD_below` where a number is smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

When = Mapping[str, Any]

WORDS: dict[str, Any] = {
    "architecture": "architecture {}",
    "layouts": "{}",
    "layouts_not": "not {}",
    "container": {"gguf": "a GGUF file", "checkpoint": "a checkpoint folder"},
    "storage": "linears stored as {}",
    "missing": "no {}",
    "shortest_row_below": "rows shorter than {}",
    "row_unit_below": "rows that are not whole words of {}",
    "tied": {True: "a tied head", False: "an output head of its own"},
    "int8_activations": {True: "int8 activations", False: "float activations"},
    "projection_norms": {True: "norms before the linears", False: "no norms before the linears"},
    "attention_fits": {True: "attention as wide as the model", False: "attention of another width than the model"},
    "scales_apart": {True: "scales in tensors NAME.scale", False: "no tensors NAME.scale"},
    "rotated": {True: "weights in a rotated basis", False: "weights in the plain basis"},
    "ternary": {True: "ternary linears", False: "linears that are not ternary"},
    "ternary_tables": {True: "a ternary embedding or head", False: "an embedding of floats"},
    "runnable": {True: "a supported model", False: "a model that is not supported"},
}
"""Condition -> how it reads; {} stands for its values."""


def holds(when: When, model: object) -> bool:
    """Return whether every condition holds for a model. A field that is not known (None) meets none."""
    return all(_holds(condition, wanted, model) for condition, wanted in when.items())


def _holds(condition: str, wanted: Any, model: object) -> bool:
    if condition.endswith("_below"):
        value = getattr(model, condition.removesuffix("_below"))
        return value is not None and bool(value < wanted)
    value = getattr(model, condition.removesuffix("_not"))
    values = set(value) if isinstance(value, (tuple, frozenset)) else {value}
    among = bool(values & set(listed(wanted)))
    return not among if condition.endswith("_not") else among


def in_words(when: When) -> str:
    """Return the conditions as a phrase for a table: `architecture bitnet, an output head of its own`."""
    return ", ".join(_words(condition, wanted) for condition, wanted in when.items()) or "anything"


def _words(condition: str, wanted: Any) -> str:
    words = WORDS[condition]
    if isinstance(words, str):
        return words.format(any_of(list(map(str, listed(wanted)))))
    return any_of([words[value] for value in listed(wanted)])


def any_of(values: list[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join(filter(None, [", ".join(values[:-1]), *values[-1:]]))


def listed(value: Any) -> list[Any]:
    """Return one value or a list of them as a list; None as none."""
    return value if isinstance(value, list) else [] if value is None else [value]

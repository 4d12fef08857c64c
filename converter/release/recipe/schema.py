"""The JSON Schema of recipes, made from their types. Editors take it from recipes/recipe.schema.json."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from tritpack.converter.release.recipe.reader import fields_of
from tritpack.converter.release.recipe.recipe import Recipe, Rules

FILE = "recipe.schema.json"
JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tritpack recipe",
        **_object(Recipe),
    }


def _object(kind: type) -> dict[str, Any]:
    fields = fields_of(kind)
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    return {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "properties": {name: _property(field) for name, field in fields.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _property(field: dataclasses.Field[Any]) -> dict[str, Any]:
    kind, rules = field.type, field.metadata["rules"]
    if isinstance(kind, types.UnionType):
        [kind] = (part for part in typing.get_args(kind) if part is not type(None))
    described = _described(typing.cast(type, kind), rules)
    described["description"] = rules.about
    if field.default is dataclasses.MISSING:
        return described
    # As the reader: null stands for the default.
    plain = isinstance(field.default, (str, bool, int, float))
    return {"anyOf": [described, {"type": "null"}], **({"default": field.default} if plain else {})}


def _described(kind: type, rules: Rules) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        return _object(kind)
    if typing.get_origin(kind) is tuple:
        [element, _] = typing.get_args(kind)
        fewest = {"minItems": rules.least} if rules.least is not None and dataclasses.is_dataclass(element) else {}
        return {"type": "array", "items": _described(element, rules), **fewest}
    described: dict[str, Any] = {"type": JSON_TYPES[kind]}
    if rules.choices:
        described["enum"] = list(rules.choices)
    if rules.pattern:
        described["pattern"] = f"^(?:{rules.pattern.removeprefix('(?s)')})$"
    if rules.least is not None and kind is int:
        described["minimum"] = rules.least
    return described

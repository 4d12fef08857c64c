"""Typed reading of a request's JSON: errors name the field that is wrong, and unknown fields are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritpack.formats.json_text import parse_json
from tritpack.runtime.serve.api_errors import ApiError

KINDS: dict[type[Any], str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}


def parse_body(data: bytes) -> Fields:
    """Return the fields of a body. Raises ApiError for what is not a JSON object in UTF-8."""
    try:
        value = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError("the body is not a JSON object", code="invalid_json")
    return Fields(value)


class Fields:
    """The fields of a JSON object. A field that is null counts as absent. `path` is the object's place in the body."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.values, self.path = values, path

    def name(self, key: str) -> str:
        """Return the whole name of a field, for errors."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, expected: str) -> ApiError:
        """Return the error for a field that is not as `expected`."""
        value = self.values.get(key)
        found = "is missing" if value is None else f"is {_shown(value)}"
        return ApiError(f"{self.name(key)} {found}, expected {expected}", code="invalid_value", param=self.name(key))

    def integer(self, key: str, default: int | None, low: int, high: int = 2**31 - 1) -> int | None:
        """Return an integer within bounds. Whole floats count, as some clients write them."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float | None, low: float, high: float) -> float | None:
        """Return a finite number within bounds."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def boolean(self, key: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self._typed(key, bool)
        return default if value is None else bool(value)

    def text(self, key: str, default: str | None = None) -> str | None:
        """Return text."""
        value = self._typed(key, str)
        return default if value is None else str(value)

    def object(self, key: str) -> Fields | None:
        """Return the fields of an object, None without it."""
        value = self._typed(key, dict)
        return None if value is None else Fields(value, self.name(key))

    def objects(self, key: str) -> list[Fields]:
        """Return the fields of each object of a list; none without it."""
        value = self._typed(key, list) or []
        for place, item in enumerate(value):
            if not isinstance(item, dict):
                name = f"{self.name(key)}[{place}]"
                raise ApiError(f"{name} is not an object", code="invalid_value", param=name)
        return [Fields(item, f"{self.name(key)}[{place}]") for place, item in enumerate(value)]

    def texts(self, key: str, most: int) -> list[str]:
        """Return a list of texts, of which a single text is the short form; none without it."""
        value = self.values.get(key)
        if value is None:
            return []
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or len(listed) > most or not all(isinstance(item, str) for item in listed):
            raise self.fail(key, f"text or a list of at most {most} texts")
        return listed

    def refuse(self, key: str, harmless: tuple[Any, ...], instead: str) -> None:
        """Raise for a field that would change the answer and is not supported, unless its value changes nothing."""
        value = self.values.get(key)
        if value is not None and value not in harmless:
            message = f"{self.name(key)} is not supported: {instead}"
            raise ApiError(message, code="unsupported_value", param=self.name(key))

    def _typed(self, key: str, kind: type[Any]) -> Any:
        value = self.values.get(key)
        if value is not None and not isinstance(value, kind):
            raise self.fail(key, KINDS[kind])
        return value


def _shown(value: Any) -> str:
    """A value in an error: short, and without the text of a conversation."""
    if isinstance(value, (bool, int, float)):
        return repr(value)[:40]
    return next(word for kind, word in KINDS.items() if isinstance(value, kind))

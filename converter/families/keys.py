"""Values of a config.json. Each is checked for its kind as it is read, so that its users can rely on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritpack.formats.errors import Unreadable
from tritpack.formats.model_spec import shortest_float

LARGEST = (1 << 31) - 1


class Keys:
    """config.json, completed by its class's defaults. Raises Unreadable, naming the key.

    A null is a value, as in transformers: it takes the place of the default, and no key that is needed may be null.
    """

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._config, self._defaults = config, defaults

    def get(self, key: str) -> Any:
        """Return the value as it is, or None."""
        return self._config.get(key, self._defaults.get(key))

    def rotary_base(self, key: str) -> Any:
        """Return the value, or the default for a null: newer configs have the base among the rotary parameters."""
        value = self.get(key)
        return self._defaults.get(key) if value is None else value

    def need(self, key: str) -> Any:
        """Return the value as it is."""
        value = self.get(key)
        if value is None:
            raise Unreadable(f"config.json: {key} is null" if key in self._config else f"config.json has no {key!r}")
        return value

    def size(self, key: str, largest: int = LARGEST) -> int:
        """Return a positive integer."""
        return as_size(key, self.need(key), largest)

    def number(self, key: str) -> float:
        """Return a positive number, as float32 keeps it."""
        return as_number(key, self.need(key))

    def boolean(self, key: str) -> bool:
        """Return true or false."""
        value = self.need(key)
        if not isinstance(value, bool):
            raise Unreadable(f"config.json: {key} is {value!r}, expected true or false")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return an object; an empty one if the key is missing."""
        value = self.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise Unreadable(f"config.json: {key} is {value!r}, expected an object")
        return value or {}


def as_number(key: str, value: Any) -> float:
    """See Keys.number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise Unreadable(f"config.json: {key} is {value!r}, expected a positive number")
    number = shortest_float(value)
    if not 0 < number < float("inf"):
        raise Unreadable(f"config.json: {key} is {str(value)[:30]}, which float32 cannot hold")
    return number


def as_size(key: str, value: Any, largest: int = LARGEST) -> int:
    """See Keys.size."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= largest:
        raise Unreadable(f"config.json: {key} is {str(value)[:60]!r}, expected a positive integer up to {largest}")
    return value

"""The arrays among the metadata of a tokenizer, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tritpack.formats.errors import Unreadable

TYPES: dict[str, tuple[type, ...]] = {
    "texts": (str,),
    "integers": (int, np.integer),
    "numbers": (int, float, np.number),
}


def check_arrays(metadata: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    """Raise Unreadable for a key that is there and is not an array of what it should hold.

    keys: key -> one of TYPES. All elements of an array in a GGUF file have one type, so that the first one tells it.
    """
    for key, kind in keys.items():
        value = metadata.get(key)
        is_array = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))
        if value is None or (is_array and (len(value) == 0 or _is_one_of(value[0], TYPES[kind]))):
            continue
        found = f"an array of {type(value[0]).__name__}" if is_array else repr(value)[:40]
        raise Unreadable(f"metadata key {key} is {found}, expected an array of {kind}")


def _is_one_of(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, (bool, np.bool_))

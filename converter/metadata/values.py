"""Values of GGUF metadata as people write them, and their types."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_header import MAX_NAME, SCALARS, TYPE_NAMES
from tritpack.formats.gguf_writer import SCALAR_IDS
from tritpack.formats.suggestions import did_you_mean

TEXT = "str"
BOOL = "bool"
SCALAR_TYPES = tuple(name for name in TYPE_NAMES.values() if name != "arr")
ARRAY_TYPES = tuple(f"arr[{name}]" for name in SCALAR_TYPES)
USUAL_TYPES = (
    (r"general\.(file_type|quantization_version)|tokenizer\.ggml\.\w+_token_id", "u32"),
    (r"tokenizer\.ggml\.add_\w+|tokenizer\.ggml\.remove_extra_whitespaces", BOOL),
    (r"general\.(tags|languages|datasets)", "arr[str]"),
    (r"general\.\w+(\.\w+)*|tokenizer\.(ggml\.(model|pre)|chat_template(\.\w+)?)|[\w-]+\.hidden_activation", TEXT),
    (r"[\w-]+\.(rope\.freq_base(_swa)?|rope\.scaling\.factor|attention\.layer_norm_rms_epsilon)", "f32"),
)
"""Types of keys that readers expect, whatever the value looks like: a name may be a number."""
WHOLE = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""What is a number; Python would take other digits, spaces and underscores too."""
DIGITS = 40
"""A whole number of more digits fits no type, however it goes on; Python refuses to read very long ones."""


def check_key(key: str) -> None:
    """Raise UsageError for what the GGUF specification does not allow as a key."""
    if not key or len(key.encode("utf-8", "surrogateescape")) >= MAX_NAME:
        raise UsageError(f"a key has 1 to {MAX_NAME - 1} bytes")
    if not key.isascii() or not key.isprintable() or " " in key:
        hint = "keys are lower-case words with dots between them, like tokenizer.ggml.pre"
        raise UsageError(f"{key!r} cannot be a key", hint=hint)


def check_type(kind: str) -> str:
    """Return the name of a type. Raises UsageError for an unknown one."""
    if kind not in (*SCALAR_TYPES, *ARRAY_TYPES):
        choices = f"choose one of {', '.join(SCALAR_TYPES)}, or an array of one, like arr[i32]"
        raise UsageError(f"{kind!r} is not a type of GGUF metadata", hint=did_you_mean(kind, SCALAR_TYPES) or choices)
    return kind


def type_for(key: str, text: str) -> str:
    """Return the type of a new key: the one that readers expect, else what the text looks like. Raises UsageError for a
    number or an array that no type holds: as text, programs would take it for something else."""
    if (usual := next((kind for pattern, kind in USUAL_TYPES if re.fullmatch(pattern, key)), None)) is not None:
        return usual
    if text in ("true", "false"):
        return BOOL
    if WHOLE.fullmatch(text):
        return _whole_type([_whole(text)], text)
    if NUMBER.fullmatch(text):
        return "f32"
    items = _json_list(text)
    return TEXT if items is None else f"arr[{_item_type(items, text)}]"


def _item_type(items: list[Any], text: str) -> str:
    """Return the type that holds all items of an array."""
    kinds = {type(item) for item in items}
    if kinds in ({str}, {bool}):
        return TEXT if kinds == {str} else BOOL
    if kinds == {int}:
        return _whole_type(items, text)
    if kinds in ({float}, {int, float}):
        return "f32"
    hint = "--type gives it a type, like arr[i32] for numbers, or str to store it as text"
    raise UsageError(f"{_short(text)} does not show what its items are", hint=hint)


def _whole_type(numbers: list[int], text: str) -> str:
    """Return the first type of whole numbers that holds all of them."""
    kinds = ("u32", "i32", "u64", "i64")
    if (kind := next((kind for kind in kinds if all(_fits(number, kind) for number in numbers)), None)) is None:
        hint = "--type f64 rounds it, --type str stores it as text"
        raise UsageError(f"{_short(text)} is out of range for every type of whole numbers", hint=hint)
    return kind


def parse_value(text: str, kind: str) -> Any:
    """Return a text as a value of a type, ready for a writer: np.generic, bool, str, np.ndarray or a list of str.

    An array is written as JSON. Raises UsageError for text that is not of the type, or out of its range.
    """
    if not kind.startswith("arr["):
        return _scalar(text, kind)
    if (items := _json_list(text)) is None:
        raise UsageError(f"{_short(text)} is not an array", hint='write it as JSON: [1, 2, 3] or ["a", "b"]')
    inner = kind[4:-1]
    if inner == TEXT:
        if wrong := [item for item in items if not isinstance(item, str)]:
            raise UsageError(f"the array has {wrong[0]!r}, expected text in quotes")
        return [_scalar(item, TEXT) for item in items]
    if wrong := [item for item in items if isinstance(item, (str, list, dict)) or item is None]:
        raise UsageError(f"the array has {wrong[0]!r}, expected {inner}")
    values = [_scalar(json.dumps(item), inner) for item in items]
    return np.array(values, np.bool_ if inner == BOOL else SCALARS[SCALAR_IDS[inner]])


def _scalar(text: str, kind: str) -> Any:
    if kind == TEXT:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(f"{_short(text)} is not UTF-8 text") from error
        return text
    if kind == BOOL:
        if text not in ("true", "false"):
            raise UsageError(f"{_short(text)} is not a bool, expected true or false")
        return text == "true"
    if kind.startswith("f"):
        return _float(text, kind)
    if not WHOLE.fullmatch(text):
        raise UsageError(f"{_short(text)} is not a whole number, and the type is {kind}")
    number = _whole(text)
    if not _fits(number, kind):
        limits = np.iinfo(np.dtype(SCALARS[SCALAR_IDS[kind]]))
        raise UsageError(f"{_short(text)} is out of range: {kind} holds {limits.min} to {limits.max}")
    return np.array(number, SCALARS[SCALAR_IDS[kind]])[()]


def _float(text: str, kind: str) -> Any:
    if not NUMBER.fullmatch(text):
        raise UsageError(f"{_short(text)} is not a number, and the type is {kind}")
    number = float(text)
    with np.errstate(over="ignore"):
        value = np.array(number, SCALARS[SCALAR_IDS[kind]])[()]
    if not math.isfinite(value):
        raise UsageError(f"{_short(text)} is not a finite number of type {kind}")
    return value


def _whole(text: str) -> int:
    """Return a whole number; one that is too long for every type is cut, and stays too long."""
    sign, digits = ("-" if text.startswith("-") else ""), text.lstrip("+-").lstrip("0") or "0"
    return int(sign + digits[:DIGITS])


def _fits(number: int, kind: str) -> bool:
    limits = np.iinfo(np.dtype(SCALARS[SCALAR_IDS[kind]]))
    return int(limits.min) <= number <= int(limits.max)


def _json_list(text: str) -> list[Any] | None:
    try:
        value = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

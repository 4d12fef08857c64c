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
    """Return the type of a new key: the one that readers expect, else what the text looks like."""
    if (usual := next((kind for pattern, kind in USUAL_TYPES if re.fullmatch(pattern, key)), None)) is not None:
        return usual
    if text in ("true", "false"):
        return BOOL
    if re.fullmatch(r"[+-]?[0-9]+", text):
        kinds = ("u32", "i32", "u64", "i64")
        return next((kind for kind in kinds if _fits(int(text), kind)), TEXT)
    if re.fullmatch(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][+-]?[0-9]+)?", text):
        return "f32"
    if text.startswith("[") and (items := _json_list(text)):
        inner = {type_for("", item if isinstance(item, str) else json.dumps(item)) for item in items}
        inner = {TEXT} if any(isinstance(item, str) for item in items) else inner
        for kind in ("f32", "i64", "i32", "u64"):  # of numbers, the one that holds all
            inner = {kind} if kind in inner and TEXT not in inner and BOOL not in inner else inner
        return f"arr[{inner.pop()}]" if len(inner) == 1 else TEXT
    return TEXT


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
    try:
        number = int(text)
    except ValueError as error:
        raise UsageError(f"{_short(text)} is not a whole number, and the type is {kind}") from error
    if not _fits(number, kind):
        limits = np.iinfo(np.dtype(SCALARS[SCALAR_IDS[kind]]))
        raise UsageError(f"{_short(text)} is out of range: {kind} holds {limits.min} to {limits.max}")
    return np.array(number, SCALARS[SCALAR_IDS[kind]])[()]


def _float(text: str, kind: str) -> Any:
    try:
        number = float(text)
    except ValueError as error:
        raise UsageError(f"{_short(text)} is not a number, and the type is {kind}") from error
    with np.errstate(over="ignore"):
        value = np.array(number, SCALARS[SCALAR_IDS[kind]])[()]
    if not math.isfinite(value):
        raise UsageError(f"{_short(text)} is not a finite number of type {kind}")
    return value


def _fits(number: int, kind: str) -> bool:
    limits = np.iinfo(np.dtype(SCALARS[SCALAR_IDS[kind]]))
    return int(limits.min) <= number <= int(limits.max)


def _json_list(text: str) -> list[Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

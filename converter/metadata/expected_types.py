"""The types of the keys that a repair looks at: one of another type is a damaged file, not a fault with a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_header import StringArray
from tritpack.runtime.tokenizer import SPECIAL_KEYS


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value < 1 << 32


def _is_texts(value: Any) -> bool:
    return isinstance(value, StringArray) or (isinstance(value, list) and all(isinstance(text, str) for text in value))


def _is_numbers(value: Any) -> bool:
    return (isinstance(value, np.ndarray) and value.dtype.kind in "iu") or (isinstance(value, list) and not value)


Kind = tuple[Callable[[Any], bool], str]
TEXT: Kind = (_is_text, "text")
EXPECTED: dict[str, Kind] = {
    **dict.fromkeys(("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"), TEXT),
    **dict.fromkeys(("tokenizer.chat_template", "tritpack.tokenizer.pipeline"), TEXT),
    **dict.fromkeys((*SPECIAL_KEYS.values(), "tokenizer.ggml.eot_token_id"), (_is_id, "the id of a token")),
    **dict.fromkeys(("tokenizer.ggml.tokens", "tokenizer.ggml.merges"), (_is_texts, "an array of text")),
    "tokenizer.ggml.token_type": (_is_numbers, "an array of whole numbers"),
}


def refuse_wrong_types(metadata: Mapping[str, Any], path: str | Path) -> None:
    """Raise Unreadable for a key whose value is not what every reader expects of it."""
    activations = (key for key in metadata if key.endswith(".hidden_activation"))
    for key, (is_right, words) in {**EXPECTED, **dict.fromkeys(activations, TEXT)}.items():
        if key in metadata and not is_right(metadata[key]):
            hint = f"tritpack metadata rm FILE {key} takes it out; or convert or download the file again"
            raise Unreadable(f"metadata key {key} is not {words}", path=path, hint=hint)

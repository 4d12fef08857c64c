"""Reads greedy tokens that somebody pinned for prompts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tritpack.formats.errors import Unreadable
from tritpack.formats.inputs import read_input
from tritpack.formats.json_text import parse_json


@dataclasses.dataclass(frozen=True)
class Golden:
    """Greedy tokens that are pinned for a prompt, which is text or ids."""

    prompt: str | list[int]
    greedy: list[int]


def parse_golden(path: Path) -> list[Golden]:
    """A JSON list of {"prompt": text or "tokens": ids, "greedy": ids}. Raises Unreadable."""
    try:
        golden = [
            Golden(_ids(entry["tokens"]) if "tokens" in entry else str(entry["prompt"]), _ids(entry["greedy"]))
            for entry in parse_json(read_input(path))
        ]
        if not all(entry.prompt and entry.greedy for entry in golden):
            raise ValueError("a prompt or its tokens are empty")
        return golden
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(
            f"it is not a list of golden tokens: {type(error).__name__} {error}",
            path=path,
            hint='expected [{"prompt": "Once", "greedy": [1, 2, 3]}, ...], or "tokens" in place of "prompt"',
        ) from error


def _ids(value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(i) is int for i in value):
        raise TypeError("token ids are not a list of whole numbers")
    return value

"""Reads greedy tokens that somebody pinned for prompts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tritpack.formats.errors import Unreadable
from tritpack.formats.inputs import read_input


@dataclasses.dataclass(frozen=True)
class Golden:
    """Greedy tokens that are pinned for a prompt, which is text or ids."""

    prompt: str | list[int]
    greedy: list[int]


def parse_golden(path: Path) -> list[Golden]:
    """A JSON list of {"prompt": text or "tokens": ids, "greedy": ids}. Raises Unreadable."""
    try:
        golden = [
            Golden(
                [int(i) for i in entry["tokens"]] if "tokens" in entry else str(entry["prompt"]),
                [int(i) for i in entry["greedy"]],
            )
            for entry in json.loads(read_input(path))
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

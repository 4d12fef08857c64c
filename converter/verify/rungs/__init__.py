"""The rungs in order, one module each. It imports none of them, so that `--help` stays quick."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tritpack.converter.verify.rung import RungModule

RUNGS = ("structure", "weights", "kernels", "tokenizer", "logits", "text", "generation", "perplexity")
LEVELS = (*RUNGS, "full")
"""How far to climb: up to that rung, those below included. `full`: all of them, without sampling anything but
slow kernels and the built-in text of a large model."""
DEFAULT_LEVEL = RUNGS[-1]
HIGHEST = {"full": RUNGS[-1], "logits": "text"}
"""Levels that end with another rung than their name: logits are judged on ordinary text too."""


def load(name: str) -> RungModule:
    """The module of a rung."""
    return cast("RungModule", importlib.import_module(f"{__name__}.{name}"))


def split_at(level: str) -> tuple[list[RungModule], list[RungModule]]:
    """The rungs that a level climbs, and those above it."""
    end = RUNGS.index(HIGHEST.get(level, level)) + 1
    return [load(name) for name in RUNGS[:end]], [load(name) for name in RUNGS[end:]]

"""verify without a source: what a file alone can show. One module per check, in the order of ALONE."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tritpack.converter.verify.alone.context import AloneModule

ALONE = ("structure", "weights", "integrity", "kernels", "tokenizer", "language")
HIGHEST = {"weights": "integrity", "perplexity": "language", "full": "language"}
"""Levels that end with another check than their name."""
LEVELS_ALONE = ("structure", "weights", "kernels", "tokenizer", "perplexity", "full")
"""Levels of `verify` that do without a source; the others compare with one."""


def split_alone(level: str) -> list[AloneModule]:
    """The checks that a level of LEVELS_ALONE runs."""
    names = ALONE[: ALONE.index(HIGHEST.get(level, level)) + 1]
    return [cast("AloneModule", importlib.import_module(f"{__name__}.{name}")) for name in names]

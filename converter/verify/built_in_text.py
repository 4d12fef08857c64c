"""The text that verify and perplexity measure on by default."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tritpack.formats import inputs

BUILT_IN = "text.txt"


def read_text(path: str | Path | None) -> str:
    """The UTF-8 text of a file, or the built-in text for None. Raises Unreadable."""
    if path is None:
        return (resources.files(__package__) / BUILT_IN).read_text("utf-8")
    return inputs.read_text(Path(path))

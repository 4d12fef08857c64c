"""The text that verify and perplexity measure on by default."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tritpack.formats.errors import Unreadable

BUILT_IN = "text.txt"


def read_text(path: str | Path | None) -> str:
    """The UTF-8 text of a file, or the built-in text for None. Raises Unreadable."""
    if path is None:
        return (resources.files(__package__) / BUILT_IN).read_text("utf-8")
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise Unreadable(f"it cannot be read as UTF-8 text: {error}", path=path) from error

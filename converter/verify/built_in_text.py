"""The text that verify and perplexity measure on by default."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path

from tritpack.formats import inputs

BUILT_IN = "text.txt"


def read_text(path: str | Path | None) -> str:
    """The UTF-8 text of a file, of standard input for `-`, or the built-in text for None. Raises Unreadable."""
    if path is None:
        return (resources.files(__package__) / BUILT_IN).read_text("utf-8")
    return _read_once(str(path)) if str(path) == "-" or Path(path).is_fifo() else inputs.read_text(Path(path))


@functools.cache
def _read_once(path: str) -> str:
    """The text of a stream, which is gone once it is read; commands check it before they begin, and read it again."""
    return inputs.read_stdin() if path == "-" else inputs.read_text(Path(path))

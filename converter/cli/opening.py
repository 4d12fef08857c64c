"""FILE arguments: a GGUF, or a checkpoint folder that runs through the same conversion into a temporary file."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from converter.cli.progress import Progress


@contextlib.contextmanager
def as_gguf(path: str) -> Iterator[Path]:
    """The path itself, or of a converted copy that is removed at the end."""
    given = Path(path)
    if not given.is_dir():
        yield given
        return
    from converter.convert import convert

    with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
        target = Path(folder) / "model.gguf"
        convert(given, target, progress=Progress("converting"))
        yield target

"""FILE arguments: a GGUF, or a checkpoint (folder or ORG/NAME) that runs through the same conversion into a temporary
file. And the option that says how to read a plain float one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from tritpack.converter.cli.progress import Progress

quantize_option = click.option(
    "--quantize",
    type=click.Choice(["absmean"]),
    help="Take a plain float checkpoint for masters and quantise it. Only for BitNet masters: others become rubbish.",
)


@contextlib.contextmanager
def as_gguf(path: str) -> Iterator[Path]:
    """The path itself, or of a converted copy that is removed at the end."""
    from tritpack.converter.sources.hub import parse_reference

    given = Path(path)
    if not given.is_dir() and (given.exists() or parse_reference(path) is None):
        yield given
        return
    from tritpack.converter.convert import convert
    from tritpack.converter.sources.open import local_path

    local = local_path(path, progress=True)
    if local.is_file():
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
        target = Path(folder) / "model.gguf"
        convert(local, target, progress=Progress("converting"))
        yield target

"""FILE arguments: a GGUF file, or a checkpoint (folder or ORG/NAME), which is first converted to a temporary file.

And the option that says how to read a checkpoint of plain floats.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from tritpack.converter.cli.progress import Progress
from tritpack.formats import names
from tritpack.formats.errors import TritpackError
from tritpack.formats.split_files import sisters

PATH = click.Path(readable=False)
"""Type of every argument and option that names a file, so that shells complete it. Whoever opens the file judges it."""

quantize_option = click.option(
    "--quantize",
    type=click.Choice(names.FLOAT_QUANTIZERS),
    help="Treat a plain float checkpoint as BitNet master weights and quantise it. A model that was not trained for "
    "this produces nonsense.",
)


def input_files(path: str) -> list[Path]:
    """Return the files that a FILE argument names on this machine, which no output may replace."""
    if not Path(path).is_dir():
        return sisters(Path(path))
    from tritpack.converter.sources.checkpoint import CheckpointFolder

    return CheckpointFolder(path).files


@contextlib.contextmanager
def as_gguf(path: str) -> Iterator[Path]:
    """Yield the path itself, or that of a converted copy, which is removed at the end."""
    from tritpack.converter.sources.hub import parse_reference

    file = Path(path)
    if not file.is_dir() and (file.exists() or parse_reference(path) is None):
        yield file
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
        try:
            yield target
        except TritpackError as error:
            error.path = path if error.path == target else error.path  # the user never saw the copy
            raise

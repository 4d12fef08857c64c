"""FILE arguments: a GGUF file, a bundle, from which one is unpacked into a temporary folder, or a checkpoint (folder or
ORG/NAME), which is first converted to a temporary file.

And the option that says how to read a checkpoint of plain floats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from tritpack.converter.cli.main import show
from tritpack.converter.cli.progress import Progress
from tritpack.formats import names
from tritpack.formats.errors import TritpackError
from tritpack.formats.files import refuse_existing
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
    if (bundle := _bundle(path)) is not None:
        return [bundle[0]]
    if not Path(path).is_dir():
        return sisters(Path(path))
    from tritpack.converter.sources.checkpoint import CheckpointFolder

    return CheckpointFolder(path).files


@contextlib.contextmanager
def as_gguf(path: str) -> Iterator[Path]:
    """Yield the path itself, or that of an unpacked or converted copy, which is removed at the end."""
    with unpacked(path) as file:
        if isinstance(file, Path):
            yield file
            return
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
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
        target = Path(folder) / "model.gguf"
        convert(local, target, progress=Progress("converting"))
        with _called(path, target):
            yield target


@contextlib.contextmanager
def unpacked(path: str, *, quiet: bool = False, output: str | None = None) -> Iterator[str | Path]:
    """Yield a FILE argument as it is or, if it is a bundle, the path of the GGUF that is unpacked from it, and removed
    at the end.

    output: what the command writes, which must not be the bundle. Raises UsageError, also, naming the GGUFs, if there
    are several and the argument does not say which.
    """
    if (bundle := _bundle(path)) is None:
        yield path
        return
    if output is not None and Path(output).is_file():
        refuse_existing(Path(output), force=True, inputs=[bundle[0]])
    from tritpack.converter.release.bundle.gguf_member import unpacked_gguf

    with unpacked_gguf(*bundle, progress=Progress("unpacking", quiet=quiet)) as copy:
        if not quiet:
            show(f"{bundle[0]}: unpacked {copy.name} into a temporary folder", err=True)
        with _called(path, copy):
            yield copy


def _bundle(path: str) -> tuple[Path, str | None] | None:
    if ".tar.zst" not in path:
        return None
    from tritpack.converter.release.bundle.gguf_member import bundle_in

    return bundle_in(path)


@contextlib.contextmanager
def _called(path: str, copy: Path) -> Iterator[None]:
    """Let errors of a temporary copy name what the user gave: nobody has seen the copy."""
    try:
        yield
    except TritpackError as error:
        error.path = path if error.path == copy else error.path
        raise

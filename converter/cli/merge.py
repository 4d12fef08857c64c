"""tritpack merge."""

from __future__ import annotations

import time

import click

from tritpack.converter.cli.convert_options import OUTPUT
from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Progress


@click.command("merge")
@click.argument("file", type=PATH, metavar="NAME-00001-of-N.gguf")
@OUTPUT
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(file: str, output: str, force: bool, as_json: bool, quiet: bool) -> None:
    """Write a split file, given by its first part, as one file.

    Metadata, tensors and their order stay as they are. No other command needs this: each reads a split file by its
    first part.

    \b
    Example: tritpack merge model-00001-of-00003.gguf -o model.gguf
    """
    from tritpack.converter.merge import merge

    started = time.monotonic()
    merged = merge(file, output, force=force, progress=Progress("merging", quiet=quiet))
    if as_json:
        parts = [str(part) for part in merged.parts]
        result = {"parts": parts, "output": output, "tensors": merged.tensors, "output_bytes": merged.nbytes}
        print_json({"schema": "tritpack.merge/1", **result})
        return
    seconds = time.monotonic() - started
    show(
        f"wrote {output}: {size(merged.nbytes)}, {merged.tensors} tensors of {len(merged.parts)} parts, {seconds:.1f} s"
    )

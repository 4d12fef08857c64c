"""tritpack make-dummy."""

from __future__ import annotations

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Progress
from tritpack.formats import names


@click.command("make-dummy")
@click.option(
    "-o", "--output", required=True, type=PATH, metavar="DIR|FILE.gguf", help="Checkpoint folder or GGUF file to write."
)
@click.option(
    "--shape",
    type=click.Choice(names.DUMMY_SHAPES),
    default=names.DUMMY_SHAPES[0],
    show_default=True,
    help="The sizes of the published 2B-4T or of a Ternary-Bonsai 2 of 4B, or a few small layers of either kind.",
)
@click.option(
    "--mode",
    type=click.Choice(names.DUMMY_MODES),
    default=names.DUMMY_MODES[0],
    show_default=True,
    help="offline writes packed codes, online bf16 master weights, which a Ternary-Bonsai 2 does not have.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same bytes."
)
@click.option("--force", is_flag=True, help="Overwrite an existing GGUF file.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(output: str, shape: str, mode: str, seed: int, force: bool, as_json: bool, quiet: bool) -> None:
    """Write a checkpoint of a real shape with random ternary weights and a full vocabulary, for benchmarks and tests.

    It talks nonsense, at the speed and size of the real model.
    """
    from tritpack.converter.tools.make_dummy import make_dummy

    dummy = make_dummy(
        output, shape=shape, mode=mode, seed=seed, force=force, progress=Progress("writing", quiet=quiet)
    )
    if as_json:
        print_json({"schema": "tritpack.make-dummy/1", **dummy})
    else:
        click.echo(f"wrote {output}: {size(dummy['nbytes'])}, shape {shape}, seed {seed}")

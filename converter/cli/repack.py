"""tritpack repack."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.convert_options import Run, convert_options, show_plan, show_result, wanted
from tritpack.converter.cli.file_argument import PATH, unpacked
from tritpack.formats import names


@click.command("repack")
@click.argument("file", type=PATH, metavar="FILE")
@click.option(
    "--read-as",
    type=click.Choice(names.READ_AS),
    help="How tensors that the file calls i2_s are really ordered: i2_s_arm is bitnet.cpp's order for ARM, i2_s_rows4 "
    "its order when built without activation parallelism.",
)
@click.option("--repair", is_flag=True, help="Read illegal codes and nonzero padding as zeros, instead of failing.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Find the tiling of tl1 and tl2 by trial: a GGUF of the same model, or the output of inspect --stats --json.",
)
@convert_options
def command(
    file: str,
    read_as: str | None,
    repair: bool,
    reference: Path | None,
    chosen: dict[str, Any],
    handling: dict[str, Any],
) -> None:
    """Write FILE (a GGUF, or one in a bundle) again in another layout, without the checkpoint and without losing a bit.

    Of a model that tritpack does not run (--dry-run says so), the ternary tensors get another layout, and all else
    stays.

    --tiling and --kernel-config also say how tl1 and tl2 tensors of FILE are tiled if the file does not record it;
    files of bitnet.cpp do not.

    \b
    Examples: tritpack repack model.gguf -o small.gguf --outtype t158 --embedding-type q6_k
              tritpack repack ggml-model-i2_s.gguf -o model.gguf --for ik_llama.cpp
              tritpack repack ggml-model-tl2.gguf -o model.gguf --outtype i2_s --kernel-config kernel_config.ini
    """
    from tritpack.converter.repack import reading_of

    run = Run("repack", file, **handling)
    with unpacked(file, quiet=run.quiet, output=run.output) as path:
        run = dataclasses.replace(run, local=path if isinstance(path, Path) else None)
        reading = reading_of(path, read_as, repair, reference, chosen["tiling"], chosen["kernel_config"])
        (show_plan if run.dry_run else show_result)(run, wanted(chosen, reading=reading))

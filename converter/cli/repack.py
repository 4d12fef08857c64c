"""tritpack repack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.convert_options import tilings_of, write, writing_options


@click.command("repack")
@click.argument("file", metavar="IN.gguf")
@click.option(
    "--read-as",
    type=click.Choice(["i2_s_arm", "i2_s_rows4"]),
    help="What the file calls i2_s is really bitnet.cpp's ARM order, or that without activation parallelism.",
)
@click.option("--repair", is_flag=True, help="Read illegal codes and rubbish in padding as zeros, not as an error.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Find the tiling of tl1 and tl2 by trial: a GGUF of the same model, or the output of inspect --stats --json.",
)
@writing_options
def command(file: str, read_as: str | None, repair: bool, reference: Path | None, writing: dict[str, Any]) -> None:
    """Write a packed file anew in another layout, without the checkpoint and without losing a bit.

    --tiling and --kernel-config also say how tl1 and tl2 tensors of IN.gguf are tiled if it does not record it: files
    of bitnet.cpp do not.

    \b
    Examples: tritpack repack model.gguf -o small.gguf --outtype t158 --embedding-type q6_k
              tritpack repack ggml-model-i2_s.gguf -o model.gguf --for ik_llama.cpp
              tritpack repack ggml-model-tl2.gguf -o model.gguf --outtype i2_s --kernel-config kernel_config.ini
    """
    from tritpack.converter.sources.open import is_gguf
    from tritpack.converter.sources.repair import ReadRequest
    from tritpack.formats.errors import Unreadable

    if not is_gguf(Path(file)):
        if not Path(file).exists():
            raise Unreadable(f"{file}: does not exist")
        raise Unreadable(f"{file}: is no GGUF file", hint="tritpack convert reads checkpoints")
    reading = ReadRequest(read_as, repair, tilings_of(writing), reference)
    write(file, writing, command="repack", reading=reading)

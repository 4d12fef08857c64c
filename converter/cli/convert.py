"""tritpack convert."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.convert_options import Run, convert_options, show_plan, show_result, wanted
from tritpack.converter.cli.file_argument import PATH, quantize_option


@click.command("convert")
@click.argument("source", type=PATH, metavar="SOURCE")
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub (or write ORG/NAME@REVISION).")
@click.option("--stream", is_flag=True, help="Read a repository's weights as they come from the Hub, and store none.")
@quantize_option
@convert_options
def command(
    source: str,
    revision: str | None,
    stream: bool,
    quantize: str | None,
    chosen: dict[str, Any],
    handling: dict[str, Any],
) -> None:
    """Convert SOURCE to a GGUF file, keeping every code and scale exactly.

    SOURCE is a checkpoint folder, a GGUF file, or a repository on the Hub (ORG/NAME or ORG/NAME@REVISION; HF_TOKEN,
    HF_ENDPOINT and HF_HUB_OFFLINE are respected). One line of the output says what was recognised, and why.

    \b
    Examples: tritpack convert bitnet-b1.58-2B-4T -o model.gguf --outtype t158
              tritpack convert tiiuae/Falcon3-1B-Instruct-1.58bit -o falcon.gguf --for llama.cpp
              tritpack convert tiiuae/Falcon-E-1B-Base@prequantized -o model.gguf --quantize absmean
              tritpack convert bitnet-b1.58-2B-4T -o 'out/{name}-{ftype}.gguf' --outtype i2_s,t158
    """
    run = Run("convert", source, **handling)
    act = show_plan if run.dry_run else show_result
    act(run, wanted(chosen, quantize=quantize), revision=revision, stream=stream)

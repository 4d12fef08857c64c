"""tritpack convert."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.convert_options import Run, convert_options, show_plan, show_result
from tritpack.converter.cli.file_argument import PATH, quantize_option


@click.command("convert")
@click.argument("source", type=PATH, metavar="SOURCE")
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub (or write ORG/NAME@REVISION).")
@quantize_option
@convert_options
def command(
    source: str, revision: str | None, quantize: str | None, chosen: dict[str, Any], handling: dict[str, Any]
) -> None:
    """Convert SOURCE to a GGUF file, keeping every code and scale exactly.

    SOURCE is a checkpoint folder, a GGUF file, or a repository on the Hub (ORG/NAME or ORG/NAME@REVISION; HF_TOKEN,
    HF_ENDPOINT and HF_HUB_OFFLINE are respected). One line of the output says what was recognised, and why.

    \b
    Examples: tritpack convert bitnet-b1.58-2B-4T -o model.gguf --outtype t158
              tritpack convert tiiuae/Falcon3-1B-Instruct-1.58bit -o falcon.gguf --for llama.cpp
              tritpack convert tiiuae/Falcon-E-1B-Base@prequantized -o model.gguf --quantize absmean
    """
    from tritpack.converter.convert import convert
    from tritpack.converter.options import ConvertOptions

    run = Run("convert", source, **handling)
    if run.dry_run:
        show_plan(run, ConvertOptions(quantize=quantize, **chosen), revision)
        return
    arguments = {**chosen, "quantize": quantize, "revision": revision, "force": run.force, "progress": run.progress}
    show_result(run, lambda: convert(source, run.output, **arguments))

"""tritpack convert."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.convert_options import write, writing_options
from tritpack.converter.cli.file_argument import quantize_option


@click.command("convert")
@click.argument("source", metavar="SOURCE")
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub (or write ORG/NAME@REVISION).")
@quantize_option
@writing_options
def command(source: str, revision: str | None, quantize: str | None, writing: dict[str, Any]) -> None:
    """Convert SOURCE to a GGUF file, keeping every code and scale exactly.

    SOURCE is a checkpoint folder, a GGUF file, or a repository on the Hub (ORG/NAME or ORG/NAME@REVISION; HF_TOKEN,
    HF_ENDPOINT and HF_HUB_OFFLINE are respected). What was recognised, and why, is said in one line.

    \b
    Examples: tritpack convert bitnet-b1.58-2B-4T -o model.gguf --outtype t158
              tritpack convert tiiuae/Falcon3-1B-Instruct-1.58bit -o falcon.gguf --for llama.cpp
              tritpack convert tiiuae/Falcon-E-1B-Base@prequantized -o model.gguf --quantize absmean
    """
    write(source, writing, command="convert", revision=revision, quantize=quantize)

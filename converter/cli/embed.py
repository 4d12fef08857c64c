"""tritpack embed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, input_files
from tritpack.converter.cli.model_options import (
    TOKENS,
    model_options,
    open_model,
    parse_tokens,
    prompt_options,
    take_prompt,
    write_npy,
)
from tritpack.converter.cli.parameters import json_option
from tritpack.formats import names


@click.command("embed")
@click.argument("file", type=PATH, metavar="FILE")
@prompt_options("Text; the tokenizer's special tokens and the model's end token are added.")
@click.option("--tokens", metavar="1,2,3", help="Token ids, used as given.")
@click.option("-o", "--output", required=True, type=PATH, metavar="OUT.npy", help="File to write: float32 (hidden,).")
@click.option(
    "--pooling",
    type=click.Choice([pooling for pooling in names.POOLING if pooling != "none"]),
    help="How positions become one vector; default: the model's own pooling.",
)
@click.option("--no-normalize", is_flag=True, help="Leave the vector's length as it is; it is 1 by default.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@model_options
@json_option
def command(
    file: str,
    tokens: str | None,
    output: str,
    pooling: str | None,
    no_normalize: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the embedding of a text: its hidden states after the final norm, pooled and scaled to length 1.

    Example: tritpack embed model.gguf -p "The sea" -o sea.npy
    """
    from tritpack.formats.files import refuse_existing
    from tritpack.runtime.embedding import text_ids

    prompt = take_prompt(options, tokens, TOKENS)
    refuse_existing(Path(output), force=force, inputs=input_files(file))
    with open_model(file, **options) as model:
        ids = parse_tokens(tokens) if tokens is not None else text_ids(model, prompt or "")
        vector = model.embed(tokens=ids, pooling=pooling, no_normalize=no_normalize)
        kernels = model.kernels()
    write_npy(output, vector, ids=ids, kernels=kernels, schema="tritpack.embed/1", force=force, as_json=as_json)

"""tritpack embed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, input_files
from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import (
    TOKENS,
    model_options,
    open_model,
    parse_tokens,
    prompt_options,
    say_written,
    take_prompts,
    write_npy,
)
from tritpack.converter.cli.parameters import json_option
from tritpack.formats import names
from tritpack.formats.errors import UsageError


@click.command("embed")
@click.argument("file", type=PATH, metavar="FILE")
@prompt_options("Text; the tokenizer's special tokens and the model's end token are added.", several=True)
@click.option("--tokens", metavar="1,2,3", help="Token ids, used as given.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="OUT.npy",
    help="File to write: float32 (hidden,) for one text, (texts, hidden) for several. --json needs none.",
)
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
    output: str | None,
    pooling: str | None,
    no_normalize: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compute the embedding of a text: its hidden states after the final norm, pooled and scaled to length 1.

    Example: tritpack embed model.gguf -p "The sea" -p "A hill" -o vectors.npy
    """
    from tritpack.formats.files import refuse_existing
    from tritpack.runtime.embedding import text_ids

    texts = take_prompts(options, tokens, TOKENS)
    if output is not None:
        refuse_existing(Path(output), force=force, inputs=input_files(file))
    elif not as_json:
        raise UsageError("give a file to write with -o OUT.npy, or --json, which prints the vectors")
    with open_model(file, **options) as model:
        import numpy as np

        inputs = [text_ids(model, text) for text in texts] if tokens is None else [parse_tokens(tokens)]
        vectors = np.stack([model.embed(tokens=ids, pooling=pooling, no_normalize=no_normalize) for ids in inputs])
        kernels = model.kernels()
    values = vectors[0] if len(inputs) == 1 else vectors
    if output is not None:
        write_npy(output, values, force=force)
    if as_json:
        written = {} if output is None else {"output": output}
        ids = {"ids": inputs[0]} if len(inputs) == 1 else {"texts": [{"ids": ids} for ids in inputs]}
        numbers = [[float(f"{value:.9g}") for value in vector] for vector in vectors.tolist()]  # exact for float32
        print_json({"schema": "tritpack.embed/1", **written, "shape": list(values.shape), **ids, "vectors": numbers,
                    "kernels": kernels})  # fmt: skip
    elif output is not None:
        say_written(output, values, inputs)

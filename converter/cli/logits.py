"""tritpack logits."""

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


@click.command("logits")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--tokens", metavar="1,2,3", help="Token ids, used as given.")
@prompt_options("Text; the tokenizer adds its special tokens.", several=True)
@click.option("--no-special", is_flag=True, help="Do not add the special tokens that the tokenizer adds to a prompt.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    metavar="OUT.npy",
    help="File to write: float32 (tokens, vocab), with the tokens of several texts one text after the other.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@model_options
@json_option
def command(
    file: str,
    tokens: str | None,
    no_special: bool,
    output: str,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the logits of every position of a prompt, to compare them with another implementation.

    Each of several texts starts anew. --json says which rows of the array are whose.
    """
    from tritpack.formats.files import refuse_existing

    texts = take_prompts(options, tokens, TOKENS)
    refuse_existing(Path(output), force=force, inputs=input_files(file))
    with open_model(file, **options) as model:
        import numpy as np

        model.require_logits()
        inputs = [model.tokenize(text, no_special=no_special) for text in texts]
        inputs = inputs if tokens is None else [parse_tokens(tokens)]
        values = np.concatenate([model.logits(ids) for ids in inputs])
        kernels = model.kernels()
    write_npy(output, values, force=force)
    if not as_json:
        say_written(output, values, inputs)
        return
    ends = np.cumsum([len(ids) for ids in inputs]).tolist()
    rows = [{"ids": ids, "rows": [end - len(ids), end]} for ids, end in zip(inputs, ends, strict=True)]
    whose = {"ids": inputs[0]} if len(inputs) == 1 else {"texts": rows}
    shape = list(values.shape)
    print_json({"schema": "tritpack.logits/1", "output": output, "shape": shape, **whose, "kernels": kernels})

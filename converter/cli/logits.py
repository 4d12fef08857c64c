"""tritpack logits."""

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


@click.command("logits")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--tokens", metavar="1,2,3", help="Token ids, used as given.")
@prompt_options("Text; the tokenizer adds its special tokens.")
@click.option("--no-special", is_flag=True, help="Do not add the special tokens that the tokenizer adds to a prompt.")
@click.option(
    "-o", "--output", required=True, type=PATH, metavar="OUT.npy", help="File to write: float32 (tokens, vocab)."
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
    """Write the logits of every position of a prompt, to compare them with another implementation."""
    from tritpack.formats.files import refuse_existing

    prompt = take_prompt(options, tokens, TOKENS)
    refuse_existing(Path(output), force=force, inputs=input_files(file))
    with open_model(file, **options) as model:
        model.require_logits()
        ids = model.tokenize(prompt, no_special=no_special) if tokens is None else parse_tokens(tokens)
        values = model.logits(ids)
        kernels = model.kernels()
    write_npy(output, values, ids=ids, kernels=kernels, schema="tritpack.logits/1", force=force, as_json=as_json)

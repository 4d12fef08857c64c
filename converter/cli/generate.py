"""tritpack generate."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import (
    TOKENS,
    model_options,
    no_mmap_option,
    open_model,
    parse_tokens,
    prompt_options,
    take_prompt,
    warn_of_second_bos,
)
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.sampling_options import sampling_options, take_sampling, with_defaults
from tritpack.formats.printable import printable


@click.command("generate")
@click.argument("file", type=PATH, metavar="FILE")
@prompt_options("Text to continue.")
@click.option("--tokens", metavar="1,2,3", help="Token ids to continue, used as given.")
@click.option(
    "-n", "--max-tokens", type=int, default=64, show_default=True, help="Most tokens to write; -1 is no limit."
)
@click.option("--no-special", is_flag=True, help="Do not add the special tokens that the tokenizer adds to a prompt.")
@sampling_options
@no_mmap_option
@model_options
@json_option
def command(file: str, tokens: str | None, max_tokens: int, no_special: bool, as_json: bool, **options: Any) -> None:
    """Continue a prompt with the model in FILE (a GGUF, one in a bundle, or a checkpoint folder).

    Example: tritpack generate model.gguf -p "Once upon a time" -n 64 --temp 0
    """
    prompt = take_prompt(options, tokens, TOKENS)
    sampling = take_sampling(options)
    with open_model(file, **options) as model:
        model.require_logits()
        sampling = with_defaults(model, sampling, quiet=as_json)
        ids = model.tokenize(prompt, no_special=no_special) if tokens is None else parse_tokens(tokens)
        if tokens is None and not no_special:
            warn_of_second_bos(model.tokenizer, ids)
        if as_json:
            result = model.generate(tokens=ids, max_tokens=max_tokens, **sampling)
            print_json(
                {
                    "schema": "tritpack.generate/1",
                    "text": result.text,
                    "ids": result.ids,
                    "prompt_ids": ids,
                    "sampling": sampling,
                    "stop_reason": result.stop_reason,
                    "tokens_per_second": result.tokens_per_second,
                    "prompt_tokens_per_second": result.prompt_tokens_per_second,
                    "kernels": model.kernels(),
                }
            )
            return
        click.echo(printable(prompt or "", lines=True), nl=False)
        result = model.generate(tokens=ids, max_tokens=max_tokens, on_text=_show, **sampling)
        click.echo()
    click.echo(
        f"{len(result.ids)} tokens, {result.tokens_per_second:.1f} tokens/s "
        f"(prompt {result.prompt_tokens_per_second:.1f}), stop reason: {result.stop_reason}",
        err=True,
    )


def _show(text: str) -> None:
    click.echo(text, nl=False)

"""tritpack generate."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import (
    model_options,
    open_model,
    parse_tokens,
    require_logits,
    require_one_input,
    sampling_options,
    sampling_params,
)


@click.command("generate")
@click.argument("file", metavar="FILE")
@click.option("-p", "--prompt", help="Text to continue.")
@click.option("--tokens", metavar="1,2,3", help="Token ids to continue, used as given.")
@click.option("-n", "--max-tokens", type=int, default=64, show_default=True, help="Tokens to write; -1 until the end.")
@click.option("--no-special", is_flag=True, help="Do not add the specials that the tokenizer adds to a prompt.")
@sampling_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def command(
    file: str, prompt: str | None, tokens: str | None, max_tokens: int, no_special: bool, as_json: bool, **options: Any
) -> None:
    """Continue a prompt with the model in FILE (a GGUF, or a checkpoint folder).

    Example: tritpack generate model.gguf -p "Once upon a time" -n 64 --temp 0
    """
    from tritpack.runtime.generate import collect, generate

    require_one_input(prompt, tokens)
    params = sampling_params(options)
    with open_model(file, **options) as model:
        require_logits(model)
        ids = (
            parse_tokens(tokens)
            if tokens is not None
            else model.tokenizer.encode(prompt or "", add_special=not no_special)
        )
        steps = generate(model, model.tokenizer, ids, max_tokens, params)
        if as_json:
            result = collect(steps)
        else:
            click.echo(prompt or "", nl=False)
            result = collect(steps, lambda text: click.echo(text, nl=False))
            click.echo()
        if as_json:
            print_json(
                {
                    "schema": "tritpack.generate/1",
                    "text": result.text,
                    "ids": result.ids,
                    "prompt_ids": ids,
                    "stop_reason": result.stop_reason,
                    "tokens_per_second": result.tokens_per_second,
                    "prompt_tokens_per_second": result.prompt_tokens_per_second,
                    "kernels": model.kernels(),
                }
            )
            return
    click.echo(
        f"{len(result.ids)} tokens, {result.tokens_per_second:.1f} tokens/s "
        f"(prompt {result.prompt_tokens_per_second:.1f}), stopped by {result.stop_reason}",
        err=True,
    )

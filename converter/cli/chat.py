"""tritpack chat."""

from __future__ import annotations

import sys
from typing import Any

import click

from converter.cli.running import model_options, open_model, sampling_options, sampling_params


@click.command("chat")
@click.argument("file", metavar="FILE")
@click.option("--system", help="System message to begin with.")
@click.option("-n", "--max-tokens", type=int, default=-1, show_default=True, help="Most tokens an answer may have.")
@sampling_options
@model_options
def command(file: str, system: str | None, max_tokens: int, **options: Any) -> None:
    """Talk with the model in FILE through its own chat template. An empty line or Ctrl-D ends it, /clear forgets."""
    from runtime.chat import Message, chat_ids
    from runtime.generate import collect, generate

    params = sampling_params(options)
    start: list[Message] = [{"role": "system", "content": system}] if system else []
    messages = list(start)
    with open_model(file, **options) as model:
        while True:
            if sys.stdin.isatty():
                click.echo("> ", nl=False, err=True)
            line = sys.stdin.readline().strip()
            if not line:
                return
            if line == "/clear":
                messages = list(start)
                continue
            messages.append({"role": "user", "content": line})
            steps = generate(model, model.tokenizer, chat_ids(model.tokenizer, messages), max_tokens, params)
            answer = collect(steps, lambda text: click.echo(text, nl=False))
            click.echo()
            messages.append({"role": "assistant", "content": answer.text})

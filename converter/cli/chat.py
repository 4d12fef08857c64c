"""tritpack chat."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.model_options import model_options, open_model, sampling_options, take_sampling
from tritpack.formats.errors import UsageError


@click.command("chat")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--system", help="System message that begins the conversation.")
@click.option(
    "-n", "--max-tokens", type=int, default=-1, show_default=True, help="Most tokens of an answer; -1 is no limit."
)
@sampling_options
@model_options
def command(file: str, system: str | None, max_tokens: int, **options: Any) -> None:
    """Talk with the model in FILE through its own chat template.

    An empty line or Ctrl-D ends the conversation, and /clear starts it anew.
    """
    from tritpack.runtime.chat import Message, chat_ids

    sampling = take_sampling(options)
    start: list[Message] = [{"role": "system", "content": system}] if system else []
    messages = list(start)
    answer: list[str] = []

    def show(text: str) -> None:
        answer.append(text)
        click.echo(text, nl=False)

    with open_model(file, **options) as model:
        model.require_logits()
        while line := _read_line():
            if line == "/clear":
                messages = list(start)
                continue
            messages.append({"role": "user", "content": line})
            ids = chat_ids(model.tokenizer, messages)
            while len(ids) >= model.context_length and len(messages) > len(start) + 1:
                del messages[len(start) : len(start) + 2]  # the oldest question and its answer
                ids = chat_ids(model.tokenizer, messages)
            answer.clear()
            # Ctrl-C ends an answer, not the conversation.
            with contextlib.suppress(KeyboardInterrupt):
                model.generate(tokens=ids, max_tokens=max_tokens, on_text=show, **sampling)
            click.echo()
            messages.append({"role": "assistant", "content": "".join(answer)})


def _read_line() -> str:
    """The next line of stdin without its end, empty at the end of input. Raises UsageError unless it is UTF-8."""
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        click.echo("> ", nl=False, err=True)
    try:
        return sys.stdin.readline().strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"the input is not UTF-8 text: {error}") from error

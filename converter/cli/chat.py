"""tritpack chat."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.main import show
from tritpack.converter.cli.model_options import (
    chat_model_options,
    no_mmap_option,
    open_model,
)
from tritpack.converter.cli.sampling_options import sampling_options, take_sampling, with_defaults
from tritpack.formats.errors import TritpackError, Unreadable, UsageError
from tritpack.formats.inputs import STDIN

if TYPE_CHECKING:
    from tritpack.runtime.chat import Message
    from tritpack.runtime.model import Model

LONGEST_LINE = 16 << 20
"""Bytes: a line without an end is not waited for."""


@click.command("chat")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--system", help="System message that begins the conversation.")
@click.option(
    "-n", "--max-tokens", type=int, default=-1, show_default=True, help="Most tokens of an answer; -1 is no limit."
)
@sampling_options
@no_mmap_option
@chat_model_options
def command(file: str, system: str | None, max_tokens: int, **options: Any) -> None:
    """Talk with the model in FILE through its own chat template.

    An empty line or Ctrl-D ends the conversation, and /clear starts it anew.
    """
    sampling = take_sampling(options)
    start = [{"role": "system", "content": system}] if system else []
    messages = list(start)
    answer: list[str] = []

    def stream(text: str) -> None:
        answer.append(text)
        click.echo(text, nl=False)

    with open_model(file, **options) as model:
        model.require_logits()
        sampling = with_defaults(model, sampling, quiet=True)
        if len(model.tokenizer.encode(system or "")) > model.context_length:
            raise UsageError(f"the system message is longer than the context of {model.context_length} tokens")
        while line := _read_line():
            if line == b"/clear":
                messages = list(start)
                continue
            try:
                messages, ids = _ask(model, messages, len(start), line)
            except TritpackError as error:
                if isinstance(error, UsageError) or len(messages) > len(start):
                    show(f"not sent: {error}", err=True)  # one bad line does not end a conversation
                    continue
                raise
            answer.clear()
            # Ctrl-C ends an answer, not the conversation.
            with contextlib.suppress(KeyboardInterrupt):
                model.generate(tokens=ids, max_tokens=max_tokens, on_text=stream, **sampling)
            click.echo()
            messages.append({"role": "assistant", "content": "".join(answer)})


def _read_line() -> bytes:
    """The next line of stdin without its end, empty at the end of input. Raises Unreadable."""
    if sys.stdin is None:
        return b""
    if sys.stdin.isatty():
        click.echo("> ", nl=False, err=True)
    line = sys.stdin.buffer.readline(LONGEST_LINE + 1)
    if len(line) > LONGEST_LINE:
        raise Unreadable(f"has a line of more than {LONGEST_LINE >> 20} MiB", path=STDIN)
    return line.strip()


def _ask(model: Model, messages: list[Message], fixed: int, line: bytes) -> tuple[list[Message], list[int]]:
    """The conversation with one more question, and its token ids. fixed: messages at the beginning that always stay.

    The oldest questions and answers are left out until the rest fits the context. Raises UsageError for a line that is
    not text, or that does not fit alone.
    """
    from tritpack.runtime.chat import chat_ids

    try:
        text = line.decode(sys.stdin.encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"the line is not {sys.stdin.encoding.upper()} text: {error}") from error
    asked = [*messages, {"role": "user", "content": text}]
    ids = chat_ids(model.tokenizer, asked)
    while len(ids) >= model.context_length and len(asked) > fixed + 1:
        del asked[fixed : fixed + 2]
        ids = chat_ids(model.tokenizer, asked)
    if len(ids) > model.context_length:
        raise UsageError(f"the line has {len(ids)} tokens with its template, the context {model.context_length}")
    return asked, ids

"""tritpack chat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.main import show
from tritpack.converter.cli.model_options import (
    chat_model_options,
    draft_options,
    no_mmap_option,
    open_model,
    prompt_cache_option,
)
from tritpack.converter.cli.sampling_options import sampling_options, take_sampling, with_defaults
from tritpack.converter.version import VERSION
from tritpack.formats.errors import UsageError
from tritpack.formats.files import refuse_existing

if TYPE_CHECKING:
    from tritpack.converter.cli.chat_loop import ChatLoop
    from tritpack.runtime.model import Model


@click.command("chat")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--system", help="System message that begins the conversation.")
@click.option(
    "-n", "--max-tokens", type=int, default=-1, show_default=True, help="Most tokens of an answer; -1 is no limit."
)
@click.option("--no-history", is_flag=True, help="Neither read nor write the lines of earlier chats.")
@sampling_options
@prompt_cache_option
@draft_options
@no_mmap_option
@chat_model_options
def command(
    file: str, system: str | None, max_tokens: int, no_history: bool, prompt_cache: str | None, **options: Any
) -> None:
    """Talk with the model in FILE through its own chat template.

    /help lists what can be typed besides questions. Ctrl-C stops an answer; Ctrl-D or /exit ends the conversation, and
    so does an empty line that comes through a pipe.
    """
    sampling = take_sampling(options)
    with open_model(file, **options) as model:
        from tritpack.converter.cli.chat_commands import COMMANDS
        from tritpack.converter.cli.chat_loop import ChatLoop
        from tritpack.converter.cli.line_reader import LineReader

        model.require_logits()
        if len(model.tokenizer.encode(system or "")) > model.context_length:
            raise UsageError(f"the system message is longer than the context of {model.context_length} tokens")
        reader = LineReader(list(COMMANDS), history=not no_history)
        if reader.interactive:
            _greet(model)
        sampling = with_defaults(model, sampling, quiet=not reader.interactive)
        loop = ChatLoop(model, reader, COMMANDS, system=system, max_tokens=max_tokens, sampling=sampling)
        if prompt_cache is None:
            loop.run()
            return
        from tritpack.runtime.prompt_cache import load_prompt_cache

        refuse_existing(Path(prompt_cache), force=True)  # said before the conversation, and not after it
        load_prompt_cache(model, Path(prompt_cache), version=VERSION)
        known = list(model.tokens)
        loop.run()
        if loop.answers:
            _remember(model, loop, Path(prompt_cache), known)


def _remember(model: Model, loop: ChatLoop, path: Path, known: list[int]) -> None:
    """Write the session to a file. known: the tokens that the file had.

    A later chat begins anew, and recurrent layers cannot go back to where two chats part: for a model with such layers
    the file gets only what comes before the first question.
    """
    from tritpack.runtime.generate import common_prefix
    from tritpack.runtime.prompt_cache import save_prompt_cache

    positions = None
    if model.spec.delta_net:
        opening = loop.conversation.opening()
        if known == opening:
            return
        positions = common_prefix(model.tokens, opening)
    save_prompt_cache(model, path, version=VERSION, positions=positions)


def _greet(model: Model) -> None:
    """Say on stderr what model this is, how long a conversation can be, and how to leave."""
    name = model.file.metadata.get("general.name")
    known = f"{name} ({model.file.path.name})" if isinstance(name, str) and name else model.file.path.name
    show(f"{known}, context of {model.context_length} tokens", err=True)
    show("Ctrl-C stops an answer; Ctrl-D or /exit leaves; /help lists more.", err=True)

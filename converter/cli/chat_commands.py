"""The commands inside `chat`, which begin with a slash."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from tritpack.converter.cli.chat_loop import ChatCommand, ChatLoop, Leave
from tritpack.converter.cli.main import show
from tritpack.converter.cli.word_wrap import terminal_width
from tritpack.formats.errors import UsageError
from tritpack.formats.inputs import read_text
from tritpack.runtime.chat import parse_messages


def _help(chat: ChatLoop, argument: str) -> None:
    names = {name: f"{name} {command.argument}".rstrip() for name, command in COMMANDS.items()}
    widest = max(map(len, names.values()))
    for name, command in COMMANDS.items():
        _show_row(names[name], command.about, widest)
    _show_row("\\", "At the end of a line: the question goes on in the next.", widest)
    _show_row("Ctrl-C", "Stop the answer.", widest)


def _show_row(name: str, text: str, widest: int) -> None:
    """Show two columns, the second one wrapped."""
    head = f"{name:<{widest}}  "
    click.echo(textwrap.fill(head + text, terminal_width(), subsequent_indent=" " * len(head)), err=True)


def _system(chat: ChatLoop, argument: str) -> None:
    conversation = chat.conversation
    if argument:
        if len(chat.model.tokenizer.encode(argument)) > chat.model.context_length:
            raise UsageError(f"it is longer than the context of {chat.model.context_length} tokens")
        conversation.replace([{"role": "system", "content": argument}, *conversation.turns])
        chat.say("(the system message holds from the next answer on)")
    else:
        show(conversation.system or "there is no system message", err=True, lines=True)


def _regen(chat: ChatLoop, argument: str) -> None:
    chat.ask_again()


def _undo(chat: ChatLoop, argument: str) -> None:
    question = chat.conversation.undo()
    if question is None:
        raise UsageError("there is no question to take back")
    first = " ".join(question.split())
    chat.say(f"(taken back, with its answer: {first if len(first) <= 40 else first[:37] + '...'})")


def _clear(chat: ChatLoop, argument: str) -> None:
    chat.conversation.clear()
    chat.say("(a new conversation)")


def _save(chat: ChatLoop, argument: str) -> None:
    from tritpack.formats.files import atomic_output

    path = _path(argument)
    if not chat.conversation.messages:
        raise UsageError("nothing was said yet")
    text = json.dumps(chat.conversation.messages, ensure_ascii=False, indent=2) + "\n"
    with atomic_output(path, len(text.encode()), force=path.resolve() in chat.saved) as stream:
        stream.write(text.encode())
    chat.saved.add(path.resolve())
    chat.say(f"(saved {len(chat.conversation.messages)} messages in {path})")


def _load(chat: ChatLoop, argument: str) -> None:
    path = _path(argument)
    messages = parse_messages(read_text(path))
    chat.conversation.replace(messages)
    chat.saved.add(path.resolve())
    unanswered = " The last one has no answer: /regen writes it." if messages[-1]["role"] == "user" else ""
    chat.say(f"(loaded {len(messages)} messages.{unanswered})")


def _stats(chat: ChatLoop, argument: str) -> None:
    written = sum(len(answer.ids) for answer in chat.answers)
    read = sum(answer.prompt_tokens - answer.cached_tokens for answer in chat.answers)
    reused = sum(answer.cached_tokens for answer in chat.answers)
    rows = {
        "context": f"{len(chat.model.tokens)} of {chat.model.context_length} tokens",
        "questions": f"{sum(turn['role'] == 'user' for turn in chat.conversation.turns)}"
        + (f", and {chat.conversation.dropped} dropped" if chat.conversation.dropped else ""),
        "written": f"{written} tokens",
        "read": f"{read} tokens of prompts; {reused} were known already",
    }
    if chat.answers:
        last = chat.answers[-1]
        rows["last"] = (
            f"{last.tokens_per_second:.1f} tokens/s written, {last.prompt_tokens_per_second:.1f} tokens/s read"
        )
    for name, value in rows.items():
        _show_row(name, value, 9)


def _exit(chat: ChatLoop, argument: str) -> None:
    raise Leave


def _path(argument: str) -> Path:
    """The path that a user means. Raises UsageError for what no file can be called, or where none can be reached."""
    if not argument:
        raise UsageError("the name of a file is missing")
    try:
        path = Path(argument).expanduser()
        path.resolve()
        path.is_file()
    except (RuntimeError, ValueError, OSError) as error:  # a home of nobody, a null character, a name that is too long
        raise UsageError(f"{argument!r} cannot be used: {getattr(error, 'strerror', None) or error}") from error
    return path


COMMANDS = {
    "/help": ChatCommand("", "Show these lines.", _help),
    "/system": ChatCommand("[TEXT]", "Show the system message, or replace it.", _system),
    "/regen": ChatCommand("", "Answer the last question again, with another seed.", _regen),
    "/undo": ChatCommand("", "Take the last question and its answer back.", _undo),
    "/clear": ChatCommand("", "Begin a new conversation.", _clear),
    "/save": ChatCommand("FILE", "Write the messages to a JSON file.", _save),
    "/load": ChatCommand("FILE", "Go on with the messages of such a file.", _load),
    "/stats": ChatCommand("", "Show the use of the context, and speeds.", _stats),
    "/exit": ChatCommand("", "Leave, as Ctrl-D does.", _exit),
}

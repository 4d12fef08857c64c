"""The loop of `chat`: a question, an answer, and a line about the answer."""

from __future__ import annotations

import contextlib
import signal
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tritpack.converter.cli.line_reader import LineReader
from tritpack.converter.cli.word_wrap import WordWrap, terminal_width
from tritpack.formats.errors import TritpackError, UsageError
from tritpack.formats.printable import printable
from tritpack.runtime.continuation import CANCELLED, Continuation, Generation, Request
from tritpack.runtime.conversation import Conversation
from tritpack.runtime.generate import run_continuation

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

REASONS = {
    "eos": "complete",
    "length": "cut at --max-tokens",
    "context": "cut: the context is full",
    CANCELLED: "stopped by Ctrl-C",
}
"""Reasons for the end of an answer, as a user reads them."""


HOW_TO_LEAVE = "(Ctrl-D or /exit ends the chat)"
STOPPED = "(stopped before the answer began; /regen answers the question)"


class Leave(Exception):
    """The user ends the chat."""


class ChatCommand(NamedTuple):
    """What a command takes and does, in words, and the function that does it."""

    argument: str
    about: str
    run: Callable[[ChatLoop, str], None]


class ChatLoop:
    """A conversation at a terminal, or with lines of a pipe, which get their answers and nothing else.

    sampling: temp, top_k, top_p, min_p, repeat_penalty and seed. commands: what lines may begin with instead of a
    question. saved: files that this chat has written or read, which /save may replace.
    """

    def __init__(
        self,
        model: Model,
        reader: LineReader,
        commands: Mapping[str, ChatCommand],
        *,
        system: str | None,
        max_tokens: int,
        sampling: dict[str, Any],
    ) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self.sampling = sampling
        self.reader = reader
        self.commands = commands
        self.conversation = Conversation(model.tokenizer, model.context_length, system)
        self.answers: list[Generation] = []
        self.saved: set[Path] = set()
        self._tries = 0  # at the same question

    def run(self) -> None:
        """Answer until the input ends. Raises TritpackError where the first question shows that nothing works."""
        with contextlib.suppress(Leave):
            while True:
                try:
                    line = self._read()
                    if line is None or (not line and not self.reader.interactive):
                        return
                    self._take(line)
                except KeyboardInterrupt:
                    turns = self.conversation.turns
                    unanswered = turns and turns[-1]["role"] == "user"
                    self.say(STOPPED if unanswered else HOW_TO_LEAVE)
                except TritpackError as error:
                    if not isinstance(error, UsageError) and not self.answers:
                        raise
                    self.note(f"not sent: {error}")  # one bad line does not end a conversation

    def _read(self) -> str | None:
        """The next line; Ctrl-C at the prompt gives it up and does not end the program."""
        while True:
            try:
                return self.reader.read()
            except KeyboardInterrupt:
                click.echo(err=True)
                self.say(HOW_TO_LEAVE)

    def _take(self, line: str) -> None:
        """Carry out a command, or answer a question."""
        name, _, argument = line.partition(" ")
        if not (name[:1] == "/" and name[1:].isalpha()):
            if line:
                self._tries = 0
                self._write(self.conversation.ask, line)
        elif name in self.commands:
            try:
                self.commands[name].run(self, argument.strip())
            except TritpackError as error:
                self.note(f"{name}: {error}" + (f" ({error.hint})" if error.hint else ""))
        else:
            self.note(f"there is no command {name}: /help lists them")

    def ask_again(self) -> None:
        """Answer the last question once more, with another seed. Raises UsageError where that changes nothing."""
        turns = self.conversation.turns
        if turns and turns[-1]["role"] == "assistant" and self.sampling["temp"] == 0:
            raise UsageError("the answer would be the same, because the temperature is 0")
        self._tries += 1
        self._write(self.conversation.ask_again)

    def _write(self, ask: Callable[..., list[int]], *question: str) -> None:
        """Ask, show the answer as it comes, and keep it. Raises KeyboardInterrupt before the answer begins."""
        before = self.conversation.dropped
        ids = ask(*question)
        if dropped := self.conversation.dropped - before:
            what = "question and its answer were" if dropped == 1 else f"{dropped} questions and their answers were"
            self.note(f"(the context of {self.model.context_length} tokens is full: the oldest {what} dropped)")
        values = {**self.sampling, "seed": self.sampling["seed"] + self._tries}
        params, speculation = self.model.sampling_params(**values), self.model.speculation()
        request = Request(ids, self.max_tokens, params, speculation=speculation)
        continuation = Continuation(request, self.model.tokenizer, self.model.context_length)
        self._stream(continuation)
        if continuation.stop_reason is None:  # Ctrl-C while the prompt was read
            raise KeyboardInterrupt
        result = continuation.result()
        self.answers.append(result)
        self.conversation.answer(result.text, result.ids)
        count = f"{len(result.ids)} token{'s' * (len(result.ids) != 1)}"
        reason = REASONS.get(result.stop_reason, result.stop_reason)
        self.say(f"({count}, {result.tokens_per_second:.1f} tokens/s; {reason})")

    def _stream(self, continuation: Continuation) -> None:
        """Show the text of an answer; Ctrl-C ends it."""
        wrap = WordWrap(lambda text: click.echo(text, nl=False)) if self.reader.interactive else None
        with _ctrl_c(continuation) as signals:
            for step in run_continuation(self.model, continuation):
                if wrap is None:
                    click.echo(step.text, nl=False)
                else:
                    wrap.feed(step.text)
                if signals:
                    continuation.cancel()
        if wrap is not None:
            wrap.finish()
        click.echo()

    def note(self, text: str) -> None:
        """Tell on stderr what a user has to know."""
        if self.reader.interactive:
            text = textwrap.fill(text, terminal_width(), break_on_hyphens=False)
        click.secho(printable(text, lines=True), err=True, dim=True)

    def say(self, text: str) -> None:
        """Tell on a terminal what is good to know; what reads a pipe gets the answers alone."""
        if self.reader.interactive:
            self.note(text)


@contextlib.contextmanager
def _ctrl_c(continuation: Continuation) -> Iterator[list[int]]:
    """Yield a list that gets the signal of Ctrl-C, so that the answer ends after the token at hand; while the prompt is
    read, Ctrl-C interrupts at once."""
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if continuation.reads_prompt:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield signals
    finally:
        signal.signal(signal.SIGINT, before)

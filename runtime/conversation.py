"""A conversation with a model: what was said as messages and as tokens, kept within the context.

The tokens of an answer stay those that the model wrote: text that is tokenized again can give others, and whatever the
session remembers after them would have to be evaluated again.
"""

from __future__ import annotations

from collections.abc import Sequence

from tritpack.formats.errors import UsageError
from tritpack.runtime.chat import Message, chat_text
from tritpack.runtime.generate import common_prefix
from tritpack.runtime.tokenizer import Tokenizer

MARK = "\N{OBJECT REPLACEMENT CHARACTER}answer\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for the last answer in a rendered chat, to find what the template puts after it."""
ROOM, KEPT = 1 / 8, 5 / 8
"""Shares of the context: that an answer should have at least, and that a prompt has at most after turns are dropped."""


class Conversation:
    """Messages, and the token ids of the prompt for the next answer.

    turns: the messages after the system message. context_length: tokens that prompt and answer may have. dropped: how
    many questions were left out so far because the context was full.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int, system: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.system = system
        self.turns: list[Message] = []
        self.dropped = 0
        self._rendered: str | None = None  # the prompt of the last answer
        self._ids: list[int] = []  # that prompt, and the answer

    @property
    def messages(self) -> list[Message]:
        """All messages, the system message first if there is one."""
        return [*self._first(), *self.turns]

    def ask(self, question: str) -> list[int]:
        """Add a question and return the ids of the prompt; a question without an answer before it is left out. The
        oldest turns are dropped where the context is full.

        Raises UsageError for a question that does not fit alone; the conversation is then as before.
        """
        answered = self.turns[:-1] if self.turns and self.turns[-1]["role"] == "user" else self.turns
        return self._prompt([*answered, {"role": "user", "content": question}])

    def ask_again(self) -> list[int]:
        """Take the last answer back and return the ids of its prompt.

        Raises UsageError without a question, or for one that does not fit; the conversation is then as before.
        """
        if not any(message["role"] == "user" for message in self.turns):
            raise UsageError("there is no question yet")
        answered = self.turns[-1]["role"] != "user"
        return self._prompt(self.turns[:-1] if answered else list(self.turns))

    def answer(self, text: str, ids: Sequence[int]) -> None:
        """Add an answer. ids: its tokens, without the one that ended it."""
        self.turns.append({"role": "assistant", "content": text})
        self._ids += ids

    def undo(self) -> str | None:
        """Take the last question and its answer back, and return the question; None if there is none."""
        self._rendered = None
        while self.turns:
            message = self.turns.pop()
            if message["role"] == "user":
                return str(message["content"])
        return None

    def clear(self) -> None:
        """Forget every turn; the system message stays."""
        self.turns.clear()
        self._rendered = None

    def replace(self, messages: Sequence[Message]) -> None:
        """Become other messages, of which the first may be a system message."""
        first = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
        self.system = first
        self.turns = list(messages[first is not None :])
        self._rendered = None

    def opening(self) -> list[int]:
        """Return the ids with which every conversation under this system message begins: what the prompts of two first
        questions share."""
        prompts = (chat_text(self.tokenizer, [*self._first(), {"role": "user", "content": text}]) for text in "a0")
        one, two = (self.tokenizer.encode(prompt, add_special=False) for prompt in prompts)
        return one[: common_prefix(one, two)]

    def _first(self) -> list[Message]:
        return [{"role": "system", "content": self.system}] if self.system else []

    def _prompt(self, turns: list[Message]) -> list[int]:
        """The ids of these turns, which become those of the conversation once they fit."""
        rendered = chat_text(self.tokenizer, [*self._first(), *turns])
        ids = self._continued(turns) or self.tokenizer.encode(rendered, add_special=False)
        dropped = 0
        if len(ids) > self.context_length * (1 - ROOM):
            while len(ids) > self.context_length * KEPT and len(turns) > 1:
                dropped += 1
                del turns[0]
                while len(turns) > 1 and turns[0]["role"] != "user":
                    del turns[0]
                rendered = chat_text(self.tokenizer, [*self._first(), *turns])
                ids = self.tokenizer.encode(rendered, add_special=False)
        if len(ids) > self.context_length:
            raise UsageError(
                f"the question has {len(ids)} tokens with its template, the context {self.context_length}",
                hint="ask a shorter one",
            )
        self.dropped += dropped
        self.turns, self._rendered, self._ids = turns, rendered, list(ids)
        return ids

    def _continued(self, turns: list[Message]) -> list[int] | None:
        """The ids so far and those of what follows the last answer, where the template only adds to what it had."""
        if self._rendered is None or len(turns) < 2 or turns[:-1] != self.turns:
            return None
        marked = [*turns[:-2], {**turns[-2], "content": MARK}, turns[-1]]
        before, *after = chat_text(self.tokenizer, [*self._first(), *marked]).split(MARK)
        if before != self._rendered or len(after) != 1:
            return None
        added = self.tokenizer.encode(after[0], add_special=False)
        # Ordinary text at the start of `added` could be one token with the answer's end, or get a blank before it.
        return [*self._ids, *added] if added and self.tokenizer.is_control(added[0]) else None

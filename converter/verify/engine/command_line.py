"""llama-cli of any fork: it continues a text, and nothing but the text comes out.

So it is asked for single tokens, after pieces of a text where our runtime is certain of its token and a known mistake
would choose another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.engine.program import Deadline, Program, Running
from tritpack.formats.arrays import F32
from tritpack.formats.errors import UsageError
from tritpack.runtime.tokenizer import Tokenizer

TOKENS, ATTEMPTS = 3, 3
"""llama.cpp may end before its last token is printed (its log is written by a thread), so more than one is asked for,
and a program that printed none is asked again."""
PER_MISTAKE, MOST = 2, 10
"""Questions that tell a mistake from the right model, and questions in all: each starts the program once."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The likeliest token after each position, int64 (tokens,), and its lead over the next in standard deviations of
    the logits, float64 (tokens,)."""

    token: npt.NDArray[np.int64]
    lead: npt.NDArray[np.float64]

    @classmethod
    def of(cls, logits: F32) -> Choice:
        """Return the choices in logits, (tokens, vocab)."""
        best = np.partition(logits, -2, axis=1)[:, -2:]
        spread = np.maximum(logits.std(1), 1e-30)
        return cls(logits.argmax(1), np.abs(best[:, 1] - best[:, 0]).astype(np.float64) / spread)


@dataclasses.dataclass(frozen=True)
class Question:
    """A text, and how it goes on by one token. expected: with the right model. others: with each mistake, by reason."""

    prompt: str
    expected: str
    others: Mapping[str, str]

    def tells(self, reason: str) -> bool:
        """Return whether the text with a mistake cannot be taken for that of the right model, as "then" for "the"."""
        return not begins(self.others[reason], self.expected)


def questions(
    tokenizer: Tokenizer, tokens: Sequence[int], ours: Choice, others: Mapping[str, Choice], lead: float
) -> list[Question]:
    """Return questions that together tell every mistake in `others` from the right model, as far as the text allows.

    lead: in standard deviations; from there on a token is certain.
    """
    asked: dict[int, Question] = {}
    certain = [int(position) for position in np.flatnonzero(ours.lead >= lead)]
    for reason, other in others.items():
        telling = [position for position in certain if other.token[position] != ours.token[position]]
        # Where the mistake is certain of its token too, the answer can also show that it was made.
        for position in sorted(telling, key=lambda position: -other.lead[position]):
            showing = [question for question in asked.values() if question.tells(reason)]
            if len(showing) >= PER_MISTAKE or len(asked) >= MOST:
                break
            question = _question(tokenizer, tokens, position, ours, others)
            if question is not None and question.tells(reason):
                asked[position] = question
    return list(asked.values())


def _question(
    tokenizer: Tokenizer, tokens: Sequence[int], position: int, ours: Choice, others: Mapping[str, Choice]
) -> Question | None:
    """Return the question at a position; None where text does not carry it: the prompt is cut into other tokens, or a
    token shows nothing."""
    before = list(tokens[: position + 1])
    prompt = tokenizer.decode(before, skip_special=True)
    expected = _shown(tokenizer, before, int(ours.token[position]))
    if not expected.strip() or tokenizer.encode(prompt) != before:
        return None
    shown = {reason: _shown(tokenizer, before, int(other.token[position])) for reason, other in others.items()}
    return Question(prompt, expected, shown)


def _shown(tokenizer: Tokenizer, before: Sequence[int], token: int) -> str:
    """Return what a token adds to the text before it; "" for one that is not whole characters."""
    if tokenizer.is_control(token):
        return ""
    text = tokenizer.decode([*before, token])[len(tokenizer.decode(before)) :]
    return "" if "\ufffd" in text else text


def answer_all(program: Program, arguments: Sequence[str], asked: Sequence[Question], deadline: Deadline) -> list[str]:
    """Return what the program prints after each prompt. Raises EngineFailed, and UsageError for a program that only
    chats."""
    if program.knows("--single-turn") and not program.knows("-no-cnv"):
        raise UsageError(
            f"--engine: this {program.path.name} only chats, so its text cannot be compared",
            hint="give llama-server, or llama-completion, which continues a text",
        )
    return [_answer(program, arguments, question.prompt, deadline) for question in asked]


def _answer(program: Program, arguments: Sequence[str], prompt: str, deadline: Deadline) -> str:
    """Return what the program prints after a prompt."""
    options = {
        "-p": prompt, "-n": TOKENS, "--temp": 0, "--top-k": 1, "-no-cnv": None, "--simple-io": None,
        "--no-display-prompt": None, "--no-warmup": None, "--repeat-penalty": 1.0,
    }  # fmt: skip
    for _ in range(ATTEMPTS):
        with Running([str(program.path), *arguments, *program.options(options)], apart=True) as running:
            if running.wait(deadline.left):
                raise running.ended_error()
            printed = running.output.decode("utf-8", "replace")
        text = printed.rpartition(prompt)[2] if prompt in printed else printed
        if text.strip():
            break
    return text


def begins(text: str, expected: str) -> bool:
    """Return whether a printed text begins with a token; programs add and drop white space around it."""
    return bool(expected.strip()) and text.strip().startswith(expected.strip())

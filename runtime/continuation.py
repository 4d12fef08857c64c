"""One request as a state machine: which tokens the model gets next, and what its logits make of them.

It knows no model. `generate.py` drives one continuation, `scheduler.py` many of them in the same passes, and both give
the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tritpack.formats.arrays import F32
from tritpack.formats.errors import UsageError
from tritpack.runtime.sampling import Sampler, SamplingParams
from tritpack.runtime.speculation import Speculation
from tritpack.runtime.text_stream import StopStrings, Utf8Stream
from tritpack.runtime.tokenizer import Tokenizer

CANCELLED = "cancelled"
LOGPROB_ROWS = 32
"""Tokens of a prompt that get logits at once, if all of them are wanted: 16 MB for a vocabulary of 128 000."""


class Constraint(Protocol):
    """What restricts a text to a grammar. One object serves one request."""

    @property
    def finished(self) -> bool:
        """Whether no token can follow."""

    def mask(self, logits: F32) -> F32:
        """Return a copy of the logits, float32 (vocab,), with -inf for each token that the grammar forbids now."""

    def accept(self, token: int) -> None:
        """Go on by one token."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue, and how.

    max_tokens: -1 runs until a stop token or the end of the context. stop_ids: None takes the tokenizer's, an empty
    collection takes none. show_special: write control tokens into the text; they are always in `ids`. top_logprobs:
    None for no log-probabilities, else how many of the likeliest tokens are given beside the chosen one.
    prompt_logprobs: give them for the prompt's tokens too. speculation: guesses tokens, which changes the speed only.
    """

    prompt: Sequence[int]
    max_tokens: int = 64
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: Collection[int] | None = None
    stop_strings: Sequence[str] = ()
    show_special: bool = False
    top_logprobs: int | None = None
    prompt_logprobs: bool = False
    constraint: Constraint | None = None
    speculation: Speculation | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log-probability, by the model's own distribution (temperature 1, before any filter), and those of the
    likeliest tokens, the first being the likeliest."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class GeneratedToken:
    """One step. `text` is what can be shown now; part of a character waits until the tokens complete it."""

    id: int
    text: str
    stop_reason: str | None = None  # of the last step only; with "eos", `id` is the stop token
    logprob: TokenLogprob | None = None


@dataclass(frozen=True, repr=False)
class Generation:
    """A finished generation. `ids` are the tokens written, without the stop token that ended it (`stop_id`)."""

    text: str
    ids: list[int]
    stop_reason: str  # eos, length, context, stop_string, cancelled
    stop_id: int | None
    tokens_per_second: float  # of evaluating the written tokens; 0 if none had to be evaluated
    prompt_tokens: int
    prompt_tokens_per_second: float  # of those that were evaluated
    stop_string: str | None = None  # that was met
    cached_tokens: int = 0  # of the prompt, that the model remembered
    drafted: int = 0  # tokens that were guessed
    accepted: int = 0  # guesses that were right
    gain: float | None = None  # by guesses: the speed over that without them; None if it is not known
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)  # of the prompt's tokens but the first
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of `ids`

    def __repr__(self) -> str:
        start = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        return (
            f"Generation({start!r}, {len(self.ids)} tokens, stopped by {self.stop_reason}, "
            f"{self.tokens_per_second:.1f} tokens/s)"
        )


def checked_prompt(request: Request, tokenizer: Tokenizer, context_length: int) -> list[int]:
    """Return the prompt's ids; an empty prompt becomes the BOS token. Raises UsageError for a prompt that is empty
    without a BOS, too long or outside the vocabulary, and for an impossible number of tokens."""
    prompt = [int(i) for i in request.prompt]
    if not prompt:
        if tokenizer.bos_id is None:
            raise UsageError(
                "the prompt is empty, and this model has no BOS token to begin with",
                hint="give a prompt with -p",
            )
        prompt = [tokenizer.bos_id]
    if request.max_tokens < -1:
        raise UsageError(
            f"the number of tokens to generate must be 0 or more, or -1 for no limit, not {request.max_tokens}"
        )
    if len(prompt) > context_length:
        raise UsageError(
            f"the prompt has {len(prompt)} tokens, more than the model's context of {context_length}",
            hint="shorten the prompt",
        )
    unknown_id = next((i for i in prompt if not 0 <= i < tokenizer.vocab_size), None)
    if unknown_id is not None:
        raise UsageError(
            f"token id {unknown_id} of the prompt is outside the vocabulary of {tokenizer.vocab_size} tokens"
        )
    return prompt


class Continuation:
    """A request at work. `history` is the prompt and what was written; the model remembers the first `evaluated` of it.

    Whoever drives it gives the model `next_tokens`, hands the logits to `take`, and then lets the model forget all but
    the first `evaluated` tokens. Raises UsageError as `checked_prompt`.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, context_length: int) -> None:
        self.request = request
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.history = checked_prompt(request, tokenizer, context_length)
        self.prompt_tokens = len(self.history)
        self.evaluated = 0
        self.stop_reason: str | None = "length" if request.max_tokens == 0 and not request.prompt_logprobs else None
        self.stop_id: int | None = None
        self._stop_string: str | None = None
        self._stops = tokenizer.stop_ids if request.stop_ids is None else frozenset(request.stop_ids)
        self._sampler, self._stream = Sampler(request.params), Utf8Stream()
        self._guard = StopStrings(request.stop_strings)
        self._pieces: list[str] = []
        self._draft: list[int] = []
        self._pending = 0  # tokens of the history that were given out
        self._cached = self._drafted = self._accepted = self._written = 0
        self._prompt_seconds = self._write_seconds = 0.0
        self._prompt_logprobs: list[TokenLogprob] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def reads_prompt(self) -> bool:
        """Whether part of the prompt is still to be evaluated."""
        return self.evaluated < self.prompt_tokens

    def reuse(self, known: int, rewindable: Callable[[int], int]) -> None:
        """Begin with the first `known` tokens of the prompt, which the model remembers. At least one is evaluated.

        rewindable: returns to how many of its first tokens the model can go back (see LanguageModel).
        """
        if not self.request.prompt_logprobs:
            self.evaluated = self._cached = rewindable(min(known, self.prompt_tokens - 1))

    def next_tokens(self, most: int, most_guesses: int = 0) -> tuple[list[int], int]:
        """Return at most `most` tokens that the model has to get now, and how many of the last ones need logits.

        most_guesses: of which so many may be guesses, if the request has a way of guessing.
        """
        scores = self.request.prompt_logprobs and self.reads_prompt
        most = min(most, LOGPROB_ROWS) if scores else most
        waiting = self.history[self.evaluated : self.evaluated + most]
        self._pending, self._draft = len(waiting), []
        if scores:
            return waiting, len(waiting)
        if self.evaluated + len(waiting) < len(self.history):
            return waiting, 0
        if self.request.speculation is not None and not self.reads_prompt:
            room = min(most - len(waiting), most_guesses, self._room() - 1)
            self._draft = self.request.speculation.guess(self.history, room) if room > 0 else []
        return waiting + self._draft, 1 + len(self._draft)

    def take(self, logits: F32, seconds: float) -> list[GeneratedToken]:
        """Take the logits, float32 (wanted, vocab), that `next_tokens` asked for, and return the tokens that they make.

        seconds: how long the model worked. Raises CheckFailed if the logits are not numbers.
        """
        was_prompt, begin = self.reads_prompt, time.perf_counter()
        first, self.evaluated = self.evaluated, self.evaluated + self._pending
        if was_prompt and self.request.prompt_logprobs:
            self._note_prompt(first, logits)
            logits = logits[-1:]
        tokens = [] if self.reads_prompt else self._write(logits)
        seconds += time.perf_counter() - begin
        if was_prompt:
            self._prompt_seconds += seconds
        else:
            self._write_seconds, self._written = self._write_seconds + seconds, self._written + len(tokens)
        if self.request.speculation is not None and not was_prompt:
            self.request.speculation.observe(len(self._draft), len(tokens) - 1, seconds)
        return tokens

    def cancel(self) -> None:
        """End it here."""
        self.stop_reason = self.stop_reason or CANCELLED

    def result(self) -> Generation:
        """What was written so far; final once `stop_reason` is set."""
        evaluated = self.prompt_tokens - self._cached
        speed = self._written / self._write_seconds if self._write_seconds > 0 else 0.0
        speculation = self.request.speculation
        return Generation(
            text="".join(self._pieces),
            ids=self.history[self.prompt_tokens :],
            stop_reason=self.stop_reason or CANCELLED,
            stop_id=self.stop_id,
            tokens_per_second=speed,
            prompt_tokens=self.prompt_tokens,
            prompt_tokens_per_second=evaluated / self._prompt_seconds if self._prompt_seconds > 0 else 0.0,
            stop_string=self._stop_string,
            cached_tokens=self._cached,
            drafted=self._drafted,
            accepted=self._accepted,
            gain=speculation.gain(self._written) if speculation is not None else None,
            prompt_logprobs=self._prompt_logprobs,
            logprobs=self._logprobs,
        )

    def _room(self) -> int:
        """Tokens that may still be written."""
        left = self.context_length + 1 - len(self.history)
        limit = self.request.max_tokens
        return left if limit < 0 else min(left, limit - (len(self.history) - self.prompt_tokens))

    def _write(self, logits: F32) -> list[GeneratedToken]:
        """The tokens that the logits make: each after a right guess, and one more."""
        if self.request.max_tokens == 0:
            self.stop_reason = "length"
            return []
        tokens = []
        for row, guess in zip(logits, [*self._draft, None]):
            tokens.append(self._write_one(row))
            if self.stop_reason or tokens[-1].id != guess:
                break
            self.evaluated += 1
        self._drafted += len(self._draft)
        self._accepted += len(tokens) - 1
        return tokens

    def _write_one(self, logits: F32) -> GeneratedToken:
        constraint = self.request.constraint
        token = self._sampler.next(logits if constraint is None else constraint.mask(logits), self.history)
        ended, data = None, b""
        logprob = None
        if token in self._stops:
            ended, self.stop_id = "eos", token
        else:
            if self.request.top_logprobs is not None:
                logprob = token_logprob(logits, token, self.request.top_logprobs)
                self._logprobs.append(logprob)
            self.history.append(token)
            if self.request.show_special or not self.tokenizer.is_control(token):
                data = self.tokenizer.token_bytes(token)
            if constraint is not None:
                constraint.accept(token)
            if constraint is not None and constraint.finished:
                ended = "eos"
            elif len(self.history) - self.prompt_tokens == self.request.max_tokens:
                ended = "length"
            elif len(self.history) > self.context_length:
                ended = "context"  # this token can still be shown, but not fed back
        text = self._stream.feed(data) + (self._stream.finish() if ended else "")
        text, self._stop_string = self._guard.feed(text, last=ended is not None)
        if self._stop_string is not None:
            ended, self.stop_id = "stop_string", None
        self._pieces.append(text)
        self.stop_reason = self.stop_reason or ended  # a signal may have cancelled it meanwhile
        return GeneratedToken(token, text, ended, logprob)

    def _note_prompt(self, first: int, logits: F32) -> None:
        """Log-probabilities of the prompt's tokens that follow the evaluated ones."""
        top = self.request.top_logprobs or 0
        for place, row in enumerate(logits, first + 1):
            if place < self.prompt_tokens:
                self._prompt_logprobs.append(token_logprob(row, self.history[place], top))


def token_logprob(logits: F32, token: int, top: int) -> TokenLogprob:
    """Return a token's log-probability and those of the `top` likeliest, ties by the lower id."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    wide -= np.log(np.exp(wide).sum())
    best: Sequence[int] = ()
    if top := min(top, len(wide)):
        # Not by a sort of the whole vocabulary, for which everybody in the pass would wait.
        last = np.partition(logits, len(logits) - top)[len(logits) - top]
        likely = np.flatnonzero(logits >= last)
        best = likely[np.argsort(-wide[likely], kind="stable")][:top].tolist()
    return TokenLogprob(token, float(wide[token]), tuple((i, float(wide[i])) for i in best))

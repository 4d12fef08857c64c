"""The generation loop: it takes a prompt and gives tokens one by one, and its text never shows half a character.

It knows a model only as a `LanguageModel`, so the C library and a test's toy model run through the same loop.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tritpack.formats.errors import UsageError
from tritpack.runtime.sampling import Sampler, SamplingParams
from tritpack.runtime.tokenizer import Tokenizer


class LanguageModel(Protocol):
    """What generation needs of a model, which remembers the tokens that it got since `reset`."""

    @property
    def context_length(self) -> int:
        """The largest number of tokens that it can remember."""

    def eval(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append `tokens` and return the logits after the last one, float32 (vocab,)."""

    def reset(self) -> None:
        """Forget all tokens."""


@dataclass(frozen=True)
class GeneratedToken:
    """One step. `text` is what can be shown now; part of a character waits until the tokens complete it."""

    id: int
    text: str
    stop_reason: str | None = None  # of the last step only; with "eos", `id` is the stop token


@dataclass(frozen=True, repr=False)
class Generation:
    """A finished generation. `ids` are the tokens written, without the stop token that ended it (`stop_id`)."""

    text: str
    ids: list[int]
    stop_reason: str  # eos, length, context, stop_string
    stop_id: int | None
    tokens_per_second: float  # of evaluating the written tokens; 0 if none had to be evaluated
    prompt_tokens: int
    prompt_tokens_per_second: float

    def __repr__(self) -> str:
        start = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        return (
            f"Generation({start!r}, {len(self.ids)} tokens, stopped by {self.stop_reason}, "
            f"{self.tokens_per_second:.1f} tokens/s)"
        )


class Utf8Stream:
    """Decoder of bytes that arrive in pieces: it holds back an unfinished character until its last byte has come."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        """The text that `data` completes. Bytes that can no longer become a character are U+FFFD at once."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """The rest: U+FFFD for an unfinished character, otherwise nothing."""
        return self._decoder.decode(b"", final=True)


class _StopStrings:
    """Filter that holds text back while it could still be the beginning of a stop string."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [string for string in strings if string]
        self._held = ""

    def feed(self, text: str, last: bool = False) -> tuple[str, bool]:
        """(text to show, whether a stop string was met). The stop string and everything after it are dropped."""
        self._held += text
        met = [place for place in map(self._held.find, self._strings) if place >= 0]
        if met:
            return self._held[: min(met)], True
        keep = 0
        if not last:
            for string in self._strings:
                for length in range(min(len(string) - 1, len(self._held)), keep, -1):
                    if self._held.endswith(string[:length]):
                        keep = length
                        break
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown, False


def stream_tokens(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    max_tokens: int,
    params: SamplingParams | None = None,
    stop_ids: Collection[int] | None = None,
    stop_strings: Sequence[str] = (),
    show_special: bool = False,
) -> Generator[GeneratedToken, None, Generation]:
    """Reset the model and yield one `GeneratedToken` per step; the generator's return value is the `Generation`.

    max_tokens: -1 runs until a stop token or the end of the context. stop_ids: None takes the tokenizer's, an empty
    collection takes none. show_special: write control tokens into the text; they are always in `ids`.
    Raises UsageError for a prompt that is empty, too long or outside the vocabulary: at the call, not at the first
    `next`.
    """
    prompt = [int(i) for i in prompt_ids]
    if not prompt:
        if tokenizer.bos_id is None:
            raise UsageError(
                "the prompt is empty, and this model has no BOS token to begin with",
                hint="give a prompt with -p",
            )
        prompt = [tokenizer.bos_id]
    if max_tokens < -1:
        raise UsageError(f"the number of tokens to generate must be 0 or more, or -1 for no limit, not {max_tokens}")
    if len(prompt) > model.context_length:
        raise UsageError(
            f"the prompt has {len(prompt)} tokens, more than the model's context of {model.context_length}",
            hint="shorten the prompt",
        )
    unknown_id = next((i for i in prompt if not 0 <= i < tokenizer.vocab_size), None)
    if unknown_id is not None:
        raise UsageError(
            f"token id {unknown_id} of the prompt is outside the vocabulary of {tokenizer.vocab_size} tokens"
        )
    stops = tokenizer.stop_ids if stop_ids is None else frozenset(stop_ids)
    return _loop(model, tokenizer, prompt, max_tokens, params or SamplingParams(), stops, stop_strings, show_special)


def _loop(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: list[int],
    max_tokens: int,
    params: SamplingParams,
    stops: Collection[int],
    stop_strings: Sequence[str],
    show_special: bool,
) -> Generator[GeneratedToken, None, Generation]:
    model.reset()
    sampler, stream, guard = Sampler(params), Utf8Stream(), _StopStrings(stop_strings)
    history, pieces, stop_id, reason = list(prompt), [""], None, "length"
    prompt_seconds = write_seconds = 0.0
    evaluated = 0  # written tokens that were fed back to the model
    pending: Sequence[int] = prompt
    while max_tokens != 0:
        begin = time.perf_counter()
        token = sampler.next(model.eval(pending), history)
        seconds = time.perf_counter() - begin
        if pending is prompt:
            prompt_seconds = seconds
        else:
            write_seconds, evaluated = write_seconds + seconds, evaluated + 1
        ended = None
        if token in stops:
            ended, stop_id, data = "eos", token, b""
        else:
            history.append(token)
            data = b"" if tokenizer.is_control(token) and not show_special else tokenizer.token_bytes(token)
            if len(history) - len(prompt) == max_tokens:
                ended = "length"
            elif len(history) > model.context_length:
                ended = "context"  # this token can still be shown, but not fed back
        text = stream.feed(data) + (stream.finish() if ended else "")
        text, met = guard.feed(text, last=ended is not None)
        if met:
            ended, stop_id = "stop_string", None
        pieces.append(text)
        yield GeneratedToken(token, text, ended)
        if ended:
            reason = ended
            break
        pending = [token]
    return Generation(
        text="".join(pieces),
        ids=history[len(prompt) :],
        stop_reason=reason,
        stop_id=stop_id,
        tokens_per_second=evaluated / write_seconds if write_seconds > 0 else 0.0,
        prompt_tokens=len(prompt),
        prompt_tokens_per_second=len(prompt) / prompt_seconds if prompt_seconds > 0 else 0.0,
    )


def collect(
    steps: Generator[GeneratedToken, None, Generation], on_text: Callable[[str], object] | None = None
) -> Generation:
    """Run the steps of `stream_tokens` to the end; `on_text` gets each piece of text as soon as it can be shown."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: Generation = end.value
            return result
        if on_text is not None and step.text:
            on_text(step.text)

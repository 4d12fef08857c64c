"""The generation loop for one conversation: it takes a request and gives tokens one by one.

It knows a model only as a `LanguageModel`, so the C library and a test's toy model run through the same loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from tritpack.formats.arrays import F32
from tritpack.runtime.continuation import Continuation, GeneratedToken, Generation, Request
from tritpack.runtime.tokenizer import Tokenizer

WHOLE = 1 << 30
"""More tokens than any context has: the loop gives a prompt to the model in one piece."""


class LanguageModel(Protocol):
    """What generation needs of a model, which remembers tokens."""

    @property
    def context_length(self) -> int:
        """The largest number of tokens that it can remember."""

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens that it remembers."""

    def rewindable(self, positions: int) -> int:
        """Return how many of the first `positions` tokens it need not evaluate again if it is rewound to them."""

    def rewind(self, positions: int) -> None:
        """Forget all tokens after the first `positions`."""

    def eval_last(self, tokens: Sequence[int], wanted: int) -> F32:
        """Append tokens and return the logits of the last `wanted`, float32 (wanted, vocab)."""


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two lists both begin with."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # halves are compared at once, which is faster than a loop over tokens
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def stream_tokens(
    model: LanguageModel, tokenizer: Tokenizer, request: Request
) -> Generator[GeneratedToken, None, Generation]:
    """Yield one `GeneratedToken` per step; the generator's return value is the `Generation`.

    What the model remembers of the prompt is not evaluated again. Raises UsageError for a prompt that is empty, too
    long or outside the vocabulary: at the call, not at the first `next`.
    """
    return run_continuation(model, Continuation(request, tokenizer, model.context_length))


def run_continuation(model: LanguageModel, continuation: Continuation) -> Generator[GeneratedToken, None, Generation]:
    """Yield the steps of a request that can be cancelled between two of them; see `stream_tokens`."""
    continuation.reuse(common_prefix(model.tokens, continuation.history), model.rewindable)
    while continuation.stop_reason is None:
        if len(model.tokens) > continuation.evaluated:
            model.rewind(continuation.evaluated)  # to the common prefix, or to the last right guess
        begin = time.perf_counter()
        tokens, wanted = continuation.next_tokens(WHOLE, most_guesses=WHOLE)
        logits = model.eval_last(tokens, wanted)
        yield from continuation.take(logits, time.perf_counter() - begin)
    if len(model.tokens) > continuation.evaluated:
        model.rewind(continuation.evaluated)  # wrong guesses are not part of the text
    return continuation.result()


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

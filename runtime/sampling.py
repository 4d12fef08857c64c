"""Sampling: from logits to the next token.

The filters run in llama.cpp's order: repetition penalty, top-k, top-p, min-p, temperature, draw. (transformers divides
by the temperature first; the sets that top-p and min-p keep then differ.) The repetition penalty itself is the same in
both: a positive logit is divided by it, any other multiplied, once for each token that occurs in the history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritpack.formats.errors import CheckFailed, UsageError


@dataclass(frozen=True)
class SamplingParams:
    """How to choose a token; the default is greedy. Raises UsageError for impossible values."""

    temperature: float = 0.0  # 0: always the most likely token
    top_k: int = 0  # keep the k most likely; 0: all
    top_p: float = 1.0  # keep the fewest most likely tokens whose probabilities reach p; 1: all
    min_p: float = 0.0  # keep tokens at least this fraction as likely as the most likely one; 0: all
    repetition_penalty: float = 1.0  # 1: none
    seed: int = 0

    def __post_init__(self) -> None:
        rules = (
            (math.isfinite(self.temperature) and self.temperature >= 0, "temperature", "0 or more", self.temperature),
            (self.top_k >= 0, "top_k", "0 (off) or more", self.top_k),
            (0 < self.top_p <= 1, "top_p", "above 0 and at most 1", self.top_p),
            (0 <= self.min_p <= 1, "min_p", "between 0 and 1", self.min_p),
            (
                math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0,
                "repetition_penalty",
                "above 0",
                self.repetition_penalty,
            ),
            (self.seed >= 0, "seed", "0 or more", self.seed),
        )
        for good, name, wanted, value in rules:
            if not good:
                raise UsageError(f"{name} must be {wanted}, not {value}")


class Sampler:
    """Chooser of tokens, one after the other; the same seed and logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._random = np.random.Generator(np.random.PCG64(params.seed))

    def next(self, logits: NDArray[np.float32], history: Sequence[int]) -> int:
        """Return the next token id.

        logits: float32 (vocab,); -inf excludes a token. history: ids so far, for the repetition penalty.
        Raises CheckFailed if the logits are not numbers.
        """
        scores = np.asarray(logits, dtype=np.float32)
        if scores.ndim != 1 or scores.size == 0:
            raise CheckFailed(
                f"the model gave logits of shape {scores.shape}, expected one row of the vocabulary's size"
            )
        highest = scores.max()  # NaN if there is one anywhere
        if not np.isfinite(highest):
            bad = int(np.count_nonzero(np.isnan(scores) | (scores == np.inf)))
            raise CheckFailed(
                f"the model gave logits that are not numbers ({bad or scores.size} of {scores.size}), so no token can "
                "be chosen",
                hint="run tritpack verify on the file: a tensor is likely damaged",
            )
        if self.params.repetition_penalty != 1.0 and len(history):
            scores = self._penalised(scores, history)
        if self.params.temperature == 0:
            return int(scores.argmax())  # the lowest id among equals
        return self._draw(scores)

    def _penalised(self, scores: NDArray[np.float32], history: Sequence[int]) -> NDArray[np.float32]:
        seen = np.unique(np.asarray(history, dtype=np.int64))
        penalty = np.float32(self.params.repetition_penalty)
        penalised = scores.copy()
        old = scores[seen]
        penalised[seen] = np.where(old > 0, old / penalty, old * penalty)
        return penalised

    def _draw(self, scores: NDArray[np.float32]) -> int:
        params = self.params
        if 0 < params.top_k < scores.size:
            # All that reach the k-th value, then the first k in order: ties go to the lowest ids, as in greedy.
            kth_value = np.partition(scores, scores.size - params.top_k)[scores.size - params.top_k]
            ids = np.flatnonzero(scores >= kth_value)
        else:
            ids = np.arange(scores.size)
        order = np.argsort(-scores[ids], kind="stable")
        ids = ids[order][: params.top_k or None]
        kept = scores[ids].astype(np.float64)
        if params.top_p < 1:
            reached = np.cumsum(_softmax(kept))
            count = int(np.searchsorted(reached, params.top_p)) + 1
            ids, kept = ids[:count], kept[:count]
        if params.min_p > 0:
            count = int(np.count_nonzero(kept - kept[0] >= math.log(params.min_p)))
            ids, kept = ids[:count], kept[:count]
        # A tiny temperature makes the quotient of a score overflow; distances from the best score become -inf at most.
        reached = np.cumsum(_softmax((kept - kept[0]) / params.temperature))
        place = int(np.searchsorted(reached, self._random.random() * reached[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of `values`, float64 (n,) with the largest first."""
    powers = np.exp(values - values[0])
    return np.asarray(powers / powers.sum(), dtype=np.float64)

"""Perplexity of a text, with its standard error, and the divergence of two models' predictions, in one pass.

The definitions are those of llama.cpp's `perplexity` tool, so that figures can be compared: perplexity is exp of the
mean negative log-likelihood over the scored positions, with the standard error from the spread of the log-likelihoods.
Against a second model there are also KL divergence, same-top-p, and the difference of the right token's probability.
The pass stores one number per position and figure, and no logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import F32, F64
from tritpack.formats.errors import UsageError

POSITIONS_AT_ONCE = 64
"""Positions converted to float64 at a time, because such logits of a vocabulary of 128k are large."""
PERCENTILES = (50, 90, 95, 99, 99.9)


class Evaluates(Protocol):
    """What scoring needs of a model."""

    def logits(self, tokens: Sequence[int], /) -> F32:
        """Return float32 (tokens, vocab) logits of a sequence without any context before it."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its standard error and its number of samples."""

    value: float
    error: float
    samples: int

    @classmethod
    def mean(cls, samples: npt.ArrayLike) -> Estimate:
        """Return the mean of independent samples; without samples it is NaN."""
        array = np.asarray(samples, np.float64)
        if array.size == 0:
            return cls(float("nan"), float("nan"), 0)
        spread = array.std(ddof=1) if array.size > 1 else float("nan")
        return cls(float(array.mean()), float(spread / np.sqrt(array.size)), array.size)

    def exponential(self) -> Estimate:
        """Return exp of the figure, its error propagated to first order."""
        with np.errstate(over="ignore"):
            value = float(np.exp(self.value))
        return Estimate(value, value * self.error, self.samples)

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "error": self.error, "samples": self.samples}


def log_softmax(logits: F32) -> F64:
    """Return the log-probabilities, float64 (tokens, vocab), of logits of that shape."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: F64 = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def negative_log_likelihoods(logits: F32, tokens: Sequence[int], first: int = 0) -> F64:
    """Return -ln p of tokens[first + 1 :], each from the logits (tokens, vocab) of the position before it."""
    targets = np.asarray(tokens[first + 1 :], np.int64)
    scores = np.empty(len(targets))
    for start in range(0, len(targets), POSITIONS_AT_ONCE):
        piece = targets[start : start + POSITIONS_AT_ONCE]
        table = log_softmax(logits[first + start : first + start + len(piece)])
        scores[start : start + len(piece)] = -table[np.arange(len(piece)), piece]
    return scores


def windows_of(tokens: Sequence[int], size: int, bos: int | None = None) -> list[list[int]]:
    """Cut a text into windows of `size` tokens, each with `bos` at its beginning if there is one.

    A last window without a position to score is dropped. Raises UsageError if `size` leaves nothing to score.
    """
    body = list(tokens[1:] if bos is not None and tokens and tokens[0] == bos else tokens)
    head = [] if bos is None else [bos]
    step = size - len(head)
    if step < 1 + (not head):
        raise UsageError(f"a window of {size} tokens has nothing to score", hint="give a longer one")
    pieces = [head + body[at : at + step] for at in range(0, len(body), step)]
    return [piece for piece in pieces if len(piece) > 1]


@dataclasses.dataclass
class Divergence:
    """How two models differ at the same positions: per figure one number for each position."""

    kl: list[F64] = dataclasses.field(default_factory=list)  # KL(base || model), nats
    same_top: list[npt.NDArray[np.bool_]] = dataclasses.field(default_factory=list)
    delta_p: list[F64] = dataclasses.field(default_factory=list)  # probability of the right token: model less base

    def add(self, logits: F32, base: F32, targets: Sequence[int]) -> None:
        """Add positions. logits, base: float32 (n, vocab) of the n positions before `targets`."""
        for start in range(0, len(targets), POSITIONS_AT_ONCE):
            piece = np.asarray(targets[start : start + POSITIONS_AT_ONCE], np.int64)
            rows, part = np.arange(len(piece)), slice(start, start + len(piece))
            mine, theirs = log_softmax(logits[part]), log_softmax(base[part])
            self.kl.append((np.exp(theirs) * (theirs - mine)).sum(-1))
            self.same_top.append(logits[part].argmax(-1) == base[part].argmax(-1))
            self.delta_p.append(np.exp(mine[rows, piece]) - np.exp(theirs[rows, piece]))

    def figures(self) -> dict[str, Any]:
        """Return the figures of all positions, as `tritpack perplexity --json` prints them."""
        kl, delta_p = np.concatenate(self.kl), np.concatenate(self.delta_p)
        percentiles = dict(zip(map(str, PERCENTILES), np.percentile(kl, PERCENTILES).tolist()))
        return {
            "kl": Estimate.mean(kl).as_json(),
            "kl_max": float(kl.max()),
            "kl_percentiles": percentiles,
            "same_top_p": Estimate.mean(np.concatenate(self.same_top)).as_json(),
            "delta_p_mean": Estimate.mean(delta_p).as_json(),
            "delta_p_rms": float(np.sqrt(np.square(delta_p).mean())),
        }


def score(
    model: Evaluates,
    windows: Sequence[Sequence[int]],
    *,
    skip: int = 0,
    base: Evaluates | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Return the perplexity of the windows; with `base` also its perplexity, and the divergence from it.

    skip: positions of each window that only give context (llama.cpp: half of it). Raises UsageError if no position is
    left to score.
    """
    mine: list[F64] = []
    theirs: list[F64] = []
    divergence = Divergence()
    for index, window in enumerate(windows):
        progress("", index, len(windows))
        if len(window) <= skip + 1:
            continue
        logits = model.logits(window)
        mine.append(negative_log_likelihoods(logits, window, skip))
        if base is not None:
            other = base.logits(window)
            theirs.append(negative_log_likelihoods(other, window, skip))
            divergence.add(logits[skip:-1], other[skip:-1], window[skip + 1 :])
    progress("", len(windows), len(windows))
    if not mine:
        raise UsageError("the text has no position to score", hint="give a longer text, or a smaller window or --skip")
    scores = np.concatenate(mine)
    figures: dict[str, Any] = {"perplexity": Estimate.mean(scores).exponential().as_json(), "windows": len(mine)}
    if base is not None:
        base_scores = np.concatenate(theirs)
        figures["perplexity_base"] = Estimate.mean(base_scores).exponential().as_json()
        # The differences are paired, so this error is far smaller than those of the two perplexities.
        figures["ln_ratio"] = Estimate.mean(scores - base_scores).as_json()
        figures |= divergence.figures()
    return figures

"""How far two tables of outputs are apart, position by position."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.runtime.perplexity import POSITIONS_AT_ONCE, log_softmax, negative_log_likelihoods

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Tokens = Sequence[int]
Pairs = Sequence[tuple[F32, F32]]
"""(found, expected) of each sequence, float32 (tokens, vocab) or, of embedding models, (tokens, hidden)."""
BEST = 5
MAX_SERIES = 4096
"""Of what plots are made of: longer series are thinned."""


def position_errors(found: F32, expected: F32) -> F32:
    """Per position: the largest difference, relative to the largest expected value. (tokens, n) -> (tokens,)."""
    errors: F32 = np.abs(found - expected).max(-1) / np.abs(expected).max(-1)
    return errors


def worst_position(pairs: Pairs) -> float:
    """The largest position error; NaN if there is one anywhere, which no limit lets pass."""
    return float(np.max([position_errors(*pair).max() for pair in pairs]))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One number a position: `errors` and, of logits, what the predictions have in common. relative_rms is over all.

    scores, scores_expected: negative log-likelihoods of the tokens that follow."""

    errors: F32
    relative_rms: float
    same_top: npt.NDArray[np.bool_] | None = None
    best_shared: F64 | None = None
    kl: F64 | None = None
    scores: F64 | None = None
    scores_expected: F64 | None = None

    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "positions": int(self.errors.size),
            "relative_rms": self.relative_rms,
            "worst_position": float(self.errors.max()),
            "share_within_1e-5": float((self.errors <= 1e-5).mean()),
        }
        if self.same_top is not None and self.best_shared is not None and self.kl is not None:
            figures |= {
                "top1": float(self.same_top.mean()),
                "top5": float(self.best_shared.mean()),
                "kl": float(self.kl.mean()),
            }
        return figures

    def series(self) -> dict[str, list[Any]]:
        """For plots: errors and divergence by position."""
        step = -(-self.errors.size // MAX_SERIES)
        series: dict[str, list[Any]] = {
            "position": list(range(0, self.errors.size, step)),
            "error": self.errors[::step].astype(float).tolist(),
        }
        if self.kl is not None:
            series["kl"] = self.kl[::step].tolist()
        return series


def compare(pairs: Pairs, windows: Sequence[Tokens], *, states: bool = False) -> Comparison:
    """states: the pairs hold hidden states, which have no top token and no perplexity."""
    errors = np.concatenate([position_errors(*pair) for pair in pairs])
    squares = power = 0.0
    same: list[npt.NDArray[np.bool_]] = []
    shared: list[F64] = []
    kl: list[F64] = []
    for pair in pairs:
        # Float64 copies of a 128k vocabulary are large: a few positions at a time.
        for first in range(0, len(pair[0]), POSITIONS_AT_ONCE):
            found, want = (outputs[first : first + POSITIONS_AT_ONCE] for outputs in pair)
            squares += float(np.square(found - want, dtype=np.float64).sum())
            power += float(np.square(want, dtype=np.float64).sum())
            if states:
                continue
            same.append(found.argmax(-1) == want.argmax(-1))
            shared.append(_best_shared(found, want))
            log_found, log_want = log_softmax(found), log_softmax(want)
            kl.append((np.exp(log_want) * (log_want - log_found)).sum(-1))
    rms = float(np.sqrt(squares / power)) if power else 0.0
    if states:
        return Comparison(errors, rms)
    return Comparison(
        errors,
        rms,
        np.concatenate(same),
        np.concatenate(shared),
        np.concatenate(kl),
        np.concatenate([negative_log_likelihoods(found, tokens) for (found, _), tokens in zip(pairs, windows)]),
        np.concatenate([negative_log_likelihoods(want, tokens) for (_, want), tokens in zip(pairs, windows)]),
    )


def _best_shared(found: F32, want: F32) -> F64:
    """Which share of the five best tokens is the same, in any order, (tokens,)."""
    count = min(BEST, found.shape[-1])
    mine, theirs = (np.argpartition(-table, count - 1, axis=-1)[:, :count] for table in (found, want))
    common: F64 = (mine[:, :, None] == theirs[:, None, :]).any(2).mean(1)
    return common

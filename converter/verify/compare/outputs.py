"""Measures how far two tables of outputs (logits or hidden states) are apart, position by position."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.compare.tolerances import MIN_TOP1, TEXT_LIMITS
from tritpack.formats.arrays import F32, F64
from tritpack.runtime.machine import usable_cores
from tritpack.runtime.perplexity import log_softmax

Tokens = Sequence[int]
Pairs = Sequence[tuple[F32, F32]]
"""Per sequence (ours, expected), float32 (tokens, vocab) or, of embedding models, (tokens, hidden)."""
BEST = 5
AT_ONCE = 8
"""Positions that are compared at a time: float64 copies of a vocabulary of 128k are large."""
MAX_SERIES = 4096
"""Series that are longer are thinned: plots are made of them."""


def position_errors(ours: F32, expected: F32) -> F32:
    """The largest difference at each position, relative to the largest expected value: (tokens, n) -> (tokens,).

    Equal outputs have the error 0, all zeros too: a token whose embedding row is zero gives such logits.
    """
    difference, largest = np.abs(ours - expected).max(-1), np.abs(expected).max(-1)
    with np.errstate(divide="ignore"):  # anything else than the zeros that are expected is infinitely far away
        errors: F32 = difference / np.where(difference == 0, np.float32(1), largest)
    return errors


def worst_position(pairs: Pairs) -> float:
    """The largest position error; NaN if there is a NaN anywhere, and no limit lets NaN pass."""
    return float(np.max([position_errors(*pair).max() for pair in pairs]))


@dataclasses.dataclass(frozen=True)
class OutputComparison:
    """Figures per position, (positions,): `errors` and, of logits, how far the predictions agree.

    relative_rms: over all positions. same_top: whether the likeliest token is the same. best_shared: the share of the
    five likeliest tokens that is the same. kl: divergence in nats. scores, scores_expected: negative log-likelihoods of
    the tokens that follow. power: the sum of the squares of all expected values, which weighs relative_rms.
    """

    errors: F32
    relative_rms: float
    power: float
    same_top: npt.NDArray[np.bool_] | None = None
    best_shared: F64 | None = None
    kl: F64 | None = None
    scores: F64 | None = None
    scores_expected: F64 | None = None

    def figures(self) -> dict[str, Any]:
        """What `verify --json` says of it."""
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
        """Errors and divergence by position, for plots."""
        step = -(-self.errors.size // MAX_SERIES)
        series: dict[str, list[Any]] = {
            "position": list(range(0, self.errors.size, step)),
            "error": self.errors[::step].astype(float).tolist(),
        }
        if self.kl is not None:
            series["kl"] = self.kl[::step].tolist()
        return series

    def outside(self, *, few: bool = False) -> list[str]:
        """The figures outside TEXT_LIMITS, with their limits; NaN is outside.

        few: there are too few positions to judge how many top tokens are the same.
        """
        figures = self.figures()
        sentences = [
            f"{name} {figures[name]:.3g} (limit {limit:g})"
            for name, limit in TEXT_LIMITS.items()
            if name in figures and not figures[name] <= limit
        ]
        if not few and figures.get("top1", 1.0) < MIN_TOP1:
            sentences.append(f"top1 {figures['top1']:.4f} (limit {MIN_TOP1:g})")
        return sentences


def compare_outputs(pairs: Pairs, windows: Sequence[Tokens], *, states: bool = False) -> OutputComparison:
    """Compare the outputs of each window, on all cores. states: they are hidden states, without top token and
    perplexity."""
    tasks = [
        (ours[first:end], want[first:end], tokens[first + 1 : end + 1], states)
        for (ours, want), tokens in zip(pairs, windows)
        for first in range(0, len(ours), AT_ONCE)
        for end in [min(first + AT_ONCE, len(ours))]
    ]
    with ThreadPoolExecutor(usable_cores()) as pool:
        return joined(list(pool.map(lambda task: _compare_some(*task), tasks)))


def _compare_some(ours: F32, want: F32, targets: Tokens, states: bool) -> OutputComparison:
    """Compare some positions. targets: the tokens that follow them; after the last position of a text there is none."""
    errors = position_errors(ours, want)
    power = float(np.square(want, dtype=np.float64).sum())
    rms = float(np.sqrt(np.square(ours - want, dtype=np.float64).sum() / power)) if power else 0.0
    if states:
        return OutputComparison(errors, rms, power)
    log_ours, log_want = log_softmax(ours), log_softmax(want)
    scored = np.arange(len(targets)), np.asarray(targets, np.int64)
    return OutputComparison(
        errors,
        rms,
        power,
        ours.argmax(-1) == want.argmax(-1),
        _best_shared(ours, want),
        (np.exp(log_want) * (log_want - log_ours)).sum(-1),
        -log_ours[scored],
        -log_want[scored],
    )


def joined(parts: Sequence[OutputComparison]) -> OutputComparison:
    """One comparison of all positions of several."""
    power = sum(part.power for part in parts)
    squares = sum(part.relative_rms**2 * part.power for part in parts)
    fields: dict[str, Any] = {"relative_rms": float(np.sqrt(squares / power)) if power else 0.0, "power": power}
    for name in ("errors", "same_top", "best_shared", "kl", "scores", "scores_expected"):
        values = [getattr(part, name) for part in parts]
        fields[name] = None if values[0] is None else np.concatenate(values)
    return OutputComparison(**fields)


def _best_shared(ours: F32, want: F32) -> F64:
    """The share of the five likeliest tokens that is the same, in any order: (tokens,)."""
    count = min(BEST, ours.shape[-1])
    mine, theirs = (np.argpartition(-table, count - 1, axis=-1)[:, :count] for table in (ours, want))
    common: F64 = (mine[:, :, None] == theirs[:, None, :]).any(2).mean(1)
    return common

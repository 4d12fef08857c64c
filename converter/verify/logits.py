"""Rung 5: the C runtime on FILE against the numpy oracle on SOURCE.

Int8 rounding makes two correct float32 programs agree to 1e-7 at a position or, after one code flipped, to a few 1e-3,
with nothing in between. So the deciding test runs where no flip is possible: on prompts whose activations all lie away
from rounding boundaries; and in models too wide to have such prompts, on one where the oracle takes the runtime's side
at near-ties and nowhere else. Ordinary text is judged by tolerance, and only over enough positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from converter.verify.oracle import Oracle
from converter.verify.rung import Rung
from runtime.reference import QuantizedInput

if TYPE_CHECKING:
    from runtime.model import Model

F32 = npt.NDArray[np.float32]
Tokens = Sequence[int]

SAFE_MARGIN = 1e-6
SAFE_TOLERANCE = 1e-5
TEXT_POSITIONS = 500
WINDOW = 256
LIMITS = {"relative_rms": 5e-3, "worst_position": 2e-2, "kl": 1e-4}
MIN_TOP1 = 0.99
FLIP_TOLERANCE = 1e-4
"""Over hundreds of positions with rounding ties followed: float32 noise of deep models, far below any real mistake."""


def check_logits(model: Model, oracle: Oracle, text: Tokens) -> list[Rung]:
    """The deciding rung `logits`, and `text` over the windows of a text's tokens."""
    return [_deciding(model, oracle), _text(model, oracle, text)]


def position_errors(found: F32, expected: F32) -> F32:
    """Per position: the largest difference, relative to the largest expected logit. (tokens, vocab) -> (tokens,)."""
    errors: F32 = np.abs(found - expected).max(-1) / np.abs(expected).max(-1)
    return errors


# -- the deciding test -------------------------------------------------------------------------------------------------


def find_safe_prompts(oracle: Oracle, wanted: int = 3, length: int = 5) -> list[list[int]]:
    """Short random prompts on which no activation lies within SAFE_MARGIN of a rounding boundary. May be empty.

    The search is bounded by the model's size: wide, deep models have no such prompts and would be searched in vain.
    """
    weights = sum(int(np.prod(oracle.spec.linear_shape(name.split(".")[-2]))) for name in oracle.spec.linear_names())
    rng = np.random.default_rng(158)
    found: list[list[int]] = []
    for _ in range(min(24, int(1e9 // weights))):
        prompts = rng.integers(0, oracle.spec.vocab_size, (16, length)).tolist()
        margins = np.full(16 * length, np.inf, np.float32)

        def note(inputs: QuantizedInput, margins: F32 = margins) -> None:
            np.minimum(margins, inputs.margins, out=margins)

        oracle.logits(prompts, observe=note)
        safe = margins.reshape(16, length).min(1) > SAFE_MARGIN
        found += [prompt for prompt, good in zip(prompts, safe) if good]
        if len(found) >= wanted:
            break
    return found[:wanted]


def _deciding(model: Model, oracle: Oracle) -> Rung:
    rung = Rung("logits")
    prompts = find_safe_prompts(oracle)
    if prompts:
        pairs = list(zip(map(model.logits, prompts), oracle.logits(prompts)))
        rung.figures["method"] = "safe prompts"
    else:
        prompts = [np.random.default_rng(159).integers(0, oracle.spec.vocab_size, 6).tolist()]
        found, flips = _following_ties(model, oracle, prompts[0])
        pairs = [found]
        rung.figures |= {"method": "near-ties followed", "flips": flips.count}
        rung.notes.append(
            "the model is too large for prompts without near-ties; the oracle took the runtime's side at near-ties"
            + (f": {flips}" if flips.count else "")
        )
    worst = max(float(position_errors(found, expected).max()) for found, expected in pairs)
    rung.figures |= {"prompts": prompts, "worst_position": worst, "tolerance": SAFE_TOLERANCE}
    if not worst <= SAFE_TOLERANCE:
        rung.findings.append(
            f"logits deviate by {worst:.3g} of the largest where no rounding can explain it (limit {SAFE_TOLERANCE:g})"
        )
    return rung


# -- ordinary text -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Flips:
    """Int8 codes where runtime and oracle rounded a near-tie differently: their number and the first one."""

    count: int
    first: tuple[int, str, int] | None  # layer, point, position

    def __str__(self) -> str:
        if self.first is None:
            return "no code differs"
        layer, point, position = self.first
        place = f"layer {layer} {point}, position {position}"
        return f"{self.count} int8 codes rounded the other way at a near-tie, first in {place}"


def _following_ties(model: Model, oracle: Oracle, tokens: Tokens) -> tuple[tuple[F32, F32], Flips]:
    """(runtime, oracle) logits where the oracle adopts the runtime's int8 codes at near-ties, and what it adopted."""
    found, codes = model.traced_logits(tokens)
    own: list[QuantizedInput] = []
    free: list[QuantizedInput] = []
    expected = oracle.logits(
        [tokens], observe=own.append, tie_breaker=lambda *at: codes.get(at), observe_free=free.append
    )[0]
    count, first = 0, None
    for followed, unforced in zip(own, free):
        differing = np.argwhere(followed.codes != unforced.codes)
        count += len(differing)
        if len(differing) and first is None:
            first = (followed.layer, followed.point, int(differing[0][0]))
    return (found, expected), Flips(count, first)


def _text(model: Model, oracle: Oracle, tokens: Tokens) -> Rung:
    rung = Rung("text")
    window = min(WINDOW, model.context_length)
    windows = [tokens[first : first + window] for first in range(0, len(tokens), window)]
    pairs = [(model.logits(each), oracle.logits([each])[0]) for each in windows]
    rung.figures |= _figures(pairs, windows)
    if len(tokens) < TEXT_POSITIONS:
        rung.skipped = f"{len(tokens)} positions are too few to judge by tolerance; give a longer --text"
        return rung
    outside = [
        f"{name} {rung.figures[name]:.3g} (limit {limit:g})"
        for name, limit in LIMITS.items()
        if not rung.figures[name] <= limit
    ]
    if rung.figures["top1"] < MIN_TOP1:
        outside.append(f"top1 {rung.figures['top1']:.4f} (limit {MIN_TOP1:g})")
    if not outside:
        return rung
    followed = [_following_ties(model, oracle, each) for each in windows]
    worst = max(float(position_errors(*pair).max()) for pair, _ in followed)
    flips = sum(flips.count for _, flips in followed)
    rung.figures |= {"flips": flips, "worst_position_without_flips": worst}
    if worst <= FLIP_TOLERANCE:
        first = next((flips for _, flips in followed if flips.count), followed[0][1])
        rung.notes.append(f"outside the usual tolerance ({', '.join(outside)}), all of it from rounding: {first}")
    else:
        rung.findings.append(f"on text: {', '.join(outside)}; {worst:.3g} remains when rounding ties are followed")
    return rung


def _figures(pairs: Sequence[tuple[F32, F32]], windows: Sequence[Tokens]) -> dict[str, Any]:
    errors = np.concatenate([position_errors(*pair) for pair in pairs])
    squares = sum(float(np.square(found - want, dtype=np.float64).sum()) for found, want in pairs)
    power = sum(float(np.square(want, dtype=np.float64).sum()) for _, want in pairs)
    top1 = np.concatenate([found.argmax(-1) == want.argmax(-1) for found, want in pairs])
    log_pairs = [(log_softmax(found), log_softmax(want)) for found, want in pairs]
    kl = np.concatenate([(np.exp(want) * (want - found)).sum(-1) for found, want in log_pairs])
    return {
        "positions": int(errors.size),
        "relative_rms": float(np.sqrt(squares / power)),
        "worst_position": float(errors.max()),
        "top1": float(top1.mean()),
        "kl": float(kl.mean()),
        "share_within_1e-5": float((errors <= 1e-5).mean()),
        "perplexity": perplexity([found for found, _ in log_pairs], windows),
        "perplexity_oracle": perplexity([want for _, want in log_pairs], windows),
    }


def log_softmax(logits: F32) -> npt.NDArray[np.float64]:
    """float64 log-probabilities, (tokens, vocab)."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def perplexity(log_probabilities: Sequence[npt.NDArray[np.float64]], windows: Sequence[Tokens]) -> float:
    """exp of the mean negative log-likelihood of each token given those before it in its window."""
    scores = np.concatenate(
        [table[np.arange(len(tokens) - 1), list(tokens[1:])] for table, tokens in zip(log_probabilities, windows)]
    )
    return float(np.exp(-scores.mean())) if scores.size else float("nan")

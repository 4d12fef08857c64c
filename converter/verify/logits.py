"""Rung 5: the C runtime on FILE against the numpy oracle on SOURCE: logits, or an embedding model's hidden states.

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
TOLERANCES = {"q8_0": (1e-4, 3e-4), "q6_k": (1e-4, 3e-4), "q4_k": (1e-4, 3e-4)}
"""By the head's type: worst position where no flip is possible, and over text with rounding ties followed. These heads
take activations as 16-bit integers, which is itself worth some 1e-5."""
EXACT_HEAD = (1e-5, 1e-4)
"""For heads that take float32 activations; the second is float32 noise over hundreds of positions of a deep model."""
TEXT_POSITIONS = 500
WINDOW = 256
MAX_LOGITS = 1 << 26
"""Logits of the text that are held at once, for each side: 256 MiB. It bounds the text for a large vocabulary."""
POSITIONS_AT_ONCE = 64
LIMITS = {"relative_rms": 5e-3, "worst_position": 2e-2, "kl": 1e-4}
MIN_TOP1 = 0.99


def check_logits(model: Model, oracle: Oracle, text: Tokens) -> list[Rung]:
    """The deciding rung `logits`, and `text` over the windows of a text's tokens."""
    return [_deciding(model, oracle), _text(model, oracle, text)]


def position_errors(found: F32, expected: F32) -> F32:
    """Per position: the largest difference, relative to the largest expected logit. (tokens, vocab) -> (tokens,)."""
    errors: F32 = np.abs(found - expected).max(-1) / np.abs(expected).max(-1)
    return errors


def _worst(pairs: Sequence[tuple[F32, F32]]) -> float:
    """The largest position error; NaN if there is one anywhere, which no limit lets pass."""
    return float(np.max([position_errors(*pair).max() for pair in pairs]))


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

        oracle.outputs(prompts, observe=note)
        safe = margins.reshape(16, length).min(1) > SAFE_MARGIN
        found += [prompt for prompt, good in zip(prompts, safe) if good]
        if len(found) >= wanted:
            break
    return found[:wanted]


def _deciding(model: Model, oracle: Oracle) -> Rung:
    rung = Rung("logits")
    prompts = find_safe_prompts(oracle)
    if prompts:
        pairs = list(zip(map(model.outputs, prompts), oracle.outputs(prompts)))
        rung.figures["method"] = "safe prompts"
    else:
        prompts = [np.random.default_rng(159).integers(0, oracle.spec.vocab_size, 6).tolist()]
        pairs, flips = _following_ties(model, oracle, prompts)
        rung.figures |= {"method": "near-ties followed", "flips": flips.count}
        rung.notes.append(
            "the model is too large for prompts without near-ties; the oracle took the runtime's side at near-ties"
            + (f": {flips}" if flips.count else "")
        )
    worst = _worst(pairs)
    limit, _ = _tolerances(model)
    rung.figures |= {"prompts": prompts, "worst_position": worst, "tolerance": limit}
    if worst <= limit:
        return rung
    if rung.figures["method"] == "safe prompts":
        # Float noise of a deep model can reach past SAFE_MARGIN: a flip there must not accuse a good file.
        followed, flips = _following_ties(model, oracle, prompts)
        rung.figures |= {"flips": flips.count, "worst_position_without_flips": _worst(followed)}
        if flips.count and _worst(followed) <= limit:
            rung.notes.append(f"the deviation of {worst:.3g} is all rounding: {flips}")
            return rung
    rung.findings.append(
        f"logits deviate by {worst:.3g} of the largest where no rounding can explain it (limit {limit:g})"
    )
    return rung


# -- ordinary text -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Flips:
    """Int8 codes where runtime and oracle rounded a near-tie differently: their number and the first one."""

    count: int = 0
    first: tuple[int, str, int] | None = None  # layer, point, position among all

    def note(self, free: QuantizedInput, codes: npt.NDArray[np.int8]) -> None:
        """Count where the oracle, left to itself, differs from `codes` of the runtime."""
        differing = np.argwhere(free.codes != codes)
        self.count += len(differing)
        if len(differing) and self.first is None:
            self.first = (free.layer, free.point, int(differing[0][0]))

    def __str__(self) -> str:
        if self.first is None:
            return "no code differs"
        layer, point, position = self.first
        place = f"layer {layer} {point}, position {position}"
        return f"{self.count} int8 codes rounded the other way at a near-tie, first in {place}"


def _following_ties(model: Model, oracle: Oracle, windows: Sequence[Tokens]) -> tuple[list[tuple[F32, F32]], Flips]:
    """(runtime, oracle) logits where the oracle adopts the runtime's int8 codes at near-ties, and what it adopted."""
    traced = [model.traced_outputs(tokens) for tokens in windows]
    codes = {at: np.concatenate([each[at] for _, each in traced]) for at in traced[0][1]}
    flips = Flips()

    def count(free: QuantizedInput) -> None:
        flips.note(free, codes[free.layer, free.point])

    expected = oracle.outputs(windows, tie_breaker=lambda *at: codes.get(at), observe_free=count)
    return [(found, want) for (found, _), want in zip(traced, expected)], flips


def _text(model: Model, oracle: Oracle, text: Tokens) -> Rung:
    rung = Rung("text")
    window = min(WINDOW, model.context_length)
    tokens = text[: max(TEXT_POSITIONS + 12, MAX_LOGITS // oracle.spec.vocab_size)]
    windows = [tokens[first : first + window] for first in range(0, len(tokens), window)]
    pairs = list(zip(map(model.outputs, windows), oracle.outputs(windows)))
    rung.figures |= _figures(pairs, windows, states=model.spec.is_embedding_model)
    if len(tokens) < TEXT_POSITIONS:
        rung.skipped = f"{len(tokens)} positions are too few to judge by tolerance; give a longer --text"
        return rung
    outside = [
        f"{name} {rung.figures[name]:.3g} (limit {limit:g})"
        for name, limit in LIMITS.items()
        if name in rung.figures and not rung.figures[name] <= limit
    ]
    if rung.figures.get("top1", 1.0) < MIN_TOP1:
        outside.append(f"top1 {rung.figures['top1']:.4f} (limit {MIN_TOP1:g})")
    if not outside:
        return rung
    del pairs
    followed, flips = _following_ties(model, oracle, windows)
    worst = _worst(followed)
    rung.figures |= {"flips": flips.count, "worst_position_without_flips": worst}
    if worst <= _tolerances(model)[1]:
        rung.notes.append(f"outside the usual tolerance ({', '.join(outside)}), all of it from rounding: {flips}")
    elif worst <= 10 * (noise := _own_noise(oracle, windows)):
        rung.notes.append(
            f"outside the usual tolerance ({', '.join(outside)}), but the model is ill-conditioned: with its attention "
            f"in float64 the oracle is {noise:.3g} away from itself, so text decides nothing here"
        )
    else:
        rung.findings.append(f"on text: {', '.join(outside)}; {worst:.3g} remains when rounding ties are followed")
    return rung


def _own_noise(oracle: Oracle, windows: Sequence[Tokens]) -> float:
    """How far the oracle moves when only its attention is computed in float64, rounding as before: a model whose
    attention scores are in the thousands cannot be told from a wrong one by float32 logits."""
    codes: dict[tuple[int, str], npt.NDArray[np.int8]] = {}

    def keep(inputs: QuantizedInput) -> None:
        codes[inputs.layer, inputs.point] = inputs.codes

    single = oracle.outputs(windows, observe=keep)
    double = oracle.outputs(windows, tie_breaker=lambda *at: codes.get(at), attention_type=np.float64)
    return _worst(list(zip(double, single)))


def _tolerances(model: Model) -> tuple[float, float]:
    if model.spec.is_embedding_model:
        return EXACT_HEAD
    head = model.file.tensors["token_embd.weight" if model.spec.tied else "output.weight"]
    return TOLERANCES.get(head.layout, EXACT_HEAD)


def _figures(pairs: Sequence[tuple[F32, F32]], windows: Sequence[Tokens], *, states: bool) -> dict[str, Any]:
    """Distances over all positions; states: the pairs hold hidden states, which have no top token and no perplexity."""
    errors = np.concatenate([position_errors(*pair) for pair in pairs])
    squares = power = 0.0
    same: list[npt.NDArray[np.bool_]] = []
    kl: list[npt.NDArray[np.float64]] = []
    for pair in pairs:
        # Float64 copies of a 128k vocabulary are large: a few positions at a time.
        for first in range(0, len(pair[0]), POSITIONS_AT_ONCE):
            found, want = (outputs[first : first + POSITIONS_AT_ONCE] for outputs in pair)
            squares += float(np.square(found - want, dtype=np.float64).sum())
            power += float(np.square(want, dtype=np.float64).sum())
            if states:
                continue
            same.append(found.argmax(-1) == want.argmax(-1))
            log_found, log_want = log_softmax(found), log_softmax(want)
            kl.append((np.exp(log_want) * (log_want - log_found)).sum(-1))
    figures: dict[str, Any] = {
        "positions": int(errors.size),
        "relative_rms": float(np.sqrt(squares / power)) if power else 0.0,
        "worst_position": float(errors.max()),
        "share_within_1e-5": float((errors <= 1e-5).mean()),
    }
    if states:
        return figures
    return {
        **figures,
        "top1": float(np.concatenate(same).mean()),
        "kl": float(np.concatenate(kl).mean()),
        "perplexity": perplexity([found for found, _ in pairs], windows),
        "perplexity_oracle": perplexity([want for _, want in pairs], windows),
    }


def log_softmax(logits: F32) -> npt.NDArray[np.float64]:
    """float64 log-probabilities, (tokens, vocab)."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def perplexity(logits: Sequence[F32], windows: Sequence[Tokens]) -> float:
    """exp of the mean negative log-likelihood of each token given those before it in its window."""
    scores = [
        log_softmax(table[first : first + len(targets)])[np.arange(len(targets)), targets]
        for table, tokens in zip(logits, windows)
        for first in range(0, len(tokens) - 1, POSITIONS_AT_ONCE)
        for targets in [list(tokens[first + 1 : first + 1 + POSITIONS_AT_ONCE])]
    ]
    return float(np.exp(-np.concatenate(scores).mean())) if scores else float("nan")

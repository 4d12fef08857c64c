"""Rung 5: the C runtime on FILE against SOURCE by an oracle: logits, or an embedding model's hidden states.

Int8 rounding makes two correct float32 programs agree to 1e-7 at a position or, after one code flipped, to a few 1e-3,
with nothing in between. So the deciding test runs where no flip is possible: on prompts whose activations all lie away
from rounding boundaries; and in models too wide to have such prompts, on one where the oracle takes the runtime's side
at near-ties and nowhere else. Ordinary text (rung `text`) is judged by tolerance, and only over enough positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.comparison import Comparison, compare, worst_position
from tritpack.converter.verify.layers import Layers
from tritpack.converter.verify.oracle.judges import Judge
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Rung
from tritpack.runtime.reference import QuantizedInput

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

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
LIMITS = {"relative_rms": 5e-3, "worst_position": 2e-2, "kl": 1e-4}
MIN_TOP1 = 0.99


def outputs_of(model: Model) -> str:
    return "hidden states" if model.spec.is_embedding_model else "logits"


# -- the deciding test -------------------------------------------------------------------------------------------------


def find_safe_prompts(oracle: Oracle, wanted: int = 3, length: int = 5) -> list[list[int]]:
    """Short random prompts on which no activation lies within SAFE_MARGIN of a rounding boundary. May be empty.

    The search is bounded by the model's size: wide, deep models have no such prompts and would be searched in vain.
    """
    weights = sum(int(np.prod(oracle.spec.linear_shape(name.split(".")[-2]))) for name in oracle.spec.linear_names())
    rng = np.random.default_rng(158)
    length = min(length, oracle.spec.context_length)
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


def check_logits(model: Model, oracle: Oracle, judge: Judge | None = None) -> Rung:
    """judge: who says what is right, on prompts that decide; the oracle itself by default."""
    judge = judge or oracle
    rung = Rung("logits", compares=f"{outputs_of(model)} of FILE by the C runtime with SOURCE by {judge.name}")
    prompts = find_safe_prompts(oracle)
    layers = Layers(model.spec)
    if prompts:
        pairs = list(zip(map(model.outputs, prompts), judge.outputs(prompts)))
        worst_one = int(np.argmax([worst_position([pair]) for pair in pairs]))
        follow_ties(model, oracle, [prompts[worst_one]], layers)
        rung.figures["method"] = "safe prompts"
    else:
        prompts = [
            np.random.default_rng(159).integers(0, oracle.spec.vocab_size, min(6, model.context_length)).tolist()
        ]
        pairs, flips = follow_ties(model, oracle, prompts, layers)
        rung.figures |= {"method": "near-ties followed", "flips": flips.count}
        rung.notes.append(
            "the model is too large for prompts without near-ties; the oracle took the runtime's side at near-ties"
            + (f": {flips}" if flips.count else "")
        )
        if judge is not oracle:
            rung.compares = f"{outputs_of(model)} of FILE by the C runtime with SOURCE by {oracle.name}"
            rung.notes.append(f"{judge.name} cannot follow near-ties, so it judges the text rung only")
    worst = worst_position(pairs)
    limit, _ = tolerances(model)
    rung.figures |= {"prompts": prompts, "worst_position": worst, "tolerance": limit}
    rung.series = layers.series()
    if worst <= limit:
        return rung
    if rung.figures["method"] == "safe prompts":
        # Float noise of a deep model can reach past SAFE_MARGIN: a flip there must not accuse a good file.
        followed, flips = follow_ties(model, oracle, prompts)
        rung.figures |= {"flips": flips.count, "worst_position_without_flips": worst_position(followed)}
        if flips.count and worst_position(followed) <= limit:
            rung.notes.append(f"the deviation of {worst:.3g} is all rounding: {flips}")
            return rung
    if worst <= 10 * (noise := _own_noise(oracle, prompts)):
        rung.notes.append(
            f"the deviation of {worst:.3g} decides nothing: the model is ill-conditioned, with its attention in "
            f"float64 the oracle is {noise:.3g} away from itself"
        )
        return rung
    rung.findings.append(
        f"{outputs_of(model)} deviate by {worst:.3g} of the largest where no rounding can explain it (limit {limit:g})"
        + _place(layers)
    )
    return rung


def _place(layers: Layers) -> str:
    first = layers.first_deviation()
    if first is not None:
        return f"; the first step that deviates is {first}, by {first.error:.2g}"
    return "; every step through the layers agrees with the numpy reference, so it enters in the head"


def check_recorded(model: Model, oracle: Oracle, expected: F32, tokens: Tokens) -> Rung:
    """The same against outputs (tokens, n) that somebody recorded. What they rounded otherwise cannot be followed, so
    positions behind a near-tie are judged by tolerance."""
    rung = Rung("logits", compares=f"{outputs_of(model)} of FILE by the C runtime with recorded ones")
    margins = np.full(len(tokens), np.inf, np.float32)
    oracle.outputs([tokens], observe=lambda seen: np.minimum(margins, seen.margins, out=margins))
    found = model.outputs(tokens)
    comparison = compare([(found, expected)], [tokens], states=model.spec.is_embedding_model)
    limit, _ = tolerances(model)
    # A flip changes its own position and, through attention, all later ones.
    unsafe = np.logical_or.accumulate(margins <= SAFE_MARGIN)
    safe_worst = float(comparison.errors[~unsafe].max(initial=0)) if not unsafe.all() else None
    rung.figures |= {"method": "recorded", "tokens": len(tokens), **comparison.figures(), "tolerance": limit}
    rung.figures |= {"positions_before_a_near_tie": int((~unsafe).sum()), "worst_before_a_near_tie": safe_worst}
    rung.series = comparison.series()
    if not np.isfinite(comparison.errors).all():
        rung.findings.append(f"{outputs_of(model)} are not finite")
    elif safe_worst is not None and not safe_worst <= limit:
        rung.findings.append(
            f"{outputs_of(model)} deviate by {safe_worst:.3g} of the largest before any int8 code is near a rounding "
            f"boundary (limit {limit:g})"
        )
    elif (outside := _outside(comparison, few=len(tokens) < TEXT_POSITIONS)) and (
        remark := _beyond_rounding(oracle, "the recording", [tokens], [found], comparison.relative_rms)
    ):
        rung.findings.append(f"outside the usual tolerance: {', '.join(outside)}; {remark}")
    elif comparison.errors.max() > limit:
        rung.notes.append(
            f"the largest deviation, {comparison.errors.max():.3g}, lies behind a near-tie, where two correct programs "
            "may round otherwise"
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


def follow_ties(
    model: Model, oracle: Oracle, windows: Sequence[Tokens], layers: Layers | None = None
) -> tuple[list[tuple[F32, F32]], Flips]:
    """(runtime, oracle) outputs where the oracle adopts the runtime's int8 codes at near-ties, and what it adopted.

    layers: is given every step, of the one window that there must be then."""
    traced = [model.traced_outputs(tokens, layers.found if layers else None) for tokens in windows]
    codes = {at: np.concatenate([each[at] for _, each in traced]) for at in traced[0][1]}
    flips = Flips()

    def count(free: QuantizedInput) -> None:
        flips.note(free, codes[free.layer, free.point])

    options = {"trace": layers.expected} if layers else {}
    expected = oracle.outputs(windows, tie_breaker=lambda *at: codes.get(at), observe_free=count, **options)
    return [(found, want) for (found, _), want in zip(traced, expected)], flips


def text_windows(model: Model, tokens: Tokens) -> list[Tokens]:
    """As much of a text as the text rung judges, in windows."""
    window = min(WINDOW, model.context_length)
    tokens = tokens[: max(TEXT_POSITIONS + 12, MAX_LOGITS // model.spec.vocab_size)]
    return [tokens[first : first + window] for first in range(0, len(tokens), window)]


def check_text(
    model: Model, oracle: Oracle, windows: Sequence[Tokens], judge: Judge | None = None
) -> tuple[Rung, Comparison | None]:
    """Ordinary text, judged by tolerance; and the comparison itself, of which perplexity is another figure."""
    judge = judge or oracle
    rung = Rung("text", compares=f"{outputs_of(model)} of FILE by the C runtime with SOURCE by {judge.name}, on text")
    if not windows:
        rung.skipped = "the text has no token"
        return rung, None
    pairs = list(zip(map(model.outputs, windows), judge.outputs(windows)))
    comparison = compare(pairs, windows, states=model.spec.is_embedding_model)
    rung.figures, rung.series = comparison.figures(), comparison.series()
    if comparison.errors.size < TEXT_POSITIONS:
        rung.skipped = f"{comparison.errors.size} positions are too few to judge by tolerance; give a longer --text"
        return rung, comparison
    outside = _outside(comparison)
    if not outside:
        return rung, comparison
    found = [mine for mine, _ in pairs]
    del pairs
    followed, flips = follow_ties(model, oracle, windows)
    worst = worst_position(followed)
    rung.figures |= {"flips": flips.count, "worst_position_without_flips": worst}
    if worst <= tolerances(model)[1]:
        if judge is not oracle and (
            remark := _beyond_rounding(oracle, judge.name, windows, found, comparison.relative_rms)
        ):
            rung.findings.append(f"on text: {', '.join(outside)}; {remark}")
            return rung, comparison
        rung.notes.append(f"outside the usual tolerance ({', '.join(outside)}), all of it from rounding: {flips}")
    elif worst <= 10 * (noise := _own_noise(oracle, windows)):
        rung.notes.append(
            f"outside the usual tolerance ({', '.join(outside)}), but the model is ill-conditioned: with its attention "
            f"in float64 the oracle is {noise:.3g} away from itself, so text decides nothing here"
        )
    else:
        rung.findings.append(f"on text: {', '.join(outside)}; {worst:.3g} remains when rounding ties are followed")
    return rung, comparison


def _outside(comparison: Comparison, *, few: bool = False) -> list[str]:
    """Which of a comparison's figures lie outside the usual tolerance, with their limits. NaN does. few: there are too
    few positions to count tokens that are equal."""
    figures = comparison.figures()
    outside = [
        f"{name} {figures[name]:.3g} (limit {limit:g})"
        for name, limit in LIMITS.items()
        if name in figures and not figures[name] <= limit
    ]
    if not few and figures.get("top1", 1.0) < MIN_TOP1:
        outside.append(f"top1 {figures['top1']:.4f} (limit {MIN_TOP1:g})")
    return outside


def _beyond_rounding(
    oracle: Oracle, name: str, windows: Sequence[Tokens], found: Sequence[F32], apart: float
) -> str | None:
    """The judge of that name is `apart` from the runtime's outputs. Its roundings cannot be followed; but where they
    are all, runtime and reference left to themselves are as far apart."""
    reference = oracle.outputs(windows)
    rounding = compare(list(zip(found, reference)), windows, states=True).relative_rms
    if apart <= 3 * rounding:
        return None
    return f"{name} is {apart:.3g} away (relative rms), where rounding explains {rounding:.3g}"


def _own_noise(oracle: Oracle, windows: Sequence[Tokens]) -> float:
    """How far the oracle moves when only its attention is computed in float64, rounding as before: a model whose
    attention scores are in the thousands cannot be told from a wrong one by float32 logits."""
    codes: dict[tuple[int, str], npt.NDArray[np.int8]] = {}

    def keep(inputs: QuantizedInput) -> None:
        codes[inputs.layer, inputs.point] = inputs.codes

    single = oracle.outputs(windows, observe=keep)
    double = oracle.outputs(windows, tie_breaker=lambda *at: codes.get(at), attention_type=np.float64)
    return worst_position(list(zip(double, single)))


def tolerances(model: Model) -> tuple[float, float]:
    """Worst position where no flip is possible, and over text with near-ties followed."""
    if model.spec.is_embedding_model:
        return EXACT_HEAD
    head = model.file.tensors["token_embd.weight" if model.spec.tied else "output.weight"]
    return TOLERANCES.get(head.layout, EXACT_HEAD)

"""The C runtime on FILE against SOURCE by an oracle: logits, or the hidden states of an embedding model.

Int8 rounding makes two correct float32 programs agree to 1e-7 at a position or, after one code flipped, to a few 1e-3,
with nothing in between. So the deciding test runs where no flip is possible: on prompts whose activations all lie away
from rounding boundaries. In models too wide to have such prompts it runs on one where the oracle adopts the runtime's
code at near-ties and nowhere else. Ordinary text is judged by tolerance, in the rung `text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tritpack.converter.verify.compare.layers import Layers
from tritpack.converter.verify.compare.near_ties import (
    follow_ties,
    outputs_name,
    own_noise,
    rounding_excess,
    searches,
)
from tritpack.converter.verify.compare.outputs import (
    OutputComparison,
    Pairs,
    compare_outputs,
    worst_position,
)
from tritpack.converter.verify.compare.tolerances import MIN_POSITIONS, tolerances
from tritpack.converter.verify.context import Context, errors_of_options
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.oracle.judges import Judge, read_recorded
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.arrays import F32
from tritpack.runtime.reference import QuantizedInput

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

name = "logits"
blames: Blame = "runtime"
needs: frozenset[Need] = frozenset({"model"})
options: tuple[str, ...] = ("tokens",)

Tokens = Sequence[int]

SAFE_MARGIN = 1e-6


def run(context: Context) -> Rung:
    """Compare outputs with a judge's or, with --tokens, with recorded ones."""
    tokens = context.options.tokens
    if tokens is None:
        return check_logits(context.model, context.oracle, context.judge)
    with errors_of_options():
        expected = read_recorded(Path(context.options.oracle), tokens, context.model)
    return check_recorded(context.model, context.oracle, expected, tokens)


def random_prompts(oracle: Oracle, rng: np.random.Generator, count: int, length: int) -> list[list[int]]:
    """Prompts of random tokens. Tokens whose embedding is all zeros, such as padding, are replaced where others were
    drawn: a prompt of them gives logits of zeros, which prove nothing."""
    tokens = rng.integers(0, oracle.spec.vocab_size, (count, length))
    zero = ~oracle.embedding(tokens.reshape(-1)).any(-1).reshape(tokens.shape)
    if zero.any() and not zero.all():
        tokens[zero] = rng.choice(tokens[~zero], int(zero.sum()))
    prompts: list[list[int]] = tokens.tolist()
    return prompts


def find_safe_prompts(oracle: Oracle, wanted: int = 3, length: int = 5) -> list[list[int]]:
    """Short random prompts on which no activation lies within SAFE_MARGIN of a rounding boundary. May be empty."""
    rng = np.random.default_rng(158)
    length = min(length, oracle.spec.context_length)
    if not oracle.spec.int8_activations:  # nothing is rounded
        return random_prompts(oracle, rng, wanted, length)
    safe_prompts: list[list[int]] = []
    for _ in range(searches(oracle.spec)):
        prompts = random_prompts(oracle, rng, 16, length)
        margins = np.full(16 * length, np.inf, np.float32)

        def note(inputs: QuantizedInput, margins: F32 = margins) -> None:
            np.minimum(margins, inputs.margins, out=margins)

        oracle.outputs(prompts, observe=note)
        safe = margins.reshape(16, length).min(1) > SAFE_MARGIN
        safe_prompts += [prompt for prompt, good in zip(prompts, safe) if good]
        if len(safe_prompts) >= wanted:
            break
    return safe_prompts[:wanted]


def check_logits(model: Model, oracle: Oracle, judge: Judge | None = None) -> Rung:
    """Compare on prompts that decide. judge: gives the outputs that count as right; the oracle by default."""
    judge = judge or oracle
    rung = Rung(name, blames, compares=f"{outputs_name(model)} of FILE by the C runtime with SOURCE by {judge.name}")
    prompts = find_safe_prompts(oracle)
    layers = Layers(model.spec)
    if prompts:
        pairs: Pairs = list(zip(map(model.outputs, prompts), judge.outputs(prompts)))
        worst_prompt = int(np.argmax([worst_position([pair]) for pair in pairs]))
        follow_ties(model, oracle, [prompts[worst_prompt]], layers)
        rung.figures["method"] = "safe prompts"
    else:
        prompts = random_prompts(oracle, np.random.default_rng(159), 1, min(6, model.context_length))
        pairs, flips = follow_ties(model, oracle, prompts, layers)
        rung.figures |= {"method": "near-ties followed", "flips": flips.count}
        rung.notes.append(
            "the model is too large for prompts without near-ties; the oracle adopted the runtime's codes at near-ties"
            + (f": {flips}" if flips.count else "")
        )
        if judge is not oracle:
            rung.compares = f"{outputs_name(model)} of FILE by the C runtime with SOURCE by {oracle.name}"
            rung.notes.append(f"{judge.name} cannot follow near-ties, so it judges the text rung only")
    rung.figures |= {"prompts": prompts, "worst_position": worst_position(pairs), "tolerance": tolerances(model)[0]}
    rung.series = layers.series()
    _judge(rung, model, oracle, layers)
    return rung


def _judge(rung: Rung, model: Model, oracle: Oracle, layers: Layers) -> None:
    """Turn a deviation beyond the limit into a note where rounding or noise explains it, else into a finding."""
    prompts, worst, limit = (rung.figures[key] for key in ("prompts", "worst_position", "tolerance"))
    if worst <= limit:
        return
    if rung.figures["method"] == "safe prompts":
        # Float noise of a deep model can exceed SAFE_MARGIN: a flip there must not accuse a good file.
        followed, flips = follow_ties(model, oracle, prompts)
        rung.figures |= {"flips": flips.count, "worst_position_without_flips": worst_position(followed)}
        if flips.count and worst_position(followed) <= limit:
            rung.notes.append(f"the deviation of {worst:.3g} is all rounding: {flips}")
            return
    if worst <= 10 * (noise := own_noise(oracle, prompts)):
        rung.notes.append(
            f"the deviation of {worst:.3g} is inconclusive: the model is ill-conditioned, since the oracle's own "
            f"outputs change by {noise:.3g} when only attention is computed in float64"
        )
        return
    first = layers.first_deviation()
    if first is None:
        place = "every step through the layers agrees with the numpy reference, so it enters in the head"
    else:
        place = f"the first step that deviates is {first}, by {first.error:.2g}"
    rung.add(
        Kind.OUTPUTS_DIFFER,
        f"{outputs_name(model)} deviate by {worst:.3g} of the largest where no rounding can explain it "
        f"(limit {limit:g}); {place}",
        worst_position=worst,
        limit=limit,
        first_step=None if first is None else {"layer": first.layer, "point": first.point, "error": first.error},
    )


def check_recorded(model: Model, oracle: Oracle, expected: F32, tokens: Tokens) -> Rung:
    """Compare with recorded outputs, float32 (tokens, n). Their roundings cannot be followed, so positions after a
    near-tie are judged by tolerance."""
    rung = Rung(name, blames, compares=f"{outputs_name(model)} of FILE by the C runtime with recorded ones")
    margins = np.full(len(tokens), np.inf, np.float32)
    oracle.outputs([tokens], observe=lambda seen: np.minimum(margins, seen.margins, out=margins))
    outputs = model.outputs(tokens)
    comparison = compare_outputs([(outputs, expected)], [tokens], states=model.spec.is_embedding_model)
    limit, _ = tolerances(model)
    # A flip changes its own position and, through attention, all later ones.
    unsafe = np.logical_or.accumulate(margins <= SAFE_MARGIN)
    safe_worst = float(comparison.errors[~unsafe].max(initial=0)) if not unsafe.all() else None
    rung.figures |= {"method": "recorded", "tokens": len(tokens), **comparison.figures(), "tolerance": limit}
    rung.figures |= {"positions_before_a_near_tie": int((~unsafe).sum()), "worst_before_a_near_tie": safe_worst}
    rung.series = comparison.series()
    if not np.isfinite(outputs).all():
        rung.add(Kind.NOT_FINITE, f"{outputs_name(model)} are not finite")
    elif safe_worst is not None and not safe_worst <= limit:
        rung.add(
            Kind.OUTPUTS_DIFFER,
            f"{outputs_name(model)} deviate by {safe_worst:.3g} of the largest before any int8 code is near a rounding "
            f"boundary (limit {limit:g})",
            worst_position=safe_worst,
            limit=limit,
        )
    elif excess := _excess(comparison, oracle, tokens, outputs):
        rung.add(Kind.OUTPUTS_DIFFER, excess, relative_rms=comparison.relative_rms)
    elif comparison.errors.max() > limit:
        rung.notes.append(
            f"the largest deviation, {comparison.errors.max():.3g}, comes after a near-tie, where two correct programs "
            "may round differently"
        )
    return rung


def _excess(comparison: OutputComparison, oracle: Oracle, tokens: Tokens, outputs: F32) -> str | None:
    """What lies outside the tolerance for text and is more than rounding explains, in words."""
    outside = comparison.outside(few=len(tokens) < MIN_POSITIONS)
    if not outside:
        return None
    excess = rounding_excess(oracle, "the recording", [tokens], [outputs], comparison.relative_rms)
    return excess and f"outside the usual tolerance: {', '.join(outside)}; {excess}"

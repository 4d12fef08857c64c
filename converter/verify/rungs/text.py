"""Ordinary text: outputs of the C runtime on FILE with SOURCE's, judged by tolerance because int8 codes may flip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tritpack.converter.verify.compare.near_ties import (
    follow_ties,
    outputs_name,
    own_noise,
    rounding_excess,
)
from tritpack.converter.verify.compare.outputs import (
    OutputComparison,
    compare_outputs,
    worst_position,
)
from tritpack.converter.verify.compare.tolerances import MIN_POSITIONS, tolerances
from tritpack.converter.verify.context import Context
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.oracle.judges import Judge
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Blame, Need, Rung

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

name = "text"
blames: Blame = "runtime"
needs: frozenset[Need] = frozenset({"model"})
options: tuple[str, ...] = ()


def run(context: Context) -> Rung:
    """Compare on the text; the comparison stays in the context, where perplexity takes its scores from."""
    if not context.has_tokenizer:
        return Rung(name, blames, skipped="neither file nor source has a tokenizer to read a text with")
    rung, context.comparison = check_text(context.model, context.oracle, context.windows, context.judge)
    return rung


def check_text(
    model: Model, oracle: Oracle, windows: Sequence[Sequence[int]], judge: Judge | None = None
) -> tuple[Rung, OutputComparison | None]:
    """Judge by tolerance and, where that is exceeded, by what rounding explains. Also gives the comparison itself."""
    judge = judge or oracle
    compares = f"{outputs_name(model)} of FILE by the C runtime with SOURCE by {judge.name}, on text"
    rung = Rung(name, blames, compares=compares)
    if not windows:
        rung.skipped = "the text has no token"
        return rung, None
    pairs = list(zip(map(model.outputs, windows), judge.outputs(windows)))
    comparison = compare_outputs(pairs, windows, states=model.spec.is_embedding_model)
    rung.figures, rung.series = comparison.figures(), comparison.series()
    if comparison.errors.size < MIN_POSITIONS:
        rung.skipped = f"{comparison.errors.size} positions are too few to judge by tolerance; give a longer --text"
        return rung, comparison
    outside = ", ".join(comparison.outside())
    if not outside:
        return rung, comparison
    outputs = [ours for ours, _ in pairs]
    del pairs
    followed, flips = follow_ties(model, oracle, windows)
    worst = worst_position(followed)
    rung.figures |= {"flips": flips.count, "worst_position_without_flips": worst}
    if worst <= tolerances(model)[1]:
        excess = None
        if judge is not oracle:
            excess = rounding_excess(oracle, judge.name, windows, outputs, comparison.relative_rms)
        if excess:
            rung.add(Kind.OUTPUTS_DIFFER, f"on text: {outside}; {excess}", relative_rms=comparison.relative_rms)
        else:
            rung.notes.append(f"outside the usual tolerance ({outside}), all of it from rounding: {flips}")
    elif worst <= 10 * (noise := own_noise(oracle, windows)):
        rung.notes.append(
            f"outside the usual tolerance ({outside}), which is inconclusive: the model is ill-conditioned, since the "
            f"oracle's own outputs change by {noise:.3g} when only attention is computed in float64"
        )
    else:
        sentence = f"on text: {outside}; {worst:.3g} remains when near-ties are followed"
        rung.add(Kind.OUTPUTS_DIFFER, sentence, worst_position_without_flips=worst)
    return rung, comparison

"""Ordinary text: outputs of the C runtime on FILE with SOURCE's, judged by tolerance because int8 codes may flip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tritpack.converter.verify.compare.near_ties import (
    Flips,
    follow_ties,
    outputs_name,
    own_noise,
    rounding_excess,
    searches,
)
from tritpack.converter.verify.compare.outputs import (
    OutputComparison,
    compare_outputs,
    joined,
)
from tritpack.converter.verify.compare.tolerances import MIN_POSITIONS, tolerances
from tritpack.converter.verify.context import Context
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.oracle.judges import Judge
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.model_spec import ModelSpec

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

name = "text"
blames: Blame = "runtime"
needs: frozenset[Need] = frozenset({"model"})
options: tuple[str, ...] = ()

Window = Sequence[int]

MEMORY = 5 << 28
"""Bytes that the outputs of both sides and the codes of a batch of windows take."""


def run(context: Context) -> Rung:
    """Compare on the text; the comparison stays in the context, where perplexity takes its scores from."""
    if not context.has_tokenizer:
        return Rung(name, blames, skipped="neither file nor source has a tokenizer to read a text with")
    rung, context.comparison = check_text(context.model, context.oracle, context.windows, context.judge)
    compared, tokens = sum(map(len, context.windows)), len(context.text_tokens)
    if compared < tokens and rung.verdict != "skipped":
        rung.notes.append(f"{compared} of the text's {tokens} tokens were compared; {_how_to_compare_more(context)}")
    return rung


def _how_to_compare_more(context: Context) -> str:
    if context.options.everything:
        return "the model has more than 1e9 weights; a text given with --text is compared whole"
    most = context.compared_positions(full=True)
    return f"--level full compares {'all' if most is None else min(most, len(context.text_tokens))}"


def check_text(
    model: Model, oracle: Oracle, windows: Sequence[Sequence[int]], judge: Judge | None = None
) -> tuple[Rung, OutputComparison | None]:
    """Judge by tolerance and, where that is exceeded, by what rounding explains. Also gives the comparison itself.

    In models too large for prompts without near-ties ordinary text mostly exceeds the tolerance. There near-ties are
    followed at once, and rounding apart is looked at only if something remains.
    """
    judge = judge or oracle
    compares = f"{outputs_name(model)} of FILE by the C runtime with SOURCE by {judge.name}, on text"
    rung = Rung(name, blames, compares=compares)
    if not windows:
        rung.skipped = "the text has no token"
        return rung, None
    batches = list(_batches(windows, model.spec))
    followed = _follow_all(model, oracle, batches) if judge is oracle and not searches(model.spec) else None
    if followed is not None and followed[0].errors.max() <= tolerances(model)[1]:
        comparison, flips = followed
        rung.figures = {"method": "near-ties followed", **comparison.figures(), "flips": flips.count}
        rung.series = comparison.series()
        rung.notes.append(f"the oracle adopted the runtime's codes at near-ties: {flips}")
        if comparison.errors.size < MIN_POSITIONS:
            rung.skipped = _too_few(comparison)
        return rung, comparison
    parts = [_compare(model, judge, batch) for batch in batches]
    comparison = joined(parts)
    rung.figures, rung.series = comparison.figures(), comparison.series()
    if comparison.errors.size < MIN_POSITIONS:
        rung.skipped = _too_few(comparison)
        return rung, comparison
    outside = ", ".join(comparison.outside())
    if not outside:
        return rung, comparison
    near, flips = followed or _follow_all(model, oracle, batches)
    worst = float(near.errors.max())
    rung.figures |= {"flips": flips.count, "worst_position_without_flips": worst}
    if worst <= tolerances(model)[1]:
        excess = None if judge is oracle else _excess(model, oracle, judge, batches, parts)
        if excess:
            rung.add(Kind.OUTPUTS_DIFFER, f"on text: {outside}; {excess}", relative_rms=comparison.relative_rms)
        else:
            rung.notes.append(f"outside the usual tolerance ({outside}), all of it from rounding: {flips}")
    elif worst <= 10 * (noise := max(own_noise(oracle, batch) for batch in batches)):
        rung.notes.append(
            f"outside the usual tolerance ({outside}), which is inconclusive: the model is ill-conditioned, since the "
            f"oracle's own outputs change by {noise:.3g} when only attention is computed in float64"
        )
    else:
        sentence = f"on text: {outside}; {worst:.3g} remains when near-ties are followed"
        rung.add(Kind.OUTPUTS_DIFFER, sentence, worst_position_without_flips=worst)
    return rung, comparison


def _too_few(comparison: OutputComparison) -> str:
    return f"{comparison.errors.size} positions are too few to judge by tolerance; give a longer --text"


def positions_at_once(spec: ModelSpec) -> int:
    """How many positions are worked on at once, within MEMORY."""
    outputs = spec.hidden_size if spec.is_embedding_model else spec.vocab_size
    codes = spec.layers * (3 * spec.hidden_size + spec.intermediate_size)
    return MEMORY // (2 * 4 * outputs + codes)


def _batches(windows: Sequence[Window], spec: ModelSpec) -> Iterator[list[Window]]:
    """Windows that are worked on at once: as many as MEMORY allows, at least one."""
    room = positions_at_once(spec)
    batch: list[Window] = []
    for window in windows:
        if batch and sum(map(len, batch)) + len(window) > room:
            yield batch
            batch = []
        batch.append(window)
    yield batch


def _compare(model: Model, judge: Judge, batch: Sequence[Window]) -> OutputComparison:
    pairs = list(zip(map(model.outputs, batch), judge.outputs(batch)))
    return compare_outputs(pairs, batch, states=model.spec.is_embedding_model)


def _follow_all(model: Model, oracle: Oracle, batches: Sequence[Sequence[Window]]) -> tuple[OutputComparison, Flips]:
    """Compare where near-ties are followed; also what the oracle adopted."""
    parts, flips = [], Flips()
    for batch in batches:
        pairs, adopted = follow_ties(model, oracle, batch)
        parts.append(compare_outputs(pairs, batch, states=model.spec.is_embedding_model))
        flips.add(adopted)
    return joined(parts), flips


def _excess(
    model: Model,
    oracle: Oracle,
    judge: Judge,
    batches: Sequence[Sequence[Window]],
    parts: Sequence[OutputComparison],
) -> str | None:
    """By how much an outside judge is further away than rounding explains, in words; None if it is not."""
    for batch, part in zip(batches, parts):
        outputs = [model.outputs(window) for window in batch]
        if excess := rounding_excess(oracle, judge.name, batch, outputs, part.relative_rms):
            return excess
    return None

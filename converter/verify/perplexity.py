"""Rung 7: perplexity of the text by FILE and by the oracle, with error bars; and how far FILE is from a second file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converter.verify.comparison import Comparison
from converter.verify.rung import Rung
from runtime.model import Model
from runtime.perplexity import Estimate, score

TOLERANCE = 1e-3
"""Of two float32 programs (spec: perplexity within 0.1 %)."""
SIGMAS = 4


def check_perplexity(comparison: Comparison, judge_name: str, text: Rung) -> Rung:
    """Of the positions that the text rung compared; its verdict on a deviation holds here too."""
    rung = Rung("perplexity", compares=f"perplexity of the text by FILE with that by {judge_name} on SOURCE")
    if comparison.scores is None or comparison.scores_expected is None:
        rung.skipped = "an embedding model says no next token"
        return rung
    mine = Estimate.mean(comparison.scores).exponential()
    theirs = Estimate.mean(comparison.scores_expected).exponential()
    # Of paired differences: far smaller error bars than those of the two perplexities.
    ratio = Estimate.mean(comparison.scores - comparison.scores_expected)
    rung.figures = {
        "perplexity": mine.value,
        "perplexity_error": mine.error,
        "perplexity_oracle": theirs.value,
        "perplexity_oracle_error": theirs.error,
        "ln_ratio": ratio.value,
        "ln_ratio_error": ratio.error,
        "scored": mine.samples,
    }
    if text.verdict == "skipped":
        rung.skipped = text.skipped
    elif not abs(ratio.value) <= max(TOLERANCE, SIGMAS * ratio.error):
        sentence = f"perplexity is {mine.value:.5g}, the oracle's {theirs.value:.5g}: ln ratio {ratio.value:.2e}"
        if text.verdict == "pass" and text.notes:
            rung.notes.append(f"{sentence}; the text rung says what it comes from")
        else:
            rung.findings.append(f"{sentence}, of which {max(TOLERANCE, SIGMAS * ratio.error):.1e} may be chance")
    return rung


def compare_with(rung: Rung, model: Model, other: Path, windows: Sequence[Sequence[int]]) -> None:
    """Adds how far the model is from the one in another file, which need not have the same layout or rounding."""
    with Model(other) as base:
        if base.spec.vocab_size != model.spec.vocab_size:
            rung.findings.append(
                f"{other} has a vocabulary of {base.spec.vocab_size}, this file one of {model.spec.vocab_size}"
            )
            return
        found = score(model, [window for window in windows if len(window) > 1], base=base)
    rung.figures["against"] = {"file": str(other), **found}
    rung.notes.append(
        f"against {other.name}: KL {found['kl']['value']:.3g} ± {found['kl']['error']:.1g}, same top token "
        f"{found['same_top_p']['value']:.4f}, ln ratio of perplexities {found['ln_ratio']['value']:.2e} ± "
        f"{found['ln_ratio']['error']:.0e}"
    )

"""Rung 7: perplexity of the text by FILE and by the oracle, with error bars; and how far FILE is from a second file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tritpack.converter.verify.comparison import Comparison
from tritpack.converter.verify.rung import Rung
from tritpack.formats.errors import UsageError
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import Estimate, score

TOLERANCE = 1e-3
"""Of two float32 programs (spec: perplexity within 0.1 %)."""
SIGMAS = 4


def check_perplexity(comparison: Comparison, judge_name: str, text: Rung) -> Rung:
    """Of the positions that the text rung compared; its verdict on a deviation holds here too."""
    rung = Rung("perplexity", compares=f"perplexity of the text by FILE with that by {judge_name} on SOURCE")
    if comparison.scores is None or comparison.scores_expected is None:
        rung.skipped = "an embedding model says no next token"
        return rung
    if not comparison.scores.size:
        rung.skipped = "no token has one before it"
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
        sentence = (
            f"perplexity is {mine.value:.5g}, the oracle's {theirs.value:.5g}: ln of their ratio {ratio.value:.2e}"
        )
        if text.verdict == "pass" and text.notes:
            rung.notes.append(f"{sentence}; the text rung says what it comes from")
        else:
            rung.findings.append(f"{sentence}, beyond {max(TOLERANCE, SIGMAS * ratio.error):.1e}")
    return rung


def open_base(path: Path, vocab_size: int) -> Model:
    """The model in a second file. Raises UsageError if its predictions cannot be compared."""
    base = Model(path)
    try:
        if base.spec.is_embedding_model:
            raise UsageError(f"--against {path}: is an embedding model, which says no next token")
        if base.spec.vocab_size != vocab_size:
            raise UsageError(
                f"--against {path}: has a vocabulary of {base.spec.vocab_size}, this file one of {vocab_size}: their "
                "predictions cannot be compared"
            )
    except UsageError:
        base.close()
        raise
    return base


def compare_with(rung: Rung, model: Model, base: Model, windows: Sequence[Sequence[int]]) -> None:
    """Adds how far the model is from another, which need not have the same layout or rounding."""
    cut = [window[: base.context_length] for window in windows]
    found = score(model, [window for window in cut if len(window) > 1], base=base)
    rung.figures["against"] = {"file": str(base.file.path), **found}
    rung.notes.append(
        f"against {base.file.path.name}: KL {found['kl']['value']:.3g} ± {found['kl']['error']:.1g}, same top token "
        f"{found['same_top_p']['value']:.4f}, ln ratio of perplexities {found['ln_ratio']['value']:.2e} ± "
        f"{found['ln_ratio']['error']:.0e}"
    )

"""Perplexity of the text by FILE and by the oracle, with error bars; and how far FILE is from a second file."""

from __future__ import annotations

from collections.abc import Sequence

from tritpack.converter.verify.compare.outputs import OutputComparison
from tritpack.converter.verify.context import Context, errors_of_options
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import Estimate, score

name = "perplexity"
blames: Blame = "runtime"
needs: frozenset[Need] = frozenset({"model"})
options: tuple[str, ...] = ("against",)

TOLERANCE = 1e-3
"""Between two float32 programs: perplexity within 0.1 %."""
SIGMAS = 4


def run(context: Context) -> Rung:
    """Score the positions that the text rung compared and, with --against, those of a second file."""
    text = context.report["text"]
    if context.comparison is None:
        return Rung(name, blames, skipped=text.skipped)
    rung = check_perplexity(context.comparison, context.judge_name, text)
    if context.base is not None and rung.verdict == "skipped":
        rung.notes.append(f"{context.base.file.path.name} was not compared with")
    elif context.base is not None:
        with errors_of_options():
            compare_with_base(rung, context.model, context.base, context.windows)
    return rung


def check_perplexity(comparison: OutputComparison, judge_name: str, text: Rung) -> Rung:
    """Compare the two perplexities. text: the text rung, which may have explained the deviation already."""
    rung = Rung(name, blames, compares=f"perplexity of the text by FILE with that by {judge_name} on SOURCE")
    if comparison.scores is None or comparison.scores_expected is None:
        rung.skipped = "an embedding model predicts no next token"
        return rung
    if not comparison.scores.size:
        rung.skipped = "no token of the text has one before it"
        return rung
    ours = Estimate.mean(comparison.scores).exponential()
    theirs = Estimate.mean(comparison.scores_expected).exponential()
    # Paired differences have far smaller error bars than the two perplexities.
    ratio = Estimate.mean(comparison.scores - comparison.scores_expected)
    rung.figures = {
        "perplexity": ours.value,
        "perplexity_error": ours.error,
        "perplexity_oracle": theirs.value,
        "perplexity_oracle_error": theirs.error,
        "ln_ratio": ratio.value,
        "ln_ratio_error": ratio.error,
        "scored": ours.samples,
    }
    if "method" in text.figures:
        rung.figures["method"] = text.figures["method"]
        rung.notes.append(
            "the oracle's perplexity is of outputs in which it followed FILE at near-ties; see the text rung"
        )
    limit = max(TOLERANCE, SIGMAS * ratio.error)
    if text.verdict == "skipped":
        rung.skipped = text.skipped
    elif not abs(ratio.value) <= limit:
        sentence = (
            f"perplexity is {ours.value:.5g}, the oracle's {theirs.value:.5g}: ln of their ratio {ratio.value:.2e}"
        )
        if text.verdict == "pass" and text.notes:
            rung.notes.append(f"{sentence}; the text rung says what it comes from")
        else:
            sentence = f"{sentence}, beyond {limit:.1e}"
            rung.add(Kind.PERPLEXITY_DIFFERS, sentence, ln_ratio=ratio.value, limit=limit)
    return rung


def compare_with_base(rung: Rung, model: Model, base: Model, windows: Sequence[Sequence[int]]) -> None:
    """Add how far the model is from another one, which may have another layout or rounding."""
    cut = [window[: base.context_length] for window in windows]
    figures = score(model, [window for window in cut if len(window) > 1], base=base)
    rung.figures["against"] = {"file": str(base.file.path), **figures}
    kl, ratio = figures["kl"], figures["ln_ratio"]
    rung.notes.append(
        f"against {base.file.path.name}: KL {kl['value']:.3g} ± {kl['error']:.1g}, same top token "
        f"{figures['same_top_p']['value']:.4f}, ln ratio of perplexities {ratio['value']:.2e} ± {ratio['error']:.0e}"
    )

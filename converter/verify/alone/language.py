"""Whether the model predicts text better than a guess does: whether it produces language.

A model that uses what stands before a token beats every fixed guess. Three figures decide, in nats per token: that of
the model on the text; ln V, a guess that takes all V tokens for equally likely; and the entropy of the text's own token
frequencies, which is the best that any guess can do that does not look at what stands before, and one that no model can
know beforehand. verify/README.md has the criterion and what it was measured on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from importlib import resources

import numpy as np

from tritpack.converter.verify.alone.context import AloneContext
from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.arrays import F64
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import Estimate, negative_log_likelihoods, windows_of

name = "language"
blames: Blame = "file"
needs: frozenset[Need] = frozenset({"model"})

ENGLISH, OTHERS = (128, 512), (48, 160)
"""Tokens that are scored of the English text, and of each other one: the first so many, and if they do not decide, the
most; --level full scores all."""
WINDOW = 256
MIN_POSITIONS = 32
"""Fewer say nothing."""
TEXTS = "language_texts.yaml"
SIGMAS = 3.0
"""Standard errors by which two figures have to differ: those of the right order of a text and a random one, or of a few
tokens and a guess."""
SEED = 158


@dataclasses.dataclass(frozen=True)
class Score:
    """One text. All in nats per token: own, the model's; frequencies, the entropy of the text's token frequencies;
    gain, how much less likely the model finds the same tokens in random order, where that was measured."""

    language: str
    own: Estimate
    frequencies: float
    gain: Estimate | None = None


def run(context: AloneContext) -> Rung:
    """Score the English text; where that shows no language, the others too, and each in random order."""
    rung = Rung(
        name, blames, compares="the model's predictions of a text with guesses that do not look at the text before"
    )
    model = context.model
    if model.spec.is_embedding_model:
        rung.skipped = "an embedding model predicts no next token"
    elif "tokenizer.ggml.tokens" not in context.file.metadata:
        rung.skipped = "the file has no tokenizer, so no text can be scored"
    elif model.context_length < MIN_POSITIONS:
        rung.skipped = f"a context of {model.context_length} tokens is too short for a text"
    else:
        judge(rung, list(_scores(context)), model.spec.vocab_size)
    rung.figures["kernels"] = model.kernels()
    return rung


def _scores(context: AloneContext) -> Iterator[Score]:
    """Yield the score of each text until one shows language; else all, with the gain where that decides."""
    model = context.model
    tried: list[tuple[Score, list[list[int]]]] = []
    uniform = math.log(model.spec.vocab_size)
    for number, (language, text) in enumerate(_texts_to_score(context.words).items()):
        steps = (None,) if context.everything else OTHERS if number else ENGLISH
        if (scored := _scored(model, language, text, steps)) is None:
            continue
        if shows_language(scored[0]):
            yield scored[0]
            return
        tried.append(scored)
    for score, windows in tried:
        if not score.own.value < uniform:  # chance, whatever the order does
            yield score
            continue
        order = np.random.default_rng(SEED)
        shuffled = _nats(model, [[*window[:1], *order.permutation(window[1:]).tolist()] for window in windows])
        yield dataclasses.replace(score, gain=_difference(Estimate.mean(shuffled), score.own))


def _scored(
    model: Model, language: str, text: str, steps: Sequence[int | None]
) -> tuple[Score, list[list[int]]] | None:
    """The score of a text and the windows that it is of, of as many tokens as the first of the steps that decides, or
    the last; None if the text is too short. A step of None takes all tokens."""
    scored = None
    for most in steps:
        windows = _windows(model, text, most)
        if scored is not None and windows == scored[1]:
            break
        own = _nats(model, windows)
        if own.size < MIN_POSITIONS:
            break
        score = Score(language, Estimate.mean(own), _frequencies(windows))
        scored = score, windows
        if shows_language(score) or is_surely_chance(score, math.log(model.spec.vocab_size)):
            break
    return scored


def texts() -> dict[str, str]:
    """Short texts, by the name of their language."""
    import yaml

    documents: dict[str, str] = yaml.safe_load((resources.files(__package__) / TEXTS).read_text("utf-8"))
    return documents


def _texts_to_score(words: str | None) -> dict[str, str]:
    return {"English": read_text(None), **texts()} if words is None else {"the given text": words}


def tokens_to_score(words: str | None, *, everything: bool) -> tuple[int, int]:
    """About how many tokens are scored of a model that shows language on the first text; and how many more of one that
    surely shows none."""
    first, *others = (
        (text, OTHERS if number else ENGLISH) for number, text in enumerate(_texts_to_score(words).values())
    )

    def count(text: str, steps: tuple[int, int]) -> int:
        return len(text.encode()) // 4 if everything else steps[0]

    return count(*first), sum(count(*other) for other in others)


def _windows(model: Model, text: str, most: int | None) -> list[list[int]]:
    tokens = model.tokenizer.encode(text)
    bos = model.tokenizer.bos_id if tokens[:1] == [model.tokenizer.bos_id] else None
    return windows_of(tokens[:most], min(WINDOW, model.context_length), bos)


def _nats(model: Model, windows: Sequence[Sequence[int]]) -> F64:
    """-ln p of each token of the windows but the first ones."""
    scores = [negative_log_likelihoods(model.logits(tokens=window), window) for window in windows]
    return np.concatenate(scores) if scores else np.zeros(0)


def _frequencies(windows: Sequence[Sequence[int]]) -> float:
    counts = np.unique(np.concatenate([window[1:] for window in windows]), return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _difference(more: Estimate, less: Estimate) -> Estimate:
    return Estimate(more.value - less.value, math.hypot(more.error, less.error), less.samples)


# -- the criterion -----------------------------------------------------------------------------------------------------


def shows_language(score: Score) -> bool:
    """Whether the model predicts the text better than its own token frequencies do."""
    return score.own.value < score.frequencies


def is_surely_chance(score: Score, uniform: float) -> bool:
    """Whether a guess of equally likely tokens does better by more than the tokens scored so far can mislead."""
    own = score.own
    return not own.value - SIGMAS * own.error < uniform  # NaN is chance too


def is_chance(score: Score, uniform: float) -> bool:
    """Whether a guess of equally likely tokens does as well, or the order of the tokens makes no difference."""
    if not score.own.value < uniform:  # NaN is chance too
        return True
    gain = score.gain
    return gain is None or not gain.value > SIGMAS * gain.error


def judge(rung: Rung, scores: Sequence[Score], vocab_size: int) -> None:
    """Put the outcome into the rung: `language`, `unclear` (skipped, with the reason) or `nonsense` (a finding)."""
    uniform = math.log(vocab_size)
    if not scores:
        rung.skipped = "the text has too few tokens to judge by"
        return
    shown = [score for score in scores if shows_language(score)] or [
        score for score in scores if not is_chance(score, uniform)
    ]
    best = (shown or scores)[0]
    perplexity = best.own.exponential()
    rung.figures = {
        "text": best.language,
        "perplexity": perplexity.value,
        "perplexity_error": perplexity.error,
        "guess_by_frequencies": math.exp(best.frequencies),
        "guess_uniform": float(vocab_size),
        "scored": best.own.samples,
        "texts_tried": len(scores),
    }
    said = (
        f"perplexity {perplexity.value:.4g} on {best.language}, where a guess by the text's own token frequencies has "
        f"{math.exp(best.frequencies):.4g} and one of equally likely tokens {vocab_size}"
    )
    if shows_language(best):
        rung.figures["outcome"] = "language"
    elif all(is_chance(score, uniform) for score in scores):
        rung.figures["outcome"] = "nonsense"
        tried = f"{best.language} no" if len(scores) == 1 else f"none of {len(scores)} texts, each in another language,"
        rung.add(
            Kind.NO_LANGUAGE,
            f"the model does not produce language: it predicts {tried} better than chance; {said}. Its weights are "
            "random, as make-dummy writes them, or broken",
        )
    else:
        rung.figures["outcome"] = "unclear"
        rung.skipped = (
            f"unclear: {said}; the order of the tokens makes a difference to it, so that it is not nonsense; --text "
            "takes text of the kind that the model was trained on"
        )

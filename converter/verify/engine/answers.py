"""What an engine predicted, and how far that is from our logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import F32, F64

WIDE_MARGIN = 0.19
"""Lead of the likeliest token, in standard deviations of the logits, that no habit of an engine overcomes: the least
lead in files whose engines gave the tokens of exact arithmetic."""
AGREEMENT = 0.95
"""Share of the positions with a wide margin at which an engine has to name our token."""
TELLING = 4
"""Probabilities that an answer needs to say more than its first token."""
ANSWERED = 0.5
"""Share of the positions at which an engine has to answer to be called right: servers keep back a token whose text is
not whole characters, which few are."""
HABIT = 0.06
"""Median distance, in standard deviations of the logits, up to which two programs compute one model. Engines that round
activations in blocks, and keys and values to float16, measure 0.02 to 0.035; another activation function 0.09 to
0.6."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """An engine's prediction after the first `length` tokens.

    ids: the likeliest tokens, or all, int64 (k,). values: their log-probabilities, float64 (k,), up to a constant; NaN
    where the engine computed none. likeliest: the first, or several tokens with its text where only that is known.
    """

    length: int
    ids: npt.NDArray[np.int64]
    values: F64
    likeliest: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """An engine's answers in one way of evaluating a sequence.

    way: in words. answers: those before it failed. failure: how it failed. asked: positions at which it was asked.
    """

    way: str
    answers: Sequence[Answer] = ()
    failure: str = ""
    asked: int = 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An engine's run beside logits of ours.

    distance, worst: median and largest over positions; infinite where the engine computed no numbers. Where it gave
    one probability alone everywhere, distance is the share of positions at which it named another token. positions:
    compared; not_finite: of those, without numbers. equal: with our likeliest token. wide: where that leads by
    WIDE_MARGIN; wide_equal: of those, with our token.
    """

    distance: float
    worst: float
    positions: int
    not_finite: int
    equal: int
    wide: int
    wide_equal: int

    def same_model(self, habit: float) -> bool:
        """Return whether the run computes our model, but for habits of rounding as large as `habit`."""
        return self.distance <= max(HABIT, habit) and self.wide_equal >= AGREEMENT * self.wide

    def as_json(self) -> dict[str, Any]:
        """Return its fields."""
        return dataclasses.asdict(self)


def compare(answers: Sequence[Answer], logits: F32) -> Comparison:
    """Compare answers with our logits, float32 (tokens, vocab)."""
    distances = np.array([distance(answer, logits[answer.length - 1]) for answer in telling(answers)])
    finite = np.isfinite(distances)
    equal = np.array([_names(answer, int(logits[answer.length - 1].argmax())) for answer in answers])
    wide = np.array([_lead(logits[answer.length - 1]) >= WIDE_MARGIN for answer in answers])
    others = 1 - float(equal.mean()) if len(equal) else float("inf")
    return Comparison(
        distance=float(np.median(distances)) if len(distances) else others,
        worst=float(distances.max(initial=0.0)),
        positions=len(answers),
        not_finite=int((~finite).sum()),
        equal=int(equal.sum()),
        wide=int(wide.sum()),
        wide_equal=int((wide & equal).sum()),
    )


def distance(answer: Answer, logits: F32) -> float:
    """Return the root mean square of the difference to our logits (vocab,) over the answer's tokens, without its mean,
    in standard deviations of our logits. Log-probabilities are logits but for a constant, which the mean takes out."""
    if not np.isfinite(answer.values).all():
        return float("inf")
    with np.errstate(over="ignore", invalid="ignore"):  # numbers that no model computes are infinitely far
        difference = answer.values - logits[answer.ids].astype(np.float64)
        apart = float((difference - difference.mean()).std() / max(float(logits.std()), 1e-30))
    return apart if np.isfinite(apart) else float("inf")


def telling(answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers with enough probabilities to be compared: a model may be so certain that others have none."""
    return [answer for answer in answers if answer.ids.size >= TELLING]


def too_few(runs: Sequence[Run], compared: Mapping[str, Comparison]) -> str:
    """Return why the answers are not enough to call an engine right; "" where they are."""
    for run in runs:
        if not run.failure and len(run.answers) < ANSWERED * run.asked:
            return f"it predicted {len(run.answers)} of {run.asked} tokens ({run.way})"
    failed = any(run.failure for run in runs)  # which is told instead
    if not failed and not any(comparison.wide for comparison in compared.values()):
        return "none is at a position where one token clearly leads"
    return ""


def notes(runs: Sequence[Run]) -> Iterator[str]:
    """Yield what is worth knowing about answers that are missing, or say little."""
    for run in runs:
        if (missing := run.asked - len(run.answers)) and not run.failure:
            why = "servers keep back a token whose text is not whole characters"
            yield f"no prediction of {missing} of {run.asked} tokens ({run.way}): {why}"
        if alone := len(run.answers) - len(telling(run.answers)):
            what = f"{alone} of {len(run.answers)} predictions ({run.way}) give fewer than {TELLING} probabilities"
            yield f"{what}: of these, the likeliest token alone was compared"


def as_answers(logits: F32) -> list[Answer]:
    """Return logits of ours, (tokens, vocab), as answers of an engine that computed them."""
    ids = np.arange(logits.shape[1])
    return [Answer(index + 1, ids, row.astype(np.float64), (int(row.argmax()),)) for index, row in enumerate(logits)]


def _names(answer: Answer, token: int) -> bool:
    """Return whether an answer's likeliest token is this one."""
    return bool(np.isfinite(answer.values).all()) and token in answer.likeliest


def _lead(logits: F32) -> float:
    first, second = np.partition(logits, -2)[-2:][::-1]
    return float(first - second) / max(float(logits.std()), 1e-30)

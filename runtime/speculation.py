"""Speculation: tokens are guessed, and the model checks several guesses in one pass.

What the model would have chosen anyway is kept and the rest is dropped, so the text never changes, whatever the
sampling. How many guesses are worth their pass follows from measured times: a wrong guess costs a row of the products,
a right one saves a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

SHORTEST, LONGEST = 2, 4
"""Tokens of the n-grams that are looked up."""
RETRY = 24
"""Passes without a guess, after which one is tried again where guesses did not pay."""
FORGET = 0.1
"""How much a new observation counts."""


class Draft(Protocol):
    """What guesses."""

    def guess(self, history: Sequence[int], most: int) -> list[int]:
        """Return at most `most` tokens that may follow the history, none if there is no guess."""


class LookupDraft:
    """Guesses what followed the last occurrence of the history's last tokens: good for summaries, code and edits."""

    def __init__(self) -> None:
        self._history: Sequence[int] = ()
        self._known = 0  # tokens of the history that were learned
        self._newest: dict[tuple[int, ...], int] = {}  # an n-gram -> the place after its last occurrence
        self._before: dict[tuple[int, ...], int] = {}  # the place after the one before that

    def guess(self, history: Sequence[int], most: int) -> list[int]:
        self._learn(history)
        for length in range(min(LONGEST, len(history)), SHORTEST - 1, -1):
            place = self._before.get(tuple(history[-length:]))
            if place is not None:
                return list(history[place : place + most])
        return []

    def _learn(self, history: Sequence[int]) -> None:
        """Learn what was appended to the history since the last call, or another history from its beginning."""
        if history is not self._history:
            self._history, self._known, self._newest, self._before = history, 0, {}, {}
        for end in range(self._known + 1, len(history) + 1):
            for length in range(SHORTEST, min(LONGEST, end) + 1):
                gram = tuple(history[end - length : end])
                if gram in self._newest:
                    self._before[gram] = self._newest[gram]
                self._newest[gram] = end
        self._known = len(history)


class Speculation:
    """Decides how many guesses of a draft a pass gets, so that on average it does not lose time.

    most: guesses per pass. always: guess that many each time, whatever it costs, for tests.
    """

    def __init__(self, draft: Draft, most: int = 7, *, always: bool = False) -> None:
        self._draft, self._most, self._always = draft, most, always
        self._right = 0.6  # share of guesses that are right, as long as nothing is known
        self._seconds: dict[int, float] = {}  # of a pass with so many guesses
        self._idle = 0

    def guess(self, history: Sequence[int], room: int) -> list[int]:
        """Return the guesses for the next pass, at most `room`."""
        count = min(self._worthwhile(), room)
        return self._draft.guess(history, count) if count > 0 else []

    def observe(self, guesses: int, right: int, seconds: float) -> None:
        """Learn from a pass: how many guesses it had, how many were right, how long it took."""
        old = self._seconds.get(guesses)
        self._seconds[guesses] = seconds if old is None else old + FORGET * (seconds - old)
        self._idle = 0 if guesses else self._idle + 1
        for _ in range(right):
            self._right += FORGET * (1 - self._right)
        if right < guesses:
            self._right -= FORGET * self._right

    def _worthwhile(self) -> int:
        """The number of guesses that gives the most tokens per second."""
        if self._always:
            return self._most
        alone = self._seconds.get(0)
        if alone is None:
            return 0  # the first pass measures what one without guesses takes
        best, best_speed, tokens = 0, 1 / alone, 1.0
        for count in range(1, self._most + 1):
            tokens += self._right**count
            speed = tokens / self._cost(count, alone)
            if speed > best_speed:
                best, best_speed = count, speed
        return best or int(self._idle >= RETRY)

    def _cost(self, count: int, alone: float) -> float:
        """Seconds of a pass with `count` guesses: measured, or by the nearest smaller one that was measured."""
        if count in self._seconds:
            return self._seconds[count]
        smaller = max(known for known in self._seconds if known < count)
        return self._seconds[smaller] + alone * 0.2 * (count - smaller)

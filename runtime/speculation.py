"""Speculation: tokens are guessed, and the model checks several guesses in one pass.

What the model would have chosen anyway is kept and the rest is dropped, so the text never changes, whatever the
sampling. How many guesses are worth their pass follows from measured times: a wrong guess costs a row of the products,
a right one saves a pass.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Protocol

SHORTEST, LONGEST = 2, 4
"""Tokens of the n-grams that are looked up."""
RETRY = 32
"""Passes without a guess after which one is tried again, once one was wrong; twice as many each time that it fails."""
MARGIN = 1.1
"""How much faster guesses have to look before they are made: what is known of them is never exact."""
FIRST, RECENT = 3, 9
"""Passes without guesses before the first one; passes whose times are remembered."""
DEAR = 0.4
"""What a guess is thought to add to a pass, as a share of one without guesses, until one was measured."""
FORGET = 0.15
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
        self._recent: dict[int, collections.deque[float]] = {0: collections.deque(maxlen=RECENT)}
        self._count = most if always else 0  # of guesses, for the next pass
        self._idle, self._patience = 0, FIRST  # passes without a guess; how many until one is tried
        self._passes: dict[int, int] = {}  # by their guesses

    def gain(self, written: int) -> float | None:
        """Return how much faster so many tokens were written than without guesses; None if that is not known.

        Passes count with the usual seconds of their kind, since others of the machine's work slow some of them down.
        """
        alone = self._seconds(0)
        if alone is None or set(self._passes) <= {0}:
            return None
        seconds = sum(count * (self._seconds(guesses) or alone) for guesses, count in self._passes.items())
        return written * alone / seconds

    def guess(self, history: Sequence[int], room: int) -> list[int]:
        """Return the guesses for the next pass, at most `room`."""
        count = min(self._count or int(self._idle >= self._patience), room)
        return self._draft.guess(history, count) if count > 0 else []

    def observe(self, guesses: int, right: int, seconds: float) -> None:
        """Learn from a pass: how many guesses it had, how many were right, how long it took."""
        self._passes[guesses] = self._passes.get(guesses, 0) + 1
        if guesses == 0:  # most passes, for which this must cost nothing
            self._recent[0].append(seconds)
            self._idle += 1
            return
        self._recent.setdefault(guesses, collections.deque(maxlen=RECENT)).append(seconds)
        if right:
            self._patience = FIRST
        elif self._idle >= self._patience:
            self._patience = max(RETRY, 2 * self._patience)
        self._idle = 0
        for _ in range(right):
            self._right += FORGET * (1 - self._right)
        if right < guesses:
            self._right -= FORGET * self._right
        if not self._always:
            self._count = self._worthwhile()

    def _seconds(self, guesses: int) -> float | None:
        """The quickest of the last passes with so many guesses: others of the machine's work made the rest slower."""
        return min(self._recent[guesses]) if self._recent.get(guesses) else None

    def _worthwhile(self) -> int:
        """The number of guesses that gives the most tokens per second."""
        alone = self._seconds(0)
        if alone is None:
            return 0
        best, best_speed, tokens = 0, MARGIN / alone, 1.0
        cost, each = alone, DEAR * alone
        for count in range(1, self._most + 1):
            tokens += self._right**count
            measured = self._seconds(count)
            cost = cost + each if measured is None else measured
            each = each if measured is None else max(0.0, measured - alone) / count
            if tokens / cost > best_speed:
                best, best_speed = count, tokens / cost
        return best

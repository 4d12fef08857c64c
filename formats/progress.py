"""How long work reports where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Piece = TypeVar("Piece", bound=npt.NDArray[np.generic])

Progress = Callable[[str, int, int], None]
"""Called with the name of what is done now, and how much is done of how much: bytes, where data is written."""


def silent(name: str, done: int, total: int) -> None:
    """Report nothing."""


class ByteCount:
    """Reports how many bytes of `total` have been taken from the pieces that pass through it."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def through(self, name: str, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Yield the pieces of the thing called `name`."""
        for piece in pieces:
            self._progress(name, self._done, self._total)
            yield piece
            self._done += piece.nbytes

    def end(self) -> None:
        """Report that nothing is left, whatever the pieces came to."""
        self._progress("", self._total, self._total)

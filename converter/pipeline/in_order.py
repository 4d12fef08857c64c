"""Work on several tensors side by side, for what has to come out in order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tritpack.runtime.machine import usable_cores

MEMORY = 768 << 20
"""Bytes that tensors at work may take together; a single one may take more."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def threads_for(nbytes: int) -> int:
    """Return how many threads to use where each of them holds so many bytes at a time."""
    return max(1, min(usable_cores(), MEMORY // max(1, nbytes)))


def in_order(task: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield the result of `task` for each item, in order, worked out ahead by `threads` threads.

    No more than `threads` results wait to be taken. Raises what the task raises, at its place; what has not begun by
    then does not begin.
    """
    waiting: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(threads, "tritpack-tensor") as pool:
        try:
            for item in items:
                if len(waiting) >= threads:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(task, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

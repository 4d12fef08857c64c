"""Threads that work on blocks of tensors, and the memory that blocks may take meanwhile.

The work itself is numpy, hashlib and the C library, which let go of the interpreter lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from tritpack.formats.errors import MissingRequirement


def default_threads() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Memory:
    """A number of bytes that is shared out. Who asks for more than there is in all gets it when nobody has any."""

    def __init__(self, nbytes: int) -> None:
        self._free = self._all = nbytes
        self._changed = threading.Condition()

    def take(self, nbytes: int, stop: Callable[[], bool]) -> None:
        """Wait until so many bytes are free, or until `stop` says that nobody needs them any more."""
        with self._changed:
            while self._free < nbytes and self._free < self._all and not stop():
                self._changed.wait(0.1)
            self._free -= nbytes

    def give(self, nbytes: int) -> None:
        with self._changed:
            self._free += nbytes
            self._changed.notify_all()


class Workers:
    """A context manager: a pool of threads and one more that keeps an order, with a shared memory.

    The first error of any task is raised by `check` and at the end of the block; what has not begun by then is dropped.
    """

    def __init__(self, threads: int, nbytes: int) -> None:
        self.memory = Memory(nbytes)
        self._pool = ThreadPoolExecutor(threads, "tritpack-pack")
        self._in_order = ThreadPoolExecutor(1, "tritpack-hash")
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._unfinished = 0
        self._error: BaseException | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
        else:
            self._wait()
        self._pool.shutdown(cancel_futures=True)
        self._in_order.shutdown(cancel_futures=True)
        if error is None:
            self.check()

    def submit(self, task: Callable[[], None]) -> None:
        """Run a task on any thread. A task may submit others."""
        self._start(self._pool, task)

    def submit_in_order(self, task: Callable[[], None]) -> None:
        """Run a task after all others that were given to this method."""
        self._start(self._in_order, task)

    def stopped(self) -> bool:
        """Return whether a task has failed."""
        return self._error is not None

    def check(self) -> None:
        """Raise the error of the first task that failed."""
        if self._error is not None:
            raise self._error

    def _start(self, pool: ThreadPoolExecutor, task: Callable[[], None]) -> None:
        if self.stopped():
            return
        with self._lock:
            self._unfinished += 1
        try:
            pool.submit(task).add_done_callback(self._ended)
        except RuntimeError as error:  # the system has no thread left
            self._ended(None)
            raise MissingRequirement(f"no thread can be started: {error}", hint="try --threads 1") from error

    def _ended(self, future: Future[None] | None) -> None:
        if future is not None and not future.cancelled() and (error := future.exception()) is not None:
            self._fail(error)
        with self._lock:
            self._unfinished -= 1
            self._idle.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
            self._idle.notify_all()

    def _wait(self) -> None:
        with self._lock:
            while self._unfinished and not self._error:
                self._idle.wait(1.0)  # wakes up for Ctrl-C

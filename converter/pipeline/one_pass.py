"""Reading the files of a source once, from the first byte to the last, while other threads hash and do the jobs."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tritpack.converter.pipeline.jobs import Job
from tritpack.converter.pipeline.shards import Shards
from tritpack.converter.pipeline.workers import Workers
from tritpack.converter.sources.checkpoint import ShardReader
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable
from tritpack.formats.progress import Progress

BLOCK = 8 << 20
"""Bytes that are read at a time, about: a block holds whole rows."""


def read_once(shards: Shards, jobs: Sequence[Job], *, threads: int, nbytes: int, progress: Progress) -> dict[str, str]:
    """Read every shard once and do every job. Returns the SHA-256 of each shard, by name.

    threads: that work on the blocks. nbytes: of memory for blocks that are being worked on; one job may need more.
    Raises what a job raises, and what reading raises: Unreadable, NetworkTrouble, IntegrityFailed.
    """
    done, total = 0, sum(size for _, size in shards.shard_files)
    digests = {name: hashlib.sha256() for name, _ in shards.shard_files}
    with Workers(threads, nbytes) as workers:
        for name, size in shards.shard_files:
            with shards.open_shard(name) as reader:
                for segment in _segments(name, size, jobs, workers):
                    for offset, length in segment.blocks:
                        progress(segment.name, done, total)
                        data = segment.room_for(length)
                        _fill(data, reader, name)
                        segment.hand_out(offset, data, digests[name])
                        done += length
        for job in jobs:
            if job.place is None:
                workers.submit(functools.partial(_end, job, workers, Countdown(1, _nothing)))
    hashes = {name: digest.hexdigest() for name, digest in digests.items()}
    for name, digest in hashes.items():
        shards.finish(name, digest)
    progress("", total, total)
    return hashes


def _fill(data: Bytes, reader: ShardReader, name: str) -> None:
    """Read as many bytes as `data` holds."""
    view, done = data.data, 0
    while done < len(view):
        try:
            count = reader.readinto(view[done:])
        except OSError as error:
            raise Unreadable(f"cannot be read: {error.strerror or error}", path=name) from error
        if not count:
            raise Unreadable("was cut short while it was read", path=name, hint="run the command again")
        done += count


class Countdown:
    """Does something when it has been called so many times, on the thread that calls it last."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._left, self._then = count, then
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._then()


def _nothing() -> None:
    pass


class _Segment:
    """Consecutive bytes of a file: a tensor and its jobs, or what lies between tensors and is only hashed.

    blocks: (offset in the segment, length) of each block, in order.
    """

    def __init__(self, size: int, jobs: Sequence[Job], workers: Workers) -> None:
        self._jobs, self._workers = jobs, workers
        unit = int(np.lcm.reduce([job.unit or size for job in jobs])) if jobs else 1
        step = max(1, BLOCK // unit) * unit
        self.blocks = [(first, min(step, size - first)) for first in range(0, size, step)]
        self._kept = size if any(job.keeps for job in jobs) else 0
        if self._kept:
            workers.memory.take(self._kept, workers.stopped)
        users = len(jobs) + len(self.blocks)  # every job as a whole, and the hash for every block
        self._let_go = Countdown(users, functools.partial(workers.memory.give, self._kept))
        self._taken = {job: Countdown(len(self.blocks), functools.partial(self._begin_end, job)) for job in jobs}

    @property
    def name(self) -> str:
        return self._jobs[0].tensor.output.name if self._jobs else ""

    def room_for(self, length: int) -> Bytes:
        """Return memory for a block, when there is some. Raises the error of a job that has failed."""
        if not self._kept:
            self._workers.memory.take(length, self._workers.stopped)
        self._workers.check()
        return np.empty(length, np.uint8)

    def hand_out(self, offset: int, data: Bytes, digest: hashlib._Hash) -> None:
        """Give a block to the hash and to every job."""
        give = _nothing if self._kept else functools.partial(self._workers.memory.give, data.size)
        used = Countdown(1 + len(self._jobs), give)

        def update() -> None:
            digest.update(data.data)
            used()
            self._let_go()

        def take(job: Job) -> None:
            job.take(offset, data)
            used()
            self._taken[job]()

        self._workers.submit_in_order(update)
        for job in self._jobs:
            self._workers.submit(functools.partial(take, job))

    def _begin_end(self, job: Job) -> None:
        _end(job, self._workers, self._let_go)


def _end(job: Job, workers: Workers, ended: Callable[[], None]) -> None:
    """Begin what a job has left to do after all blocks."""
    tasks = job.end()

    def close() -> None:
        job.close()
        ended()

    closing = Countdown(max(1, len(tasks)), close)
    for task in tasks:
        workers.submit(functools.partial(_do, task, closing))
    if not tasks:
        closing()


def _do(task: Callable[[], None], then: Callable[[], None]) -> None:
    task()
    then()


def _segments(name: str, size: int, jobs: Sequence[Job], workers: Workers) -> Iterator[_Segment]:
    """Yield all segments of a file in order. Jobs on one tensor share its segment."""
    table: dict[tuple[int, int], list[Job]] = {}
    for job in jobs:
        if job.place is not None and job.place.file == name:
            table.setdefault((job.place.offset, job.place.nbytes), []).append(job)
    at = 0
    for offset, nbytes in sorted(table):
        if offset > at:
            yield _Segment(offset - at, [], workers)
        yield _Segment(nbytes, table[offset, nbytes], workers)
        at = offset + nbytes
    if size > at:
        yield _Segment(size - at, [], workers)

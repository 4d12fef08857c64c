"""Several recipes at once, as tasks on Dask: on processes of this machine, or on a cluster that is running already."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tritpack.formats.errors import MissingRequirement, NetworkTrouble, TritpackError, UsageError

EXECUTORS = ("local", "dask")
RETRIES = 2
CONNECT_SECONDS = 20


class WorkerDied(MissingRequirement):
    """The process that ran a recipe was ended: most likely, the recipe needs more memory than it had."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a recipe: the `result` of running it, or the error that ended it."""

    recipe: str
    result: Any = None
    error: Exception | None = None


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Where recipes run.

    executor: one of EXECUTORS; `local` is one after the other in this process. scheduler: the address of a running Dask
    scheduler; None starts a cluster on this machine, which ends with the work. workers: its processes, each of which
    runs one recipe at a time; 0 is one per two cores, and no more than recipes. worker_memory: bytes that one of them
    may use before it is ended and started again; None is an equal share of the machine's. retries: how often a recipe
    is tried again after trouble with the network or Hub, or the death of its worker; after that, once more alone.
    """

    executor: str = EXECUTORS[0]
    scheduler: str | None = None
    workers: int = 0
    worker_memory: int | None = None
    retries: int = RETRIES

    def __post_init__(self) -> None:
        if self.executor == "local" and (self.scheduler or self.workers or self.worker_memory):
            raise UsageError("--scheduler, --workers and --worker-memory are for --executor dask")
        if self.scheduler and (self.workers or self.worker_memory):
            hint = "give them to the workers: dask worker --nthreads 1 --memory-limit SIZE ADDRESS"
            raise UsageError("--workers and --worker-memory are for the cluster that is started here", hint=hint)

    def workers_for(self, recipes: int) -> int:
        """How many processes a cluster on this machine gets."""
        return max(1, min(recipes, self.workers or (os.cpu_count() or 1) // 2))

    def threads_for(self, recipes: int) -> int:
        """How many threads each of them gets: its share of the cores; 0, which is all, where a recipe is alone."""
        if self.executor == "local" or self.scheduler:
            return 0
        return max(1, (os.cpu_count() or 1) // self.workers_for(recipes))


def run_fleet(recipes: Sequence[str], run: Callable[[str], Any], fleet: Fleet | None = None) -> Iterator[Outcome]:
    """Run each recipe once, and yield what became of it as soon as that is known.

    run: is given a recipe and returns its result; on Dask it is pickled, as are the result and the error. It has to go
    on where a killed run stopped, and to skip what that has finished: so nothing is lost and nothing is done twice. An
    error of one recipe stops none of the others. A recipe that is given twice runs once.
    Raises MissingRequirement without the extra `dask`, NetworkTrouble if the scheduler does not answer.
    """
    fleet, recipes = fleet or Fleet(), list(dict.fromkeys(recipes))
    return _on_dask(recipes, run, fleet) if fleet.executor == "dask" else _one_by_one(recipes, run)


def _one_by_one(recipes: Sequence[str], run: Callable[[str], Any]) -> Iterator[Outcome]:
    for recipe in recipes:
        try:
            outcome = Outcome(recipe, run(recipe))
        except TritpackError as error:
            outcome = Outcome(recipe, error=error)
        yield outcome


def _on_dask(recipes: Sequence[str], run: Callable[[str], Any], fleet: Fleet) -> Iterator[Outcome]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ModuleNotFoundError as error:
        hint = 'pip install "tritpack[dask]"'
        raise MissingRequirement(f"--executor dask needs {error.name}, which is not installed", hint=hint) from error
    suspects = []
    with _client(distributed, fleet, len(recipes)) as client:
        for outcome in _submitted(distributed, client, recipes, run, fleet.retries):
            if isinstance(outcome.error, WorkerDied):
                suspects.append(outcome.recipe)
            else:
                yield outcome
        # Dask suspects every task that was given to a worker that dies, also those that only waited there. Alone, a
        # recipe that brings no worker down is done, and no other can suffer from one that does.
        for recipe in suspects:
            yield from _submitted(distributed, client, [recipe], run, fleet.retries)


def _submitted(
    distributed: Any, client: Any, recipes: Sequence[str], run: Callable[[str], Any], retries: int
) -> Iterator[Outcome]:
    futures = {client.submit(_attempt, run, recipe, retries=retries, pure=False): recipe for recipe in recipes}
    for future in distributed.as_completed(list(futures), loop=client.loop):
        outcome = _outcome(distributed, futures.pop(future), future)
        future.release()  # what is only in a worker's memory would be run again when that worker dies
        yield outcome


@contextlib.contextmanager
def _client(distributed: Any, fleet: Fleet, recipes: int) -> Iterator[Any]:
    """Yield a client of the running scheduler, or of a cluster that is started for it and ends with it."""
    import dask

    if fleet.scheduler is not None:
        try:
            client = distributed.Client(fleet.scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:  # ValueError: text that is no address
            hint = "start one with 'dask scheduler', or leave --scheduler out"
            raise NetworkTrouble(f"the Dask scheduler {fleet.scheduler} does not answer: {error}", hint=hint) from error
        with client:
            yield client
        return
    # A task whose worker dies is given to another one so many times.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": fleet.retries}),
        distributed.LocalCluster(
            n_workers=fleet.workers_for(recipes),
            threads_per_worker=1,
            processes=True,
            memory_limit=fleet.worker_memory or "auto",
            dashboard_address="127.0.0.1:0",  # any free port: nobody is told of it
            silence_logs="ERROR",
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _attempt(run: Callable[[str], Any], recipe: str) -> Outcome:
    """Run a recipe in a worker. What another attempt may cure is raised, so that Dask makes one."""
    try:
        return Outcome(recipe, run(recipe))
    except NetworkTrouble:
        raise
    except TritpackError as error:
        return Outcome(recipe, error=error)


def _outcome(distributed: Any, recipe: str, future: Any) -> Outcome:
    try:
        outcome: Outcome = future.result()
        return outcome
    except distributed.KilledWorker as error:
        last = getattr(error, "last_worker", None)
        message = f"its worker ended {error.allowed_failures + 1} times{f', the last one {last.name}' if last else ''}"
        hint = "a worker that needs more than its memory is ended: give --worker-memory, or run fewer with --workers"
        return Outcome(recipe, error=WorkerDied(message, hint=hint))
    except Exception as error:
        return Outcome(recipe, error=error)

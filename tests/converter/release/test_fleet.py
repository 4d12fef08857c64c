"""Recipes on a real Dask cluster of processes: nothing is lost and nothing is done twice, whatever dies."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.converter.release.fleet_tasks import fails, notes, release
from tritpack.converter.release.fleet import Fleet, Outcome, run_fleet
from tritpack.formats.errors import MissingRequirement, NetworkTrouble, Unsupported, UsageError

PATIENCE = 60.0


@pytest.fixture
def recipes(tmp_path: Path, tiny_checkpoint: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    for path in paths:
        path.write_text(str(tiny_checkpoint))
    return paths


@pytest.fixture
def quick_workers() -> Iterator[None]:
    """Let workers be forked from a process that has imported distributed, as Dask's own tests do."""
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_killed_worker_loses_nothing_and_nothing_is_done_twice(recipes: list[Path], quick_workers: None) -> None:
    dies = recipes[0].with_name("dies.txt")
    dies.write_text("dies")
    outcomes: dict[str, Outcome] = {}
    fleet = Fleet("dask", workers=2, worker_memory=2 << 30, retries=0)
    names = [str(path) for path in (*recipes, recipes[0], dies)]

    def work() -> None:
        for outcome in run_fleet(names, release, fleet):
            assert outcome.recipe not in outcomes, outcome.recipe
            outcomes[outcome.recipe] = outcome

    thread = threading.Thread(target=work)
    thread.start()
    # Two workers have made a first output each, and wait.
    wait_until(lambda: sum(("i2_s" in [what for _, what in notes(path)]) for path in recipes) == 2)
    killed = next(path for path in recipes if notes(path))
    first = notes(killed)[0][0]
    assert first != os.getpid()
    os.kill(first, signal.SIGKILL)
    (killed.parent / "go").touch()
    thread.join(PATIENCE)
    assert set(outcomes) == set(names)
    for path in recipes:
        assert outcomes[str(path)].error is None, path.name
        made = [what for _, what in notes(path) if what != "begins"]
        assert made == ["i2_s", "t158"], path.name
    assert len({process for process, _ in notes(killed)}) == 2
    error = outcomes[str(dies)].error
    assert isinstance(error, MissingRequirement) and "its worker ended" in str(error)
    assert [what for _, what in notes(dies)] == ["begins", "begins"]


def test_errors_of_one_recipe_stop_no_other_and_come_back_whole(tmp_path: Path) -> None:
    """On a cluster that runs already, here in threads; it goes on after the work."""
    distributed = pytest.importorskip("distributed")
    kinds = ["unsupported", "network once", "network", "bug", "good"]
    paths = {kind: tmp_path / f"{kind}.txt" for kind in kinds}
    for kind, path in paths.items():
        path.write_text(kind)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs="CRITICAL"
    ) as cluster:
        fleet = Fleet("dask", scheduler=cluster.scheduler_address, retries=1)
        outcomes = {Path(o.recipe).stem: o for o in run_fleet([str(path) for path in paths.values()], fails, fleet)}
        assert len(cluster.workers) == 1
    assert set(outcomes) == set(kinds)
    error = outcomes["unsupported"].error
    assert isinstance(error, Unsupported)
    assert (error.path, error.tensor, error.hint) == (str(paths["unsupported"]), "t", "none")
    assert outcomes["good"].result == "good"
    assert outcomes["network once"].result == "network once"
    assert isinstance(outcomes["network"].error, NetworkTrouble) and outcomes["network"].error.hint == "try again"
    assert isinstance(outcomes["bug"].error, ZeroDivisionError)
    tries = {kind: len(notes(path)) for kind, path in paths.items()}
    assert tries == {"unsupported": 1, "network once": 2, "network": 2, "bug": 2, "good": 1}


def test_without_dask_recipes_run_one_after_the_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"{kind}.txt" for kind in ("good", "unsupported", "network")]
    for path in paths:
        path.write_text(path.stem)
    outcomes = list(run_fleet([*map(str, paths), str(paths[0])], fails))
    assert [outcome.result for outcome in outcomes] == ["good", None, None]
    assert [type(outcome.error) for outcome in outcomes[1:]] == [Unsupported, NetworkTrouble]
    assert [process for process, _ in notes(paths[0])] == [os.getpid()]


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingRequirement) as caught:
        list(run_fleet(["a"], fails, Fleet("dask")))
    assert caught.value.hint == 'pip install "tritpack[dask]"'


def test_a_scheduler_that_is_not_there_is_network_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("tritpack.converter.release.fleet.CONNECT_SECONDS", 0.2)
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        with pytest.raises(NetworkTrouble, match="does not answer"):
            list(run_fleet(["a"], fails, Fleet("dask", scheduler=address)))
            pytest.fail(address)


def test_options_that_do_not_belong_together_are_refused() -> None:
    for options in (
        {"executor": "local", "scheduler": "tcp://127.0.0.1:8786"}, {"executor": "local", "workers": 2},
        {"executor": "dask", "scheduler": "tcp://127.0.0.1:8786", "worker_memory": 1},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            Fleet(**options)  # type: ignore[arg-type]
            pytest.fail(str(options))


def test_a_cluster_has_no_more_workers_than_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for recipes, fleet, workers in ((3, Fleet("dask"), 3), (30, Fleet("dask"), 8), (30, Fleet("dask", workers=20), 20)):
        assert fleet.workers_for(recipes) == workers, (recipes, fleet)
    assert [Fleet("dask").threads_for(recipes) for recipes in (1, 3, 30)] == [16, 5, 2]
    assert Fleet("dask", scheduler="tcp://127.0.0.1:8786").threads_for(3) == Fleet().threads_for(3) == 0

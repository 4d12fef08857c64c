"""converter/pipeline/in_order.py: results in order, worked out ahead, never too many."""

from __future__ import annotations

import threading

import pytest

from tritpack.converter.pipeline import in_order as module
from tritpack.converter.pipeline.in_order import in_order, threads_for


def test_results_keep_the_order_whoever_is_first() -> None:
    second_done = threading.Event()

    def task(number: int) -> int:
        if number == 0:
            assert second_done.wait(10), "the second task did not run beside the first"
        second_done.set()
        return number * number

    assert list(in_order(task, range(7), threads=2)) == [0, 1, 4, 9, 16, 25, 36]


def test_no_more_results_wait_than_there_are_threads() -> None:
    begun: list[int] = []
    results = in_order(lambda number: begun.append(number) or number, range(100), threads=3)
    for taken in range(20):
        assert next(results) == taken, f"number {taken}"
        assert len(begun) <= taken + 1 + 3, f"{len(begun)} begun after {taken + 1} were taken"
    results.close()
    assert len(begun) <= 23


def test_an_error_comes_at_its_place_and_ends_the_work() -> None:
    begun: list[int] = []

    def task(number: int) -> int:
        begun.append(number)
        if number == 2:
            raise ValueError("two")
        return number

    results = in_order(task, range(100), threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert len(begun) <= 5


@pytest.mark.parametrize(("nbytes", "threads"), [(1, 8), (module.MEMORY // 2, 2), (10 * module.MEMORY, 1), (0, 8)])
def test_large_tensors_get_fewer_threads(monkeypatch: pytest.MonkeyPatch, nbytes: int, threads: int) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    assert threads_for(nbytes) == threads

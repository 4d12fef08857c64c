"""The bandwidth of this machine: measured once, remembered, and not believed where the machine is busy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritpack.converter.inspect import bandwidth
from tritpack.converter.inspect.bandwidth import BUSY, MEASURED, NO_LIBRARY, Bandwidth, bandwidth_here, cache_file
from tritpack.formats.errors import MissingRequirement
from tritpack.runtime import library


class Machine:
    """A C library that reads at a given speed, and the clocks meanwhile. works: whether nobody else had its core.
    measured: how often it was asked."""

    def __init__(self, *, works: bool) -> None:
        self.works = works
        self.measured = 0

    def read_limit(self, data: np.ndarray, threads: int) -> float:
        self.measured += 1
        return 5e10

    def perf_counter(self) -> float:
        return float(self.measured)

    def process_time(self) -> float:
        return self.measured * (1.0 if self.works else 0.5)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def get(*, works: bool = True, load: float = 0.0) -> Machine:
        made = Machine(works=works)
        monkeypatch.setenv("TRITPACK_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(library, "library", lambda: made)
        monkeypatch.setattr(bandwidth, "time", made)
        monkeypatch.setattr(bandwidth, "usable_cores", lambda: 1)
        monkeypatch.setattr(bandwidth, "MOST_BYTES", 1)
        monkeypatch.setattr(bandwidth.os, "getloadavg", lambda: (load, load, load), raising=False)
        return made

    return get


def test_it_is_measured_once(machine: Any) -> None:
    here = machine()
    assert bandwidth_here() == bandwidth_here() == Bandwidth(5e10, MEASURED) and here.measured == 1
    assert list(json.loads(cache_file().read_text()).values()) == [5e10]
    bandwidth.measure_bandwidth()
    assert here.measured == 2  # doctor measures again


@pytest.mark.parametrize(("works", "load", "measured"), [(False, 0.0, 1), (True, 9.0, 0)], ids=["waits", "load"])
def test_a_busy_machine_gives_no_figure(works: bool, load: float, measured: int, machine: Any) -> None:
    here = machine(works=works, load=load)
    assert bandwidth_here() == Bandwidth(None, BUSY) and here.measured == measured
    assert not cache_file().exists()


def test_without_the_library(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingRequirement("none")

    machine()
    monkeypatch.setattr(library, "library", missing)
    assert bandwidth_here() == Bandwidth(None, NO_LIBRARY)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": "y"}', "\xff"], ids=repr)
def test_a_broken_cache_is_measured_anew(text: str, machine: Any) -> None:
    machine()
    cache_file().parent.mkdir(parents=True)
    cache_file().write_bytes(text.encode("latin-1"))
    assert bandwidth_here().bytes_per_second == 5e10
    assert json.loads(cache_file().read_text())


def test_a_figure_that_is_none_is_not_believed(machine: Any) -> None:
    here = machine()
    bandwidth_here()
    [name] = json.loads(cache_file().read_text())
    for number, figure in enumerate(("-1.0", "NaN", "Infinity", "0.0", "true"), 2):
        cache_file().write_text(f'{{"{name}": {figure}}}')
        assert bandwidth_here().bytes_per_second == 5e10, figure
        assert here.measured == number, figure


def test_a_cache_that_cannot_be_written_is_none(machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRITPACK_CACHE", str(tmp_path / "file" / "folder"))
    assert bandwidth_here().bytes_per_second == 5e10

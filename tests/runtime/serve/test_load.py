"""Fifty clients at once, a third of which hang up: whoever stays gets what each gets alone."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.serve_load import Load, mixed_requests, run_load
from tests.make.server import Running


def test_fifty_at_once(demo: Running) -> None:
    requests = mixed_requests(50, seed=3)
    alone = [demo.ask("/v1/completions", body).json["choices"][0] for body in requests]
    load: Load = run_load(demo.address, requests, at_once=50, killed=0.3, seed=4)
    assert not load.errors and len(load.killed) == 15
    assert set(load.finished) | load.killed | load.refused == set(range(50))
    for index, text in load.finished.items():
        assert text == alone[index]["text"], index
    assert len(load.finished) >= 20
    assert demo.wait_for("tritpack_slots_busy", 0) == 0


def test_memory_stays_flat(demo: Running) -> None:
    """After a first load, whose memory Python and the cache keep, further ones add nothing to speak of."""
    requests = mixed_requests(30, seed=5)
    sizes = []
    for _ in range(3):
        run_load(demo.address, requests, at_once=15, killed=0.3, seed=6)
        sizes.append(resident())
    assert sizes[2] - sizes[0] < 8 << 20, sizes


def resident() -> int:
    """Bytes of memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0

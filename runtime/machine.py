"""The cores and the memory that this process has."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

MAX_THREADS = 256
"""Of the C library's pool, TP_MAX_THREADS."""


def usable_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and its cgroup's quota (--cpus)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return min(cores, MAX_THREADS)


def available_memory() -> int | None:
    """Return the bytes that a process here can still take, by the system and by its cgroup; None if that is unknown."""
    figures = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        figures.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError, KeyError):
        group = Path("/sys/fs/cgroup")
        used, most = (int((group / name).read_text()) for name in ("memory.current", "memory.max"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        figures.append(max(0, most - used + int(stat["inactive_file"])))
    return min(figures, default=None)


def peak_rss() -> int | None:
    """Return the highest resident size of this process in bytes, mapped files included; None if it is unknown."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024

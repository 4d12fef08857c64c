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


def peak_rss() -> int | None:
    """Return the highest resident size of this process in bytes, mapped files included; None if it is unknown."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024

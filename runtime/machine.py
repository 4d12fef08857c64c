"""What this machine gives to this process: cores and memory."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from tritpack.runtime.library import MAX_THREADS


def usable_cores() -> int:
    """Cores this process may use: affinity and the cgroup's quota (a container's --cpus) respected."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return min(cores, MAX_THREADS)


def peak_rss() -> int | None:
    """Highest resident size of this process in bytes, pages of the mapped file included; None where nobody counts."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024

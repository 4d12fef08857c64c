"""The memory bandwidth of this machine: it is measured once and remembered in the user's cache folder.

Whoever decodes one token reads every weight once, so this figure bounds the speed of every engine here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

from tritpack.formats.errors import MissingRequirement
from tritpack.runtime.machine import usable_cores

LEAST_BYTES, BYTES_PER_CORE, MOST_BYTES = 128 << 20, 32 << 20, 1 << 30
"""Size of what is read: more than the caches of the cores hold; a laptop touches it in some 50 ms."""
OWN_SHARE = 0.7
"""Of the processor time of its cores, what a measurement must have had to be believed."""
FILE = "bandwidth.json"
GIVEN, MEASURED = "given", "measured on this machine"
BUSY = "not measured, because this machine is busy with other programs"
NO_LIBRARY = "not measured, because the C library is not here"


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """bytes_per_second: that all cores read from memory together; None if it is not known. how: where the figure is
    from, or why there is none, in words."""

    bytes_per_second: float | None
    how: str


def bandwidth_here() -> Bandwidth:
    """Return what this machine remembers or, the first time, measures within 0.1 s.

    A busy machine gives no figure: it would be far too low, and an upper bound must not be.
    """
    if figure := _remembered().get(_machine()):
        return Bandwidth(figure, MEASURED)
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > usable_cores():
        return Bandwidth(None, BUSY)
    return measure_bandwidth()


def measure_bandwidth() -> Bandwidth:
    """Measure, and remember the figure unless other programs used the cores meanwhile."""
    from tritpack.runtime.library import library

    try:
        c = library()
    except MissingRequirement:
        return Bandwidth(None, NO_LIBRARY)
    cores = usable_cores()
    data = np.ones(min(MOST_BYTES, max(LEAST_BYTES, cores * BYTES_PER_CORE)), np.uint8)
    begin, used = time.perf_counter(), time.process_time()
    figure = c.read_limit(data, cores)
    share = (time.process_time() - used) / (time.perf_counter() - begin) / cores
    if share < OWN_SHARE:
        return Bandwidth(None, BUSY)
    _remember({**_remembered(), _machine(): figure})
    return Bandwidth(figure, MEASURED)


def cache_file() -> Path:
    """Return the file that remembers the figures of all machines that share a home: TRITPACK_CACHE names its folder."""
    home = Path(os.path.expanduser("~"))
    if folder := os.environ.get("TRITPACK_CACHE"):
        return Path(folder) / FILE
    if sys.platform == "win32":
        parent = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        parent = home / "Library" / "Caches"
    else:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return parent / "tritpack" / FILE


def _machine() -> str:
    """What a figure belongs to: a machine, and the cores of it that this process may use."""
    return f"{platform.node()}, {platform.machine()}, {usable_cores()} cores"


def _remembered() -> dict[str, float]:
    """Return the figures in the cache; {} if there is none, or it cannot be read."""
    try:
        figures = json.loads(cache_file().read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(figures, dict):
        return {}
    return {name: value for name, value in figures.items() if isinstance(value, float) and 0 < value < math.inf}


def _remember(figures: dict[str, float]) -> None:
    """Write the cache, at once or not at all. It is a convenience: what cannot be written is measured again."""
    import tempfile  # takes time to import, and is needed once

    path = cache_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=FILE)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(figures, stream, indent=1)
        os.replace(temporary, path)

"""Running a target on one input under limits, and telling findings from right answers."""

from __future__ import annotations

import hashlib
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from tritpack.formats.errors import TritpackError

CPU_SECONDS = 10
MEMORY = 2 << 30
"""Bytes that an input may ask for, beyond what the process has when it starts."""
REPOSITORY = Path(__file__).resolve().parents[2]


class TooSlow(BaseException):
    """The input took more than CPU_SECONDS; not an Exception, so that no reader takes it for a fault of the file."""


def limit_memory() -> None:
    """Let allocations beyond MEMORY fail from now on, whether they are touched or not."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def scratch_folder() -> Path:
    """An empty folder, in memory where the machine has one there."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz", dir=shm if shm.is_dir() else None))


def finding(target: Callable[[bytes, Path], Any], data: bytes) -> BaseException | None:
    """Return what a target raises beside TritpackError, or None. The folder of the input is removed."""
    folder = scratch_folder()
    signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    start = time.process_time()
    try:
        target(data, folder)
    except TritpackError:
        pass
    except (Exception, TooSlow) as error:
        return error
    except BaseException as error:  # a panic of Rust, for example; not ours to stop: SystemExit, KeyboardInterrupt
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise
        return error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        shutil.rmtree(folder, ignore_errors=True)
    took = time.process_time() - start
    return TooSlow(f"{took:.0f} s") if took > CPU_SECONDS else None


def place(error: BaseException) -> str:
    """Return `KIND at FILE:LINE`, the last line of ours that the error left: what makes two findings the same."""
    lines = [_line(trace) for trace in _traces(error.__traceback__)]
    ours = [line for line in lines if line and not line.startswith("tests/")]
    return f"{type(error).__name__} at {ours[-1] if ours else 'tests'}"


def keep(findings: Path, name: str, data: bytes, error: BaseException) -> None:
    """Write the input and the traceback, unless a shorter input of the same finding is there."""
    where = place(error)
    path = findings / f"{name}-{hashlib.sha1(where.encode()).hexdigest()[:10]}"
    if path.exists() and path.stat().st_size <= len(data):
        return
    findings.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    lines = [f"{name}: {where}\n", *traceback.format_exception(error)]
    path.with_suffix(".txt").write_text("".join(lines), "utf-8", "replace")


def _traces(trace: TracebackType | None) -> list[TracebackType]:
    return [] if trace is None else [trace, *_traces(trace.tb_next)]


def _line(trace: TracebackType) -> str | None:
    path = Path(trace.tb_frame.f_code.co_filename).resolve()
    return f"{path.relative_to(REPOSITORY)}:{trace.tb_lineno}" if path.is_relative_to(REPOSITORY) else None


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {CPU_SECONDS} s")

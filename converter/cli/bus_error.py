"""SIGBUS: a mapped file was cut while it was read, or its disk failed.

The default is a process that dies without a word. The handler runs inside the access that failed and cannot return to
it, so it writes one sentence and ends the process. It is for the command only: in somebody else's process, signals are
not ours to handle.
"""

from __future__ import annotations

import ctypes
import os
import signal

from tritpack.formats import inputs
from tritpack.formats.names import ExitCode

Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)


def _end(number: int) -> None:
    cut = [path for path, size in inputs.mapped.items() if _size(path) < size]
    names = ", ".join(map(str, cut))
    what = f"{names}: was cut while it was read" if cut else "a file that is read became unreadable (bus error)"
    os.write(2, f"error: {what}\n".encode("utf-8", "surrogateescape"))
    os._exit(ExitCode.UNREADABLE)


def _size(path: os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


_handler = Handler(_end)  # it has to live as long as the process


def catch() -> None:
    """Install the handler. Python's own `signal` cannot: it runs handlers after the access, which never succeeds."""
    if hasattr(signal, "SIGBUS"):
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = (ctypes.c_int, Handler)
        libc.signal.restype = ctypes.c_void_p
        libc.signal(signal.SIGBUS, _handler)

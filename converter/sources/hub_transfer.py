"""Transfers from the Hub that end: bounded in bytes, and in time without progress.

A timeout of the HTTP client counts from byte to byte, so a server that sends one byte every few seconds would hold the
client for ever.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tritpack.formats.errors import NetworkTrouble

Result = TypeVar("Result")

PATIENCE = 8.0
"""Seconds in which a server has to answer, and then to send SLOWEST bytes more."""
SLOWEST = 1024
LARGEST_LISTING = 32 << 20
"""Bytes of the list of a repository's files; that of 100 000 files has 20 MB."""


def within(seconds: float, action: Callable[[], Result], what: str) -> Result:
    """Return the result of action. Raises NetworkTrouble if that takes longer; `what` is then said to be too slow."""
    results: queue.Queue[tuple[Result | None, BaseException | None]] = queue.Queue(1)

    def work() -> None:
        try:
            results.put((action(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise too_slow(what, seconds) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def too_slow(what: str, seconds: float) -> NetworkTrouble:
    hint = "try again later; a cut download continues where it stopped"
    return NetworkTrouble(f"{what}: no progress in {seconds:g} seconds", hint=hint)


def pieces_of(answer: Any, what: str) -> Iterator[bytes]:
    """Yield the bytes of an HTTP answer. Raises NetworkTrouble if they come more slowly than any line."""
    pieces, waited, count = answer.iter_bytes(), 0.0, 0
    while True:
        begin = time.monotonic()  # whoever takes the pieces may be slow
        piece = next(pieces, None)
        if piece is None:
            return
        waited += time.monotonic() - begin
        count += len(piece)
        if waited > PATIENCE:
            if count < SLOWEST:
                raise too_slow(what, PATIENCE)
            waited, count = 0.0, 0
        yield piece


def read_bounded(answer: Any, most: int, what: str) -> bytes:
    """Return the body of an HTTP answer. Raises NetworkTrouble if it is larger, or comes too slowly."""
    body = bytearray()
    for piece in pieces_of(answer, what):
        body += piece
        if len(body) > most:
            message = f"{what}: more than {most >> 20} MiB, which no such answer has"
            raise NetworkTrouble(message, hint="check HF_ENDPOINT")
    return bytes(body)

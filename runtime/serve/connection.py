"""A connection of uvicorn that ends where its client is too slow to be served."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0
"""That the head of a request may take, from the connection or the first byte of the head on."""


class Connection(H11Protocol):
    """A connection that bounds what neither uvicorn nor the application does: heads that do not arrive, and answers
    that nobody takes. It ends without an answer, since the client would not read one.

    most: connections at once. seconds: for the client to take what was sent; heads get them if they are fewer than
    HEAD_SECONDS.
    """

    most: int
    seconds: float
    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # writing pauses whenever anything waits, until nothing does
        if len(self.connections) > self.most:
            transport.abort()
        else:
            self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def _watch_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            _stop(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(min(self.seconds, HEAD_SECONDS), self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _stop(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        _stop(self._head)
        _stop(self._unread)
        super().connection_lost(exc)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

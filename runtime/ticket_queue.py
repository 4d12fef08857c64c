"""Requests that wait for a model: tickets in a queue in which clients take turns."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable

from tritpack.formats.errors import TritpackError
from tritpack.runtime.continuation import Continuation, GeneratedToken, Generation

OnToken = Callable[[GeneratedToken], object]
OnEnd = Callable[["Generation | Exception"], object]


class QueueFull(TritpackError):
    """More requests wait than the limit allows. retry_after: seconds after which one may have been served."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting already", hint=f"try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class Closed(TritpackError):
    """The scheduler takes no more requests."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class Ticket:
    """A request that was handed in."""

    def __init__(self, continuation: Continuation, client: str, on_token: OnToken, on_end: OnEnd) -> None:
        self.continuation, self.client, self.on_token, self.on_end = continuation, client, on_token, on_end
        self.cancelled = False
        self.began = time.monotonic()

    def cancel(self) -> None:
        """Stop after the pass at hand, which is one token or a piece of the prompt; `on_end` gets what was written,
        with the stop reason "cancelled"."""
        self.cancelled = True


class FairQueue:
    """Tickets by client: clients take turns, and each one's tickets keep their order."""

    def __init__(self) -> None:
        self._clients: collections.OrderedDict[str, collections.deque[Ticket]] = collections.OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, ticket: Ticket) -> None:
        self._clients.setdefault(ticket.client, collections.deque()).append(ticket)
        self._length += 1

    def get(self) -> Ticket:
        """The next ticket. IndexError if there is none."""
        if not self._clients:
            raise IndexError("the queue is empty")
        client, tickets = self._clients.popitem(last=False)
        ticket = tickets.popleft()
        if tickets:
            self._clients[client] = tickets  # behind the others
        self._length -= 1
        return ticket

    def take_cancelled(self) -> list[Ticket]:
        """Take out the tickets that nobody waits for: they would keep others out of a full queue."""
        gone = [ticket for tickets in self._clients.values() for ticket in tickets if ticket.cancelled]
        for ticket in gone:
            self._clients[ticket.client].remove(ticket)
            if not self._clients[ticket.client]:
                del self._clients[ticket.client]
        self._length -= len(gone)
        return gone

"""Server-sent events of a run, which is closed however the stream ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tritpack.runtime.serve.api_errors import ApiError, event_of

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies may hold nothing back


class EventStream(StreamingResponse):
    """A stream of events. events: texts of whole events; close: called at the end, also when the client has gone."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None], path: str) -> None:
        super().__init__(_with_errors(events, path), headers=HEADERS, media_type="text/event-stream")
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _with_errors(events: AsyncIterator[str], path: str) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield event
    except ApiError as error:
        yield event_of(error, path)

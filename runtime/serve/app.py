"""The ASGI application: which path is answered by whom, and what every request passes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from tritpack.runtime.serve import server_info
from tritpack.runtime.serve.access import Access
from tritpack.runtime.serve.anthropic_messages import count_tokens, messages
from tritpack.runtime.serve.api_errors import ApiError, too_busy
from tritpack.runtime.serve.backend import Backend
from tritpack.runtime.serve.json_fields import Fields, parse_body
from tritpack.runtime.serve.metrics import CountRequests
from tritpack.runtime.serve.openai_chat import chat_completions
from tritpack.runtime.serve.openai_completions import completions
from tritpack.runtime.serve.openai_responses import responses
from tritpack.runtime.serve.text_endpoints import detokenize, embeddings, tokenize

Endpoint = Callable[[HttpRequest, Fields, Backend], Awaitable[Response]]
Getter = Callable[[Backend], Awaitable[Response]]

POSTS: dict[str, Endpoint] = {
    "/v1/chat/completions": chat_completions,
    "/v1/completions": completions,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/messages/count_tokens": count_tokens,
    "/v1/embeddings": embeddings,
    "/tokenize": tokenize,
    "/detokenize": detokenize,
}
GETS: dict[str, Getter] = {
    "/v1/models": server_info.models,
    "/props": server_info.props,
    "/metrics": server_info.metrics,
}
PAGE = Path(__file__).resolve().parents[1] / "web" / "page"
"""The chat page, where it is installed."""
BESIDE = 32
"""Requests that may be there besides those that the scheduler serves and queues: bodies that arrive, and short ones."""
CLIENT_GONE = 499
"""Status of an answer that nobody waits for; nginx counts it so."""

log = logging.getLogger("tritpack.serve")


def make_app(backend: Backend) -> Starlette:
    """Return the application. It closes the backend when it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(backend.close)

    routes: list[BaseRoute] = []
    routes += [Route(path, _post(endpoint, backend), methods=["POST"]) for path, endpoint in POSTS.items()]
    routes += [Route(path, _get(endpoint, backend)) for path, endpoint in GETS.items()]
    routes += [Route("/health", server_info.health), Route("/v1/models/{name:path}", _model(backend))]
    page_paths = []
    if PAGE.is_dir():
        page_paths = ["/", *(f"/{path.relative_to(PAGE).as_posix()}" for path in PAGE.rglob("*") if path.is_file())]
        # One route per file: a mount at / would also answer what is asked of the other paths with a wrong method.
        page = StaticFiles(directory=PAGE, html=True)
        routes += [Route(path, page, methods=["GET", "HEAD"]) for path in page_paths]
    settings = backend.settings
    middleware = [
        Middleware(Deadline, seconds=3 * settings.timeout),
        Middleware(CountRequests, metrics=backend.metrics, paths=[*POSTS, *GETS, "/health", *page_paths]),
        *([_cors(settings.cors)] if settings.cors else []),
        Middleware(Access, settings=settings, open_paths=["/health", *page_paths]),
        Middleware(Crowd, most=settings.slots + backend.scheduler.queue_limit + BESIDE),
    ]
    handlers: dict[Any, Any] = {ApiError: _api_error, HTTPException: _http_error, Exception: _bug}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)


def _cors(origins: Sequence[str]) -> Middleware:
    return Middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"], max_age=3600
    )


class Deadline:
    """ASGI middleware that ends a request that lasts beyond all other limits, since its client sends or reads just fast
    enough for them; connection.py ends the others."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with anyio.move_on_after(self._seconds):
            await self._app(scope, receive, send)


class Crowd:
    """ASGI middleware that refuses a POST before its body is read where too many are there: memory is bounded so."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most, self._count = app, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._count >= self._most:
            await too_busy(5.0).response(scope["path"])(scope, receive, send)
            return
        self._count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._count -= 1


def _post(endpoint: Endpoint, backend: Backend) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def answer(request: HttpRequest) -> Response:
        try:
            body = await _body(request, backend)
            fields = parse_body(body)
            if backend.settings.log_requests:
                log.info("%s %s", request.url.path, json.dumps(fields.values))  # ASCII: it cannot control a terminal
            response = await _while_connected(request, endpoint(request, fields, backend))
        except ClientDisconnect:
            response = None
        return Response(status_code=CLIENT_GONE) if response is None else response

    return answer


async def _while_connected(request: HttpRequest, answer: Awaitable[Response]) -> Response | None:
    """Await the answer to a request whose body was read, and cancel it when the client goes away; None then."""
    task, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: HttpRequest, backend: Backend) -> bytes:
    """The body of a request. Raises ApiError for one that is too large, or too slow."""
    limit = backend.settings.body_limit
    too_large = ApiError(f"the body has more than {limit} bytes", status=413, code="body_too_large")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    data = bytearray()
    with anyio.move_on_after(backend.settings.timeout) as scope:
        async for piece in request.stream():
            data += piece
            if len(data) > limit:
                raise too_large
    if scope.cancelled_caught:
        raise ApiError("the body did not arrive in time", status=408, code="timeout")
    return bytes(data)


def _get(endpoint: Getter, backend: Backend) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def answer(request: HttpRequest) -> Response:
        return await endpoint(backend)

    return answer


def _model(backend: Backend) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def answer(request: HttpRequest) -> Response:
        return server_info.model(backend, request.path_params["name"])

    return answer


async def _api_error(request: HttpRequest, error: ApiError) -> Response:
    return error.response(request.url.path)


async def _http_error(request: HttpRequest, error: HTTPException) -> Response:
    path = request.url.path
    sentences = {404: f"there is nothing at {path[:100]}", 405: f"{path[:100]} does not take {request.method}"}
    message = sentences.get(error.status_code, error.detail)
    return ApiError(message, status=error.status_code, headers=error.headers).response(path)


async def _bug(request: HttpRequest, error: Exception) -> Response:
    message = "this is a bug in tritpack; the server's log has the traceback"
    return ApiError(message, status=500).response(request.url.path)

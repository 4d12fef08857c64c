"""Who may call: API keys, and what a browser may not do in the name of a foreign page."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tritpack.runtime.serve.api_errors import ApiError
from tritpack.runtime.serve.limits import Settings

KEY_INDEX = "tritpack.key_index"
"""In the scope of a request: which of the keys its client sent, None for none."""


class Access:
    """ASGI middleware that lets a request pass or answers it.

    With keys, every path needs one but `open_paths`. Without keys a server on the loopback address checks instead that
    the Host header is a name of this machine: the owner of a domain can let its name point to 127.0.0.1 while a page of
    it is open (DNS rebinding), and that page could then read every answer as one of its own. And a page of another
    origin that was not named with --cors is refused: a browser would keep the answer from it, and compute it anyway.
    """

    def __init__(self, app: ASGIApp, settings: Settings, open_paths: Iterable[str]) -> None:
        self._app, self._settings, self._open = app, settings, frozenset(open_paths)
        self._keys = [key.encode("utf-8") for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            scope[KEY_INDEX] = self._key_index(headers)
            if error := self._refusal(scope, headers):
                await error.response(scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> ApiError | None:
        if self._keys:
            if scope["path"] in self._open or scope[KEY_INDEX] is not None:
                return None
            challenge = {"WWW-Authenticate": "Bearer"}
            message = "the API key is missing or wrong: send it as Authorization: Bearer KEY, or as x-api-key"
            return ApiError(message, status=401, code="invalid_api_key", headers=challenge)
        host = headers.get("host", "")
        if self._settings.loopback and not is_loopback(_hostname(f"//{host}") or ""):
            message = f"the Host header {host[:100]!r} is not a name of this machine: use localhost, or an API key"
            return ApiError(message, status=403, code="unknown_host")
        origin = headers.get("origin")
        named = origin in self._settings.cors or "*" in self._settings.cors
        if origin is None or named or origin.partition("://")[2].lower() == host.lower():
            return None
        message = f"pages of {origin[:100]!r} may not call this server: it was not started with --cors and that origin"
        return ApiError(message, status=403, code="foreign_origin")

    def _key_index(self, headers: Headers) -> int | None:
        """Which of the keys was sent."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip(" \t") if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        data = given.encode("latin-1")  # the bytes that were sent
        equal = [hmac.compare_digest(data, key) for key in self._keys]  # all, so that the time tells nothing
        return equal.index(True) if any(equal) else None


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None

"""A file at an http or https address, of which parts are read by range requests.

No token is sent, and no more is read than was asked for. Redirects are followed to http and https alone.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import urllib.request
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from tritpack.converter.sources.hub_transfer import PATIENCE, pieces_of, within
from tritpack.converter.sources.range_file import check_size
from tritpack.converter.version import VERSION
from tritpack.formats.errors import IntegrityFailed, NetworkTrouble, TritpackError, Unreadable, UsageError

FIRST_BYTES = 1 << 20
"""Bytes of the first request, whose answer also says how large the file is: most headers are shorter."""
MOST_BYTES = 256 << 20
"""Bytes that are read of one file: headers of the largest vocabularies take 20 MB."""
PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP statuses after which the same call may succeed later."""
ADDRESS = re.compile(r"https?://[^/\s]+/\S*", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Return whether a text is an http or https address of a file."""
    return ADDRESS.fullmatch(text) is not None


class UrlFile:
    """A file at an address. name, shown, size: see RangeFile.

    Opening reads its first bytes. Raises UsageError for an address that cannot be one, Unreadable for what is not
    there or not shown, NetworkTrouble also for a server that does not send parts of a file.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UsageError(f"is not an address: {error}", path=url.partition("?")[0]) from error
        if parts.username is not None or parts.password is not None:
            raise UsageError("an address with a name or password is not read", hint="fetch the file, and give its path")
        self._url = url
        self.shown = f"{parts.scheme}://{parts.netloc}{parts.path}"  # what follows may be a signature
        self.name = PurePosixPath(unquote(parts.path)).name
        self.size = 0
        self._read = 0
        self._etag: str | None = None
        self._first = self._request(0, FIRST_BYTES)

    def read(self, first: int, last: int) -> bytes:
        """Return bytes [first, last). Raises NetworkTrouble, IntegrityFailed if the file changes meanwhile."""
        if last <= len(self._first):
            return self._first[first:last]
        kept = self._first[first:]
        return kept + self._request(first + len(kept), last)

    def _request(self, first: int, last: int) -> bytes:
        self._read += last - first
        if self._read > MOST_BYTES:
            raise Unreadable(f"its headers take more than {MOST_BYTES >> 20} MiB", path=self.shown)
        try:
            with contextlib.closing(within(2 * PATIENCE, lambda: self._open(first, last), self.shown)) as answer:
                wanted = min(last, self._check(answer, first)) - first
                body = bytearray()
                for piece in pieces_of(_Pieces(answer), self.shown):
                    body += piece
                    if len(body) > wanted:
                        message = f"the server sends more than the {wanted} bytes that it announced"
                        raise IntegrityFailed(message, path=self.shown)
        except TritpackError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._explained(error) from error
        if len(body) < wanted:
            message = f"the connection ended after {len(body)} of {wanted} bytes"
            raise NetworkTrouble(message, path=self.shown, hint="try again later")
        return bytes(body)

    def _open(self, first: int, last: int) -> Any:
        headers = {
            "User-Agent": f"tritpack/{VERSION}", "Accept-Encoding": "identity", "Range": f"bytes={first}-{last - 1}",
        }  # fmt: skip
        return _opener().open(urllib.request.Request(self._url, headers=headers), timeout=PATIENCE)

    def _check(self, answer: Any, first: int) -> int:
        """Check the headers of an answer, and return the size of the file."""
        sent = re.fullmatch(r"bytes ([0-9]{1,20})-[0-9]+/([0-9]{1,100})", answer.headers.get("Content-Range") or "")
        if answer.status != 206 or sent is None or int(sent[1]) != first:
            hint = "fetch the whole file, and give its path"
            message = f"the server does not send parts of the file (HTTP {answer.status} to a range request)"
            raise NetworkTrouble(message, path=self.shown, hint=hint)
        etag, size = answer.headers.get("ETag"), int(sent[2])
        check_size(size, self.shown)
        if self.size and (size, etag) != (self.size, self._etag):
            raise IntegrityFailed("was changed on the server while it was read", path=self.shown, hint="run this again")
        self.size, self._etag = size, etag
        return size

    def _explained(self, error: Exception) -> TritpackError:
        if isinstance(error, HTTPError):
            if error.code in (404, 410):
                return Unreadable(f"is not there (HTTP {error.code})", path=self.shown, hint="check the address")
            if error.code == 416:
                return Unreadable("is empty (HTTP 416 to a range request)", path=self.shown)
            if 300 <= error.code < 400:
                return NetworkTrouble(_redirected(error), path=self.shown, hint="check the address")
            if error.code not in PASSING:
                return Unreadable(f"the server refused it (HTTP {error.code})", path=self.shown)
            message = f"the server answered HTTP {error.code}"
            return NetworkTrouble(message, path=self.shown, hint="try again later")
        reason = error.reason if isinstance(error, URLError) else error
        message = f"the connection failed: {str(reason)[:200] or type(reason).__name__}"
        return NetworkTrouble(message, path=self.shown, hint="check the address, the network and the proxy")


def _redirected(error: HTTPError) -> str:
    """Return what is wrong with a redirect that was not followed, without its address, which may hold a signature."""
    if (scheme := urlsplit(error.url or "").scheme.lower()) not in ("", "http", "https"):
        return f"the server redirects to an address of {scheme[:20]}:, which is not read"
    return f"the server redirects without end, or to nowhere (HTTP {error.code})"


class _Pieces:
    """The body of an answer, as hub_transfer reads it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def iter_bytes(self) -> Iterator[bytes]:
        while piece := self._answer.read1(1 << 16):
            yield piece


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens addresses: no file:, no ftp:, no cookies; the environment's proxies are used."""
    opener = urllib.request.OpenerDirector()
    handlers = (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _WebRedirects,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler,
    )  # fmt: skip
    for handler in handlers:
        opener.add_handler(handler())
    return opener


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme.lower() not in ("http", "https"):
            raise URLError(f"it redirects to {newurl[:80]!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

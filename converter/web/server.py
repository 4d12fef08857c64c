"""A web server for the folder of `tritpack web`, to look at it on this machine."""

from __future__ import annotations

import functools
import socket
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tritpack.formats.errors import UsageError

TYPES = {
    **SimpleHTTPRequestHandler.extensions_map,
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


class Handler(SimpleHTTPRequestHandler):
    """Serves files, with the headers that let a page have threads."""

    protocol_version = "HTTP/1.1"
    extensions_map = TYPES

    def do_GET(self) -> None:
        """Answer with a file, but for the service worker: the headers are here already, and an address that shows one
        model today and another tomorrow must not keep a page."""
        if self.path.partition("?")[0] == "/sw.js":
            self.send_error(404)
        else:
            super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing per request."""


def server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server that listens; its serve_forever answers. port: 0 takes a free one. Raises UsageError."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        kind = type("Server", (ThreadingHTTPServer,), {"address_family": family})
        made: ThreadingHTTPServer = kind(address[:2], functools.partial(Handler, directory=str(folder)))
    except UnicodeError as error:  # an empty or too long part of the name
        raise UsageError(f"cannot listen on {host[:100]!r}: it is neither a host name nor an address") from error
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="give another --port, or 0 for a free one",
        ) from error
    made.daemon_threads = True
    return made

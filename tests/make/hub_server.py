"""A small hub of ours on 127.0.0.1, speaking what the real client asks for, with faults to order.

As on the real one, large files (LFS) are answered with a redirect to another origin, which here is a second name and
port: a client must not carry its token there. Nothing is kept beyond the `with` block.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.make.hub_files import LARGE, StoredFile, info, stored, tree
from tests.make.hub_uploads import Uploads


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    token: str | None
    elsewhere: bool  # at the second port, where large files lie


class HubServer:
    """`repos`: name -> folder, or name -> {revision: folder}. What a test may set before or during its requests:

    gated, private: repository -> the token that opens it
    cuts: file name -> for each of the next answers, the bytes after which the connection ends; a negative number
          resets it (RST) instead of closing it (FIN)
    corrupt: file names whose last byte is sent wrong
    failures: [part of a path, status, times]
    trickle, endless, silent: parts of paths whose answers come a byte at a time, never end, or never begin; a file of
          the second port goes by its name
    stalls: names of large files of which the next answer stops for a long time in the middle
    sizes: file name -> the size in the listing
    etags: file name -> for each of the next answers, its ETag; the last one stays
    whole: file names of which no parts are sent: the answer to a range request is the file, with 200
    shifted: file names whose answers to range requests say that they begin a byte later
    plain: files are listed by their names alone, as by a mirror; names: file name -> another name in the listing
    """

    def __init__(self, repos: Mapping[str, Path | Mapping[str, Path]]) -> None:
        self.gated: dict[str, str] = {}
        self.private: dict[str, str] = {}
        self.cuts: dict[str, list[int]] = {}
        self.corrupt: set[str] = set()
        self.failures: list[list[Any]] = []
        self.trickle: set[str] = set()
        self.endless: set[str] = set()
        self.silent: set[str] = set()
        self.stalls: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.etags: dict[str, list[str]] = {}
        self.whole: set[str] = set()
        self.shifted: set[str] = set()
        self.sent = 0
        """Bytes of large files that were sent."""
        self.plain = False
        self.names: dict[str, str] = {}
        self.requests: list[Request] = []
        self.snapshots: dict[tuple[str, str], tuple[str, dict[str, StoredFile]]] = {}
        for name, folders in repos.items():
            for revision, folder in ({"main": folders} if isinstance(folders, Path) else folders).items():
                paths = sorted(path for path in folder.rglob("*") if path.is_file())
                files = {path.relative_to(folder).as_posix(): stored(path) for path in paths}
                commit = hashlib.sha1("".join(n + f.sha256 for n, f in files.items()).encode()).hexdigest()
                self.snapshots[name, revision] = self.snapshots[name, commit] = (commit, files)
        self.large = {f.sha256: (n, f) for _, files in self.snapshots.values() for n, f in files.items()}
        self._servers = [_Server(("127.0.0.1", 0), self._handler(elsewhere)) for elsewhere in (False, True)]
        self.url = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.uploads = Uploads(self.url)
        self.large_url = f"http://localhost:{self._servers[1].server_port}"  # older clients tell hosts apart, not ports

    def __enter__(self) -> HubServer:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def files_asked(self) -> list[str]:
        """Names of the files that were asked for, in order, each once."""
        names = (request.path.partition("/resolve/")[2].partition("/")[2] for request in self.requests)
        return list(dict.fromkeys(name for name in names if name))

    def sent_ranges(self, name: str) -> list[str | None]:
        """The Range header of each GET of a large file's bytes."""
        paths = {f"/{sha256}" for sha256, (n, _) in self.large.items() if n == name}
        return [request.range for request in self.requests if request.elsewhere and request.path in paths]

    def _handler(self, elsewhere_: bool) -> type[BaseHTTPRequestHandler]:
        class Bound(_Handler):
            hub = self
            elsewhere = elsewhere_

        return Bound


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away in the middle is what some tests are about


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    elsewhere: bool
    named: str  # the path, or the name of a file at the second port
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"] or 0)))

    def do_PUT(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"] or 0)))

    def answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, path, self.headers["Range"], token, self.elsewhere))
        self.named = self.hub.large[path.strip("/")][0] if self.elsewhere else path
        if any(part in path for part in self.hub.silent):
            time.sleep(5)
            self.close_connection = True
            return None
        for failure in self.hub.failures:
            if failure[0] in path and failure[2] > 0:
                failure[2] -= 1
                return self.refuse(failure[1])
        if self.command == "POST":
            return self.hub.uploads.post(path, body, token, self.send_answer)
        if self.command == "PUT":
            return self.hub.uploads.put(path, body, self.send_answer)
        if self.hub.uploads.get(path, self.send_answer):
            return None
        if self.elsewhere:
            return self.send_file(*self.hub.large[path.strip("/")])
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        if found is None:
            return self.refuse(404)
        repo, revision = found[1], (api[3] or "main" if api else found[2])
        if repo not in {name for name, _ in self.hub.snapshots} or self.hub.private.get(repo, token) != token:
            return self.refuse(404 if token else 401, "RepoNotFound")
        if (repo, revision) not in self.hub.snapshots:
            return self.refuse(404, "RevisionNotFound")
        commit, files = self.hub.snapshots[repo, revision]
        if api:
            return self.send_json(tree(files) if api[2] == "tree" else info(repo, commit, files))
        if self.hub.gated.get(repo, token) != token:  # the list of a gated repository is open, its files are not
            return self.refuse(403 if token else 401, "GatedRepo")
        if found[3] not in files:
            return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        stored = files[found[3]]
        if not found[3].endswith(LARGE):
            return self.send_file(found[3], stored, {"X-Repo-Commit": commit, "ETag": f'"{stored.git}"'})
        linked = {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(len(stored.data))}
        self.send_head(302, 0, {**linked, "X-Repo-Commit": commit, "Location": f"{self.hub.large_url}/{stored.sha256}"})

    def send_head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    def send_answer(self, status: int, value: Any, code: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_head(
            status, len(body), {"Content-Type": "application/json", **({"X-Error-Code": code} if code else {})}
        )
        self.wfile.write(body)

    def send_json(self, value: Any) -> None:
        for sibling in value.get("siblings", ()) if isinstance(value, dict) else ():
            sibling["size"] = self.hub.sizes.get(sibling["rfilename"], sibling["size"])
            sibling["rfilename"] = self.hub.names.get(sibling["rfilename"], sibling["rfilename"])
            for key in ("size", "blobId", "lfs") if self.hub.plain else ():
                sibling.pop(key, None)
        body = json.dumps(value).encode()
        length = 1 << 40 if self.is_endless() else len(body)
        self.send_head(200, length, {"Content-Type": "application/json"})
        self.send_body(body)

    def is_endless(self) -> bool:
        return any(part in self.named for part in self.hub.endless)

    def send_body(self, body: bytes) -> None:
        """Send what is asked for, with the faults that are ordered."""
        if self.is_endless():
            while True:
                self.wfile.write(bytes(1 << 20))
        if not any(part in self.named for part in self.hub.trickle):
            self.wfile.write(body)
            return
        for byte in body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.2)

    def refuse(self, status: int, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"error": code or "no"}).encode() if self.command == "GET" else b""
        self.send_head(status, len(body), {**(headers or {}), **({"X-Error-Code": code} if code else {})})
        self.wfile.write(body)

    def send_file(self, name: str, stored: StoredFile, headers: Mapping[str, str] | None = None) -> None:
        data, first = stored.data, 0
        last = len(data)
        if name in self.hub.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        tags = self.hub.etags.get(name)
        etag = (
            (tags.pop(0) if len(tags) > 1 else tags[0]) if tags else (headers or {}).get("ETag", f'"{stored.sha256}"')
        )
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if name in self.hub.whole:
            wanted = None
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2]) + 1, last) if wanted[2] else last
        said_first = first + (name in self.hub.shifted)
        ranged = {"Content-Range": f"bytes {said_first}-{last - 1}/{len(data)}"} if wanted else {}
        length = 1 << 40 if self.is_endless() and self.command == "GET" else last - first
        said = {"Accept-Ranges": "bytes", "ETag": etag, **ranged, **(headers or {})}
        self.send_head(206 if wanted else 200, length, said)
        if self.command == "HEAD":
            return
        cuts = self.hub.cuts.get(name)
        if name in self.hub.stalls:
            self.hub.stalls.discard(name)
            self.wfile.write(data[first : (first + last) // 2])
            self.wfile.flush()
            time.sleep(5)
            self.close_connection = True
            return
        if not cuts:
            self.hub.sent += last - first  # before the client has them and asks
            self.send_body(data[first:last])
            return
        cut = cuts.pop(0)
        self.wfile.write(data[first : min(first + abs(cut), last)])
        self.wfile.flush()
        if cut < 0:
            time.sleep(0.1)  # a reset throws away what the client has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        self.close_connection = True

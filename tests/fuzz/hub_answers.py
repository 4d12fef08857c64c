"""A hub on this machine that answers with whatever an input says, in the process of the fuzzer.

The document: `info` is the answer to a question for a repository, `files` what each file holds, `headers` what is
added to or put in place of the headers of every answer, `status` the status by a part of the path.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.fuzz.inputs import content
from tritpack.converter.sources import hub
from tritpack.formats.errors import TritpackError

REPOSITORY = "some/model"
SLEEP = time.sleep


class _Handler(BaseHTTPRequestHandler):
    document: dict[str, Any]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 2

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path)
        name = path.partition("/resolve/")[2].partition("/")[2]
        files, status = self.part("files"), self.part("status")
        body = content(files.get(name, "")) if name else content(self.document.get("info"))
        codes = [code for part, code in status.items() if part in path and isinstance(code, int) and 200 <= code < 600]
        self.send_response(codes[0] if codes else 404 if name and name not in files else 200)
        etag = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        headers = {"Content-Length": len(body), "ETag": f'"{etag}"', "X-Repo-Commit": "c" * 40, "Connection": "close"}
        headers |= self.part("headers")
        for key, value in headers.items():
            line = str(value).replace("\r", " ").replace("\n", " ")
            if key.isascii() and key.replace("-", "").isalnum():
                self.send_header(key, line.encode("latin-1", "replace").decode("latin-1"))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def part(self, name: str) -> dict[str, Any]:
        value = self.document.get(name)
        return value if isinstance(value, dict) else {}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away


@functools.cache
def _start() -> None:
    """Start the server, and let the client find it before it is imported."""
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_TOKEN"):
        os.environ.pop(name, None)
    os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    time.sleep = lambda seconds: SLEEP(min(seconds, 0.001))  # the pauses between tries


def download(document: dict[str, Any], folder: Path) -> None:
    """Open a repository of this hub without its weights, and download it into an empty cache."""
    _start()
    from huggingface_hub import constants

    _Handler.document = document
    constants.HF_HUB_CACHE = str(folder / "hub")
    with contextlib.suppress(TritpackError):
        hub.open_remote(REPOSITORY)
    hub.download(REPOSITORY)


def seeds() -> dict[str, Any]:
    """A repository with a config, a tokenizer and weights, one with shards, and one with a GGUF file."""
    small = {"config.json": {"model_type": "llama"}, "tokenizer.json": {"model": {}}, "merges.txt": "a b"}
    weights = {"model.safetensors": {"header": {}, "bytes": 8}}
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    shards = dict.fromkeys(index["weight_map"].values(), weights["model.safetensors"])
    repositories = {
        "whole": {**small, **weights},
        "shards": {**small, "model.safetensors.index.json": index, **shards},
        "gguf": {"m.gguf": "GGUF"},
        "header": {**small, "model.safetensors": "\0\2\0\0\0\0\0\0\0{}"},
    }
    plain: dict[str, Any] = {"headers": {}, "status": {}}
    made = {name: {"info": _info(files), "files": files, **plain} for name, files in repositories.items()}
    part = {"headers": {"Content-Range": "bytes 0-9/10"}, "status": {"model.safetensors": 206}}
    return {**made, "part": made["header"] | part}


def _info(files: dict[str, Any]) -> dict[str, Any]:
    siblings = []
    for name, value in files.items():
        body = content(value)
        blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        lfs = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
        large = {"lfs": lfs} if name.endswith((".gguf", ".safetensors")) else {}
        siblings.append({"rfilename": name, "size": len(body), "blobId": blob, **large})
    return {"_id": "0", "id": REPOSITORY, "sha": "c" * 40, "private": False, "siblings": siblings, "tags": []}

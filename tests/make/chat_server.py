"""A server of the OpenAI protocol that repeats what it is told, with the page's files."""

from __future__ import annotations

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROPS = {"model_alias": "served", "chat_template": "{{ x }}", "default_generation_settings": {"n_ctx": 64}}


class ChatServer:
    """requests: the bodies that were posted. key: what a caller has to give."""

    def __init__(self, folder: Path, key: str) -> None:
        self.requests: list[dict[str, Any]] = []
        owner = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                if self.path != "/props":
                    super().do_GET()
                elif self.headers["Authorization"] != f"Bearer {key}":
                    self.answer(401, {"error": {"message": "no key"}})
                else:
                    settings = {"n_ctx": 64, "params": {"temperature": 0.25}}
                    self.answer(200, {**PROPS, "default_generation_settings": settings})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.requests.append(body)
                said = body["messages"][-1]["content"]
                if said == "fail":
                    self.answer(503, {"error": {"message": "the queue is full"}})
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for text in ("You ", "said: ", said):
                    self.event({"choices": [{"delta": {"content": text}, "finish_reason": None}]})
                self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                usage = {"prompt_tokens": 3, "completion_tokens": 5}
                self.event({"choices": [], "usage": usage, "timings": {"predicted_per_second": 12.5}})
                self.wfile.write(b"data: [DONE]\n\n")

            def event(self, document: dict[str, Any]) -> None:
                self.wfile.write(f"data: {json.dumps(document)}\r\n\r\n".encode())

            def answer(self, status: int, document: dict[str, Any]) -> None:
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

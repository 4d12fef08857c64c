"""A server in a thread of the tests, and requests to it without anybody's client."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tritpack.runtime.model import Model
    from tritpack.runtime.serve.listen import Server

PACKAGES = ("starlette", "uvicorn", "prometheus_client")


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to a request: its status, headers in lower case, and body."""

    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def events(self) -> list[Any]:
        """The data of each server-sent event, the closing mark left out."""
        lines = [line[6:] for line in self.data.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


@dataclasses.dataclass(frozen=True)
class Running:
    """A server that answers. address: host and port."""

    server: Server
    address: tuple[str, int]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    @property
    def model(self) -> Model:
        return self.server.backend.model

    def figure(self, name: str) -> float:
        """Return a figure of /metrics, 0 if it is not there yet."""
        lines = self.ask("/metrics").data.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)

    def wait_for(self, name: str, value: float) -> float:
        """Return a figure once it is at least `value`, or what it is after some seconds."""
        for _ in range(200):
            if (figure := self.figure(name)) >= value:
                break
            time.sleep(0.05)
        return figure

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=60)

    def ask(self, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> Answer:
        """Send a request. body: bytes as they are, anything else as JSON; without one it is a GET."""
        with contextlib.closing(self.connect()) as connection:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method or ("GET" if body is None else "POST"), path, data, named)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@contextlib.contextmanager
def serving(
    path: Path,
    *,
    slots: int = 4,
    queue_limit: int = 64,
    context: int | None = None,
    about: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """Serve a file in a thread with the reference's cache, whose bits are those of Model."""
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} (extra `serve`) is not installed")
    from tritpack.runtime.model import Model
    from tritpack.runtime.scheduler import Scheduler
    from tritpack.runtime.serve.backend import Backend
    from tritpack.runtime.serve.limits import Settings
    from tritpack.runtime.serve.listen import Server, listening

    ready = threading.Event()
    with Model(path, context=context, threads=1) as model, listening("127.0.0.1", 0) as listener:
        chosen = Settings(**{"name": path.stem, "slots": slots, "timeout": 60.0, **settings})
        backend = Backend(model, Scheduler(model, slots=slots, queue_limit=queue_limit), chosen, about)
        server = Server(backend, on_ready=lambda *address: ready.set())
        thread = threading.Thread(target=server.run_on, args=(listener,))
        address = listener.getsockname()
        thread.start()
        try:
            assert ready.wait(30), "the server does not start"
            yield Running(server, address)
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the server does not end"

"""`tritpack serve`: open a model and a socket, and answer until a signal ends it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from tritpack.formats.errors import UsageError
from tritpack.runtime.machine import usable_cores
from tritpack.runtime.model import Model
from tritpack.runtime.scheduler import Scheduler
from tritpack.runtime.serve.access import is_loopback
from tritpack.runtime.serve.app import make_app
from tritpack.runtime.serve.backend import Backend
from tritpack.runtime.serve.connection import Connection
from tritpack.runtime.serve.limits import Settings

BACKLOG = 2048
SPARE_CONNECTIONS = 800
"""Besides those whose requests are served or wait; most systems let a process have 1024 open files."""
DRAIN_SECONDS = 30
"""What running answers get when a signal ends the server."""
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(message)s", "datefmt": "%H:%M:%S"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"}},
    "loggers": {
        "uvicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "tritpack": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "asyncio": {"level": "ERROR"},  # it warns of every client that hangs up
    },
}
"""One line per request, with method, path and status: nothing of what was said."""


def serve(
    file: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: Sequence[str] = (),
    alias: str | None = None,
    parallel: int = 4,
    queue_limit: int = 64,
    body_limit: int = 4 << 20,
    timeout: float = 600.0,
    cors: Sequence[str] = (),
    log_requests: bool = False,
    threads: int | None = None,
    isa: str | None = None,
    kv_type: str = "i16",
    context: int | None = None,
    no_mmap: bool = False,
    draft: str = "lookup",
    about: Mapping[str, Any] | None = None,
    on_ready: Callable[[str, int, str], object] = lambda host, port, name: None,
) -> None:
    """Answer HTTP requests with the model in a file until SIGTERM or SIGINT; running answers then get 30 seconds.

    port: 0 takes a free one. api_key: keys that clients may send; none lets everybody in. alias: the model's name;
    None takes the file's. parallel: answers that are written at once. queue_limit: requests that may wait besides.
    body_limit: bytes of a request. timeout: seconds for a request to arrive, and again for its answer. cors: origins of
    web pages that may call, `*` for any. log_requests: log what is asked, too. about: what /props says of the file
    besides. on_ready: called with host, port and name when requests are answered. The others are those of Model.
    Raises UsageError for an address that cannot be used, and what Model raises.
    """
    if not all(api_key):
        raise UsageError("an API key is empty, which would let everybody in", hint="leave --api-key out for that")
    with (
        listening(host, port) as listener,
        Model(
            file,
            threads=threads,
            isa=isa,
            kv_type=kv_type,
            context=context,
            no_mmap=no_mmap,
            draft=draft,
            sequences=parallel,
        ) as model,  # fmt: skip
    ):
        settings = Settings(
            name=alias or Path(file).stem, api_keys=tuple(api_key), cors=tuple(cors), loopback=is_loopback(host),
            timeout=timeout, body_limit=body_limit, slots=parallel, log_requests=log_requests,
        )  # fmt: skip
        about = {"threads": threads or usable_cores(), "kv_type": kv_type, **(about or {})}
        with Scheduler(model, slots=parallel, queue_limit=queue_limit, speculation=model.speculation) as scheduler:
            Server(Backend(model, scheduler, settings, about), on_ready).run_on(listener)


class Server(uvicorn.Server):
    """uvicorn with one application, on a socket that listens already.

    A signal lets the scheduler finish what runs; a second one ends the server at once.
    """

    def __init__(
        self, backend: Backend, on_ready: Callable[[str, int, str], object] = lambda host, port, name: None
    ) -> None:
        self.backend, self._on_ready = backend, on_ready
        settings, waiting = backend.settings, backend.scheduler.queue_limit
        limits = {"seconds": settings.timeout, "most": settings.slots + waiting + SPARE_CONNECTIONS}
        config = uvicorn.Config(
            make_app(backend),
            http=type("LimitedConnection", (Connection,), limits),
            log_config=LOGGING,
            ws="none",
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=DRAIN_SECONDS + 5,
        )
        super().__init__(config)

    def run_on(self, listener: socket.socket) -> None:
        """Answer until a signal comes, or `should_exit` is set."""
        try:
            self.run(sockets=[listener])
        except (KeyboardInterrupt, SystemExit):  # uvicorn raises a signal again after it has ended in good order
            if not (self.started and self.should_exit):
                raise
        finally:
            self.backend.close()  # also after a second signal: the model must not be freed before its thread ends

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        address = sockets[0].getsockname()
        self._on_ready(address[0], address[1], self.backend.settings.name)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = threading.Thread(target=self.backend.scheduler.close, args=(DRAIN_SECONDS,), daemon=True)
        draining.start()
        await super().shutdown(sockets)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens. port: 0 takes a free one. Raises UsageError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except UnicodeError as error:  # an empty or too long part of the name
        raise UsageError(f"cannot listen at {host[:100]!r}: it is neither a host name nor an address") from error
    except OSError as error:
        hint = "--port 0 takes a free port" if port else None
        raise UsageError(f"cannot listen at {host}, port {port}: {error.strerror or error}", hint=hint) from error
    with listener:
        yield listener

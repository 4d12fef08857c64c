"""Connections whose clients are too slow, or too many."""

from __future__ import annotations

import contextlib
import http.client
import socket
from pathlib import Path

import pytest

from tests.make.server import serving


def test_slow_connections_end(demo_gguf: Path) -> None:
    whole, part = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: local"
    with serving(demo_gguf, timeout=0.3) as running:
        for before, sent in ((b"", b""), (b"", part), (whole, part)):
            with contextlib.closing(socket.create_connection(running.address, timeout=10)) as slow:
                slow.sendall(before)
                answer = b""
                while before and b'{"status":"ok"}' not in answer:
                    answer += slow.recv(1000)
                slow.sendall(sent)
                with contextlib.suppress(ConnectionResetError):
                    assert slow.recv(1000) == b"", sent


def test_a_client_that_does_not_read_is_cut_off(demo_gguf: Path) -> None:
    path = f"/v1/models/{'x' * 10_000}"
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with serving(demo_gguf, timeout=0.3) as running, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(running.address)
        deaf.settimeout(10)
        with pytest.raises(ConnectionError):
            while True:  # one request after the other, none of whose answers is read
                deaf.sendall(head)


def test_only_so_many_connections_are_open(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tritpack.runtime.serve import listen

    monkeypatch.setattr(listen, "SPARE_CONNECTIONS", 0)
    with serving(demo_gguf, slots=1, queue_limit=2) as running, contextlib.ExitStack() as stack:
        first = [stack.enter_context(contextlib.closing(running.connect())) for _ in range(3)]
        for connection in first:
            connection.connect()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            running.ask("/health")
        first[0].request("GET", "/health")
        assert first[0].getresponse().status == 200

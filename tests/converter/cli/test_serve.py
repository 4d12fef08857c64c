"""`tritpack serve` as a process: its address, its end, and what it says of itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, exit_code_of, program, run
from tests.make.server import PACKAGES
from tritpack.formats.names import ExitCode

for package in PACKAGES:
    pytest.importorskip(package, reason=f"{package} (extra `serve`) is not installed")
LONG = json.dumps({"prompt": "Once upon a time", "max_tokens": 900, "temperature": 0}).encode()


@contextlib.contextmanager
def started(file: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process on a free port, and the first line that it prints."""
    command = [sys.executable, "-m", "tritpack", "serve", str(file), "--port", "0", *options]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_after_the_answers(demo_gguf: Path, number: signal.Signals) -> None:
    with started(demo_gguf, "--json", "--alias", "fairy", "-t", "1") as (process, line):
        about = json.loads(line + "".join(iter(process.stdout.readline, "}\n")) + "}")  # type: ignore[union-attr]
        assert about["schema"] == "tritpack.serve/1" and about["model"] == "fairy"
        assert about["url"] == f"http://127.0.0.1:{about['port']}"
        with contextlib.closing(connect(about["port"])) as whole, contextlib.closing(connect(about["port"])) as cut:
            whole.request("POST", "/v1/completions", LONG)
            answer = json.loads(whole.getresponse().read())["choices"][0]["text"]
            cut.request("POST", "/v1/completions", LONG)
            time.sleep(0.1)
            process.send_signal(number)
            assert json.loads(cut.getresponse().read())["choices"][0]["text"] == answer
        assert process.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            connect(about["port"]).request("GET", "/health")
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_the_address_is_printed_and_the_key_may_come_from_the_environment(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITPACK_SERVE_API_KEY", "secret")
    with started(demo_gguf) as (_, line):
        assert line.startswith("demo answers at http://127.0.0.1:") and line.endswith(" (Ctrl-C ends it)\n")
        port = int(line.split()[3].rpartition(":")[2])
        for headers, status in (({}, 401), ({"Authorization": "Bearer secret"}, 200)):
            with contextlib.closing(connect(port)) as connection:
                connection.request("GET", "/v1/models", headers=headers)
                assert connection.getresponse().status == status, headers


def test_every_network_without_a_key_is_warned_of(demo_gguf: Path) -> None:
    with started(demo_gguf, "--host", "0.0.0.0") as (process, line):
        assert "http://0.0.0.0:" in line
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert "warning: 0.0.0.0 can be reached from other machines, and there is no --api-key" in errors


def test_what_cannot_be_served(demo_gguf: Path, tmp_path: Path) -> None:
    assert exit_code_of(run("serve", tmp_path / "none.gguf")) == ExitCode.UNREADABLE
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", demo_gguf, "--port", str(taken.getsockname()[1]))
    assert exit_code_of(result) == ExitCode.USAGE and "cannot listen at 127.0.0.1" in str(result.exception)
    empty = run("serve", demo_gguf, "--api-key", "")
    assert exit_code_of(empty) == ExitCode.USAGE and "API key is empty" in str(empty.exception)
    for host in ("no.such.host.invalid", "a..b", "x" * 64):
        result = run("serve", demo_gguf, "--host", host)
        assert exit_code_of(result) == ExitCode.USAGE and "cannot listen at" in str(result.exception), host


def test_a_missing_package_is_named(demo_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(name='starlette')")
    done = program("serve", demo_gguf, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == ExitCode.MISSING
    assert "starlette is not installed" in done.stderr and 'hint: pip install "tritpack[serve]"' in done.stderr

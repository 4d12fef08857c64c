"""`verify FILE --engine PATH` with a small engine over our own runtime, which is right or wrong on purpose."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import REPOSITORY
from tests.converter.verify.engine.fake_engine import install
from tritpack.converter.cli.main import cli
from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.engine import command_line, mistakes, perplexity_tool, server
from tritpack.converter.verify.engine.answers import Answer, Run, as_answers, compare, too_few
from tritpack.converter.verify.engine.command_line import Choice, Question
from tritpack.converter.verify.engine.program import Deadline, EngineFailed, Running, open_program
from tritpack.converter.verify.engine.report import FILE_WRONG, OTHER_MODEL, RIGHT, EngineReport
from tritpack.converter.verify.engine.server import _Server
from tritpack.converter.verify.engine.verify_engine import verify_engine
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.model import Model

BY_TOKEN, IN_BATCH = "token by token", "prompt in one batch"
OK = b"HTTP/1.0 200 OK\r\n\r\n"
TOP = b'{"completion_probabilities":[{"top_logprobs":[{%s}]}]}'
SILU = "it computes SiLU instead of squared ReLU"


def ask(file: Path, folder: Path, *habits: str, name: str = "llama-server", timeout: float = 60) -> EngineReport:
    program = install(folder, name, REPOSITORY)
    return verify_engine(file, program, engine_arg=habits, engine_timeout=timeout, threads=1)


@pytest.fixture(autouse=True)
def _few_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "READ_AS", ())  # test_mistakes.py makes those, which take longer


def test_a_right_server_is_right(demo_gguf: Path, tmp_path: Path) -> None:
    """With the probabilities of servers before December 2024; float activations are a habit."""
    report = ask(demo_gguf, tmp_path, "--form", "old", "--habit", "float")
    assert report.verdict == RIGHT and report.conclusion == "file right, engine right"
    assert report.runs.keys() == {BY_TOKEN, IN_BATCH} and report.runs[BY_TOKEN].equal == report.runs[BY_TOKEN].positions
    assert 1e-6 < report.runs[BY_TOKEN].distance <= report.habit + 1e-6
    assert report.program is not None and report.program.version == "version: 1 (fake)"


def test_another_activation_function_is_named(demo_gguf: Path, tmp_path: Path) -> None:
    report = ask(demo_gguf, tmp_path, "--habit", "silu")
    assert report.verdict == OTHER_MODEL and report.reasons[0] == SILU
    assert report.mistakes[SILU] < 1e-6 < report.runs[BY_TOKEN].distance
    written = json.loads(json.dumps(report.as_json()))
    assert written["schema"] == "tritpack.verify-engine/1" and written["verdict"] == "other_model"


def test_a_server_that_crashes_on_the_way(demo_gguf: Path, tmp_path: Path) -> None:
    report = ask(demo_gguf, tmp_path, "--habit", "crash")
    for words in ("was ended by SIGABRT", "GGML_ASSERT(something) failed"):
        assert report.verdict == OTHER_MODEL and words in report.conclusion, words


def test_a_server_that_refuses_the_file(demo_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="ended with the status 1") as caught:
        ask(demo_gguf, tmp_path, "--habit", "refuse")
    assert "invalid ggml type 36" in (caught.value.hint or "")


def test_too_few_predictions_prove_nothing(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right where it answers, and silent elsewhere: exit code 4."""
    program = install(tmp_path, "llama-server", REPOSITORY)

    def conclude(by_token: int, batches: int) -> EngineReport:
        def runs(_: object, __: object, tokens: list[int], lengths: list[int], *rest: object) -> list[Run]:
            with Model(demo_gguf, threads=1) as model:
                right = as_answers(model.logits(tokens))
            first = Run(BY_TOKEN, right[:by_token], asked=len(tokens))
            return [first, Run(IN_BATCH, [right[n - 1] for n in lengths[:batches]], asked=len(lengths))]

        monkeypatch.setattr(server, "ask_server", runs)
        return verify_engine(demo_gguf, program, threads=1)

    assert conclude(28, 4).verdict == RIGHT
    report = conclude(20, 3)
    assert report.verdict == RIGHT and "no prediction of 8 of 28 tokens (token by token)" in report.notes[0]
    with pytest.raises(EngineFailed, match="not enough predictions: it predicted 1 of 28 tokens"):
        conclude(1, 1)
    with pytest.raises(EngineFailed, match=r"it predicted 0 of 5 tokens \(prompt in one batch\)"):
        conclude(28, 0)
    with pytest.raises(EngineFailed, match="gave no predictions: no answer has probabilities"):
        conclude(0, 0)


def test_predictions_without_a_clear_lead_prove_nothing() -> None:
    logits = np.zeros((2, 8), np.float32)
    run = Run(BY_TOKEN, as_answers(logits), asked=2)
    assert "clearly leads" in too_few([run], {BY_TOKEN: compare(run.answers, logits)})
    huge = Answer(1, np.arange(8), np.array([1e308, -1e308] * 4), (0,))
    assert compare([huge], logits).not_finite == 1


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"SSH-2.0-x\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}", "is not HTTP"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n", "HTTP status 302"),
        (OK + b"[" * 200000, "is not JSON"),
        (OK + TOP % b'"id":Infinity,"logprob":-1', "in an unknown form"),
        (OK + TOP % (b'"id":1,"logprob":-1' + b"0" * 400), "in an unknown form"),
        (OK + TOP % b'"id":99,"logprob":-1', "a token that the file does not have"),
        (OK + b" " * (9 << 20), "more than 8 MiB"),
        (b"", "closed the connection"),
        (None, "did not answer within"),
    ],
    ids=["other", "chunks", "redirect", "deep", "infinite", "digits", "token", "flood", "nothing", "drip"],
)
def test_what_a_server_answers_is_not_trusted(reply: bytes | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Server, "_ended_or", lambda server, how: server._running.failed(how))
    with answering(reply) as port, Running(["/bin/sleep", "30"]) as running:
        asked = _Server(running, port, 4, 8, dict, Deadline(0.5 if reply is None else 20))
        run = asked.run(BY_TOKEN, [1, 2], range(1, 3), keep_cache=True)
        assert not run.answers and told in run.failure, run
        if reply is None or reply.startswith(b"SSH"):
            with pytest.raises(EngineFailed, match=r"was not ready|does not answer as an HTTP server"):
                asked.wait_until_ready()


@contextlib.contextmanager
def answering(reply: bytes | None) -> Iterator[int]:
    """Answer every request with these bytes; with None, byte by byte without end."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                if reply is not None:
                    connection.sendall(reply)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1 << 16)
                while reply is None and not over.wait(0.05):
                    connection.sendall(OK if over.is_set() else b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port
        finally:
            over.set()
            socket.create_connection(("127.0.0.1", port)).close()
            thread.join()


def test_what_llama_perplexity_writes_is_not_trusted() -> None:
    def written(vocab: int, tokens: int) -> np.ndarray:
        sizes = np.array([4, vocab, 1], "<i4").tobytes()
        return np.frombuffer(b"_logits_" + sizes + bytes(4 * tokens) + bytes(2 * (4 + vocab)), np.uint8)

    assert len(perplexity_tool._read(written(8, 4), 8)[1]) == 1
    for data in (written(10, 4), written(8, 4)[:32]):
        with pytest.raises(ValueError):
            perplexity_tool._read(data, 8)


def test_llama_perplexity_whose_numbers_fail_in_batches(demo_gguf: Path, tmp_path: Path) -> None:
    report = ask(demo_gguf, tmp_path, "--habit", "nan-batch", name="llama-perplexity")
    assert report.verdict == OTHER_MODEL and "right token by token, and gives NaN" in report.reasons[0]
    assert report.runs[BY_TOKEN].positions == 15 and report.runs[BY_TOKEN].not_finite == 0
    assert report.runs[IN_BATCH].not_finite == 15


def test_a_program_that_gives_text_alone(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "MOST", 1)
    monkeypatch.setattr(command_line, "TOKENS", 1)
    report = ask(demo_gguf, tmp_path, "--habit", "silu", name="llama-completion")
    assert report.verdict == OTHER_MODEL and report.reasons[0] == SILU


def test_questions_tell_each_mistake_from_the_right_model(demo_gguf: Path) -> None:
    with Model(demo_gguf, threads=1) as model:
        tokens = model.tokenizer.encode(read_text(None)[:800])
        ours = Choice.of(model.logits(tokens))
        shifted = Choice(np.roll(ours.token, 1), ours.lead)
        asked = command_line.questions(model.tokenizer, tokens, ours, {"shifted": shifted, "same": ours}, 0.05)
    assert len(asked) == command_line.PER_MISTAKE
    assert not Question("a", "the", {"x": "then"}).tells("x"), "a longer word with the same beginning"
    for question in asked:
        assert question.others["shifted"] != question.expected == question.others["same"], question.prompt


def test_a_damaged_file_is_wrong_whatever_the_engine_says(demo_gguf: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    shutil.copy(demo_gguf, damaged)
    tensor = GgufFile(demo_gguf).tensors["blk.0.ffn_up.weight"]
    with open(damaged, "r+b") as file:
        file.seek(tensor.file_offset)
        file.write(b"\x00")
    report = ask(damaged, tmp_path)
    assert report.verdict == FILE_WRONG and "blk.0.ffn_up.weight" in report.findings[0]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_children_with_a_session_of_their_own_are_ended(tmp_path: Path) -> None:
    """One whose parent has ended, as of a program that makes itself a daemon."""
    told = tmp_path / "pid"
    child = f"import os, time; os.setsid(); open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script = f"import os\nif os.fork() == 0:\n    exec({child!r})"
    with Running([sys.executable, "-c", script]) as running:
        for _ in Deadline(20).ticks(0.02):
            if told.exists() and told.read_text():
                break
        assert running.wait(20) == 0
        child_pid = int(told.read_text())
        os.kill(child_pid, 0)  # it is there
    for _ in Deadline(5).ticks(0.02):
        if not is_running(child_pid):
            break
    assert not is_running(child_pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_path_that_is_no_engine_is_refused(demo_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a program"):
        verify_engine(demo_gguf, tmp_path / "llama-server")
    install(tmp_path, "llama-server", REPOSITORY).rename(tmp_path / "llama")
    (tmp_path / "llama-server").symlink_to("llama")  # one binary that is many programs, by name
    assert open_program(tmp_path / "llama-server", 20).path.name == "llama-server"
    other = tmp_path / "true"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    with pytest.raises(UsageError, match="is not llama-server, llama-cli or llama-perplexity"):
        verify_engine(demo_gguf, other)


def test_the_command(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nan_in_batches(_: object, arguments: list[str], tokens: list[int], *rest: object) -> list[Run]:
        assert arguments[-1] == "--flag"
        with Model(demo_gguf, threads=1) as model:
            right = as_answers(model.logits(tokens))
        return [Run(BY_TOKEN, right), Run(IN_BATCH, [dataclasses.replace(right[-1], values=right[-1].values * np.nan)])]

    monkeypatch.setattr(server, "ask_server", nan_in_batches)
    program = install(tmp_path, "llama-server", REPOSITORY)
    result = CliRunner().invoke(cli, ["verify", str(demo_gguf), "--engine", str(program), "--engine-arg=--flag"])
    assert result.exit_code == 4 and "gives NaN" in result.stdout.splitlines()[-1], result.output
    without = CliRunner().invoke(cli, ["verify", str(demo_gguf), "--engine-arg=x"])
    assert isinstance(without.exception, UsageError)

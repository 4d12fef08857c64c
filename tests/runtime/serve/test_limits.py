"""Limits of the server, and models that cannot do everything."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.make.checkpoints import edited_gguf
from tests.make.families import Checkpoints
from tests.make.server import PACKAGES, Running, serving
from tests.runtime.serve.test_http import CHAT, COMPLETIONS, GOOD, HELLO, MESSAGES, RESPONSES
from tritpack.converter.convert import convert
from tritpack.formats.errors import Unreadable
from tritpack.runtime.grammar import constraint_for

# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused(demo_gguf: Path) -> None:
    with serving(demo_gguf, body_limit=1000) as running:
        body = {**GOOD[CHAT], "user": "x" * 1000}
        assert running.ask(CHAT, body).json["error"]["code"] == "body_too_large"
        with contextlib.closing(running.connect()) as connection:  # in chunks, without a length
            connection.request("POST", MESSAGES, iter([b"{" + b" " * 600] * 2), {}, encode_chunked=True)
            answer = connection.getresponse()
            assert answer.status == 413 and json.loads(answer.read())["error"]["type"] == "request_too_large"
        assert running.ask(CHAT, GOOD[CHAT]).status == 200


def test_a_full_queue_is_announced(demo_gguf: Path) -> None:
    long = {"prompt": "Once upon a time", "max_tokens": 900, "temperature": 0}
    with serving(demo_gguf, slots=1, queue_limit=1) as running:
        connections = [running.connect() for _ in range(6)]
        for connection in connections:
            connection.request("POST", COMPLETIONS, json.dumps(long).encode())
        answers = [connection.getresponse() for connection in connections]
        bodies = [json.loads(answer.read()) for answer in answers]
        refused = [(answer, body) for answer, body in zip(answers, bodies) if answer.status == 429]
        assert 1 <= len(refused) <= 5
        for answer, body in refused:
            assert int(answer.headers["retry-after"]) >= 1 and body["error"]["code"] == "rate_limit_exceeded", body
        finished = {body["choices"][0]["text"] for answer, body in zip(answers, bodies) if answer.status == 200}
        assert len(finished) == 1
        for connection in connections:
            connection.close()
        many = running.ask(COMPLETIONS, {"prompt": ["The"] * 8, "max_tokens": 2, "temperature": 0})
        assert (
            many.status == 200 and len({choice["text"] for choice in many.json["choices"]}) == 1
        )  # one after the other


def test_a_list_that_is_half_done_ends_with_the_server(demo_gguf: Path) -> None:
    many = {"prompt": ["Once upon a time"] * 40, "max_tokens": 900, "temperature": 0}
    with serving(demo_gguf, slots=1) as running, contextlib.closing(running.connect()) as connection:
        connection.request("POST", COMPLETIONS, json.dumps(many).encode())
        assert running.wait_for("tritpack_slots_busy", 1) == 1
        closing = threading.Thread(target=running.server.backend.scheduler.close, args=(30,))
        closing.start()
        answer = connection.getresponse()
        assert answer.status == 503 and json.loads(answer.read())["error"]["code"] == "shutting_down"
        for path in (CHAT, COMPLETIONS, MESSAGES, RESPONSES, "/v1/embeddings"):
            late = running.ask(path, GOOD[path])
            assert late.status == 503 and "shutting down" in late.json["error"]["message"], path
        closing.join()


def test_a_crowd_is_refused_before_its_bodies_are_read(demo_gguf: Path) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    with serving(demo_gguf, slots=1, queue_limit=0) as running, contextlib.ExitStack() as stack:
        for _ in range(33):
            stack.enter_context(socket.create_connection(running.address)).sendall(head)
        for _ in range(100):  # until all of them are seen
            answer = running.ask(COMPLETIONS, GOOD[COMPLETIONS])
            if answer.status == 429:
                break
            time.sleep(0.02)
        assert answer.status == 429 and answer.headers["retry-after"] == "5"
        assert running.ask("/health").status == 200


def test_an_answer_ends_with_its_time(demo_gguf: Path) -> None:
    long = {"prompt": "Once upon a time", "max_tokens": 1000, "temperature": 0, "n": 8}
    with serving(demo_gguf, timeout=0.15, slots=8) as running:
        answer = running.ask(COMPLETIONS, long)
        assert answer.status in (200, 503)
        if answer.status == 200:
            assert {choice["finish_reason"] for choice in answer.json["choices"]} == {"length"}
            assert answer.json["usage"]["completion_tokens"] < 8000
        assert running.wait_for("tritpack_answers_cancelled_total", 1) >= 1
        figures = running.ask("/metrics").data.decode().splitlines()
        about = next(line for line in figures if line.startswith("# HELP tritpack_answers_cancelled"))
        assert "time limit" in about and "shut down" in about
        with contextlib.closing(socket.create_connection(running.address)) as slow:
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in slow.recv(100)


def test_whoever_hangs_up_without_a_stream_stops_the_answer(demo_gguf: Path) -> None:
    long = {"prompt": "Once upon a time", "max_tokens": 1000, "temperature": 0, "n": 4}
    with serving(demo_gguf) as running:
        connection = running.connect()
        connection.request("POST", COMPLETIONS, json.dumps(long).encode())
        time.sleep(0.1)
        assert connection.sock is not None
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        assert running.wait_for("tritpack_answers_cancelled_total", 4) == 4
        assert running.figure("tritpack_slots_busy") == 0


def test_a_server_that_does_not_start_leaves_no_thread(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} (extra `serve`) is not installed")
    from tritpack.runtime.serve import listen

    def fails(*_: object) -> None:
        raise Unreadable("a damaged vocabulary")

    monkeypatch.setattr(listen, "Backend", fails)
    before = set(threading.enumerate())
    with pytest.raises(Unreadable):
        listen.serve(demo_gguf, port=0)
    assert set(threading.enumerate()) <= before


# -- the work of one request ------------------------------------------------------------------------------------------


def test_a_request_gets_only_so_many_answers_and_scores(demo: Running) -> None:
    answer = demo.ask(COMPLETIONS, {"prompt": ["x"] * 65, "n": 2})
    assert answer.status == 400 and "at most 128 answers" in answer.json["error"]["message"]
    scored = {"prompt": [[5] * 200] * 128, "echo": True, "logprobs": 20, "max_tokens": 0}
    answer = demo.ask(COMPLETIONS, scored)
    assert answer.status == 400 and answer.json["error"]["param"] == "logprobs"
    assert "537600 log-probabilities" in answer.json["error"]["message"]


def test_a_schema_is_compiled_once_for_all_answers(demo: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    from tritpack.runtime.serve import backend

    compiled = []
    monkeypatch.setattr(backend, "constraint_for", lambda *a, **k: compiled.append(k) or constraint_for(*a, **k))
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    asked = {"messages": HELLO, "n": 8, "max_tokens": 40, "response_format": form, "temperature": 2}
    answers = [json.loads(choice["message"]["content"]) for choice in demo.ask(CHAT, asked).json["choices"]]
    assert len(compiled) == 1 and len(answers) == 8 and {answer["a"] for answer in answers} <= {1, 2}


def test_whoever_hangs_up_stops_the_preparation(demo: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from tritpack.runtime.serve.backend import Backend

    texts = []

    async def slow(self: Backend, text: str, param: str) -> list[int]:
        texts.append(text)
        await asyncio.sleep(0.05)
        return [5]

    monkeypatch.setattr(Backend, "text_ids", slow)
    begun = demo.server.backend.scheduler.statistics().requests
    with contextlib.closing(demo.connect()) as connection:
        connection.request("POST", COMPLETIONS, json.dumps({"prompt": ["x"] * 100}).encode())
        while not texts:
            time.sleep(0.01)
    assert demo.wait_for(f'tritpack_requests_total{{path="{COMPLETIONS}",status="499"}}', 1) == 1
    assert len(texts) < 100 and demo.server.backend.scheduler.statistics().requests == begun


# -- odd answers ------------------------------------------------------------------------------------------------------


def test_a_stop_sequence_is_named_after_bytes_that_are_no_text(demo: Running) -> None:
    hot = {"messages": HELLO, "max_tokens": 60, "temperature": 5, "top_p": 1}
    texts = ((seed, demo.ask(MESSAGES, {**hot, "seed": seed}).json["content"][0]["text"]) for seed in range(50))
    seed, text = next((seed, text) for seed, text in texts if "\ufffd" in text[:20])
    place = text.index("\ufffd") + 5
    stop = text[place : place + 4]
    answer = demo.ask(MESSAGES, {**hot, "seed": seed, "stop_sequences": ["never said", stop]}).json
    assert answer["content"][0]["text"] == text[: text.index(stop)] and "\ufffd" in text[: text.index(stop)]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", stop)


# -- other models ------------------------------------------------------------------------------------------------------


def test_a_base_model_continues_and_has_no_chat(demo_gguf: Path, tmp_path: Path) -> None:
    path = edited_gguf(demo_gguf, tmp_path / "base.gguf", metadata=lambda pairs: pairs.pop("tokenizer.chat_template"))
    with serving(path) as running:
        assert running.ask(COMPLETIONS, GOOD[COMPLETIONS]).status == 200
        for endpoint in (CHAT, RESPONSES, MESSAGES):
            answer = running.ask(endpoint, GOOD[endpoint])
            assert answer.status == 400 and "no chat template" in answer.json["error"]["message"], endpoint
        assert running.ask("/props").json["chat_template"] == ""


def test_an_embedding_model_embeds_and_does_not_write(checkpoints: Checkpoints, tmp_path: Path) -> None:
    from tritpack.runtime.model import Model

    path = tmp_path / "embedding.gguf"
    convert(checkpoints("embedding_qwen3").folder, path)
    with Model(path) as model:
        wanted = [model.embed(text) for text in ("A text.", "Another one.")]
    with serving(path) as running:
        answer = running.ask("/v1/embeddings", {"input": ["A text.", "Another one."]}).json
        assert [item["embedding"] for item in answer["data"]] == [vector.tolist() for vector in wanted]
        assert answer["usage"]["prompt_tokens"] > 4
        coded = running.ask("/v1/embeddings", {"input": "A text.", "encoding_format": "base64"}).json["data"][0]
        assert np.array_equal(np.frombuffer(base64.b64decode(coded["embedding"]), "<f4"), wanted[0])
        for path_ in (CHAT, COMPLETIONS, MESSAGES, RESPONSES):
            answer = running.ask(path_, GOOD[path_])
            assert answer.status == 400 and "embedding model" in answer.json["error"]["message"], path_

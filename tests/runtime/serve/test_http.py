"""The server without anybody's client: right and wrong requests, and what it says of itself."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.make.server import Running, serving

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
HELLO = [{"role": "user", "content": "Hello"}]
GOOD = {
    CHAT: {"messages": HELLO, "max_tokens": 2},
    COMPLETIONS: {"prompt": "Hello", "max_tokens": 2},
    RESPONSES: {"input": "Hello", "max_output_tokens": 2},
    MESSAGES: {"messages": HELLO, "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": HELLO},
    "/v1/embeddings": {"input": "Hello", "pooling": "mean"},
    "/tokenize": {"content": "Hello"},
    "/detokenize": {"tokens": [1, 2]},
}
TOOL = {"type": "function", "function": {"name": "f"}}
SAMPLING = {
    "temperature": [-1, "hot", True, [], 1e9],
    "top_p": [-0.1, 1.1, "x"],
    "top_k": [-2, 1.5, "x"],
    "min_p": [2, "x"],
    "repeat_penalty": [0, -1, "x"],
    "seed": ["x", 1.5, [], 2**70],
    "frequency_penalty": [1],
    "presence_penalty": [-0.5],
    "logit_bias": [{"5": 1}],
    "stream": ["yes", 1],
}
SCHEMAS = [
    "text", {"type": 5}, {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": 3},
    {"type": "json_schema", "json_schema": {"schema": "x"}}, {"type": "json_schema", "json_schema": {}},
]  # fmt: skip
WRONG: dict[str, dict[str, list[Any]]] = {
    CHAT: {
        **SAMPLING,
        "messages": [None, [], "Hello", {}, [1], [{}], [{"role": 1, "content": "x"}], [{"role": "user"}],
                     [{"role": "user", "content": 5}], [{"role": "user", "content": [5]}],
                     [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
                     [{"role": "assistant", "tool_calls": [{}]}]],
        "max_tokens": [-2, "many", 1.5, True], "max_completion_tokens": [-1, "x"], "n": [0, 17, "x"],
        "stop": [5, {}, [5], ["x"] * 17, ["x" * 1001]], "top_logprobs": [-1, 21, "x"], "logprobs": ["x", 5],
        "response_format": SCHEMAS, "stream_options": [5, [], {"include_usage": "x"}],
        "tools": [5, {}, [5], [{"type": "function"}], [{"type": "web_search"}], [{"type": "function", "function": {}}],
                  [{"type": "function", "function": {"name": "f", "parameters": 5}}], [TOOL] * 129],
        "tool_choice": [5, "always", "required", {"type": "function", "function": {"name": "g"}}, {}],
    },
    COMPLETIONS: {
        **SAMPLING,
        "prompt": [None, 5, {}, [], [None], [[]], [1.5], ["x", 5], [[1, "x"]], [-1], [10**9], ["x"] * 2049],
        "max_tokens": [-2, "x"], "n": [0, "x"], "logprobs": [-1, 21, "x"], "echo": ["x"], "suffix": ["end"],
        "best_of": [3], "stop": [5],
    },
    RESPONSES: {
        **SAMPLING,
        "input": [None, 5, {}, [], [5], [{"type": "item_reference", "id": "x"}], [{"role": "user", "content": 5}],
                  [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]],
        "instructions": [5], "max_output_tokens": [0, "x"], "text": [5, {"format": {"type": "x"}}],
        "previous_response_id": ["resp_1"], "background": [True], "tools": [[{"type": "web_search"}], [TOOL]],
        "tool_choice": ["required", {"type": "function", "name": "g"}],
    },
    MESSAGES: {
        **{key: SAMPLING[key] for key in ("temperature", "top_p", "top_k", "stream")},
        "max_tokens": [None, 0, "x"], "system": [5, [5], [{"type": "image"}]], "stop_sequences": [5, [5]],
        "messages": [None, [], 5, [5], [{"role": "user"}], [{"role": "robot", "content": "x"}],
                     [{"role": "user", "content": [{"type": "image", "source": {}}]}],
                     [{"role": "user", "content": [{"type": "text"}]}]],
        "tools": [5, [5], [{"name": "f", "input_schema": 5}], [{"type": "computer_20250124", "name": "c"}]],
        "tool_choice": [5, {}, {"type": "any"}, {"type": "tool", "name": "g"}],
    },
    "/v1/messages/count_tokens": {"messages": [None, 5], "system": [5]},
    "/v1/embeddings": {"input": [None, 5, {}, [], [[]], [5.5], [10**9]], "encoding_format": ["int8", 5],
                       "dimensions": [3, "x"], "pooling": ["sum", 5, None]},
    "/tokenize": {"content": [None, 5], "add_special": ["x"], "with_pieces": [5]},
    "/detokenize": {"tokens": [None, "x", [1.5], ["x"], [10**9], [-1]]},
}  # fmt: skip
CASES = [(path, key) for path, fields in WRONG.items() for key in fields]


@pytest.mark.parametrize("path", GOOD)
def test_a_right_request_is_answered_and_unknown_fields_are_ignored(demo: Running, path: str) -> None:
    assert demo.ask(path, {**GOOD[path], "no_such_field": {"x": [1]}, "user": None, "store": True}).status == 200


@pytest.mark.parametrize(("path", "key"), CASES, ids=[f"{path}:{key}" for path, key in CASES])
def test_a_wrong_field_is_named_and_nothing_begins(demo: Running, path: str, key: str) -> None:
    begun = demo.server.backend.scheduler.statistics().requests
    for value in WRONG[path][key]:
        answer = demo.ask(path, {**GOOD[path], key: value})
        case = (value if len(str(value)) < 100 else "long", answer.data)
        assert answer.status == 400 and answer.headers["content-type"] == "application/json", case
        error = answer.json["error"]
        assert error["type"] == "invalid_request_error" and error["message"], case
        assert "\n" not in error["message"] and len(error["message"]) < 500, case
        if path.startswith(MESSAGES):
            assert answer.json["type"] == "error" and set(error) == {"type", "message"}, case
        else:
            assert set(error) == {"message", "type", "param", "code"}, case
            assert error["param"] is None or error["param"].split(".")[0].split("[")[0] == key, case
    assert demo.server.backend.scheduler.statistics().requests == begun


BODIES = [
    b"",
    b"{",
    b"[]",
    b"5",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"messages": NaN',
    b'{"a": "\\ud800"}',
]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_body_that_is_no_object_is_refused(demo: Running, path: str) -> None:
    for body in BODIES:
        answer = demo.ask(path, body, method="POST")
        assert answer.status == 400 and "JSON" in answer.json["error"]["message"], body[:20]
    assert demo.ask(path, {**GOOD[path], "temperature": float("nan")}).status == 400


def test_paths_and_methods(demo: Running) -> None:
    assert demo.ask("/health").json == {"status": "ok"}
    for path, method, status in (("/v1/nothing", "GET", 404), (CHAT, "GET", 405), ("/health", "POST", 405)):
        answer = demo.ask(path, {} if method == "POST" else None, method=method)
        assert answer.status == status and answer.json["error"]["message"], path
    assert demo.ask("/v1/messages/nothing").json["type"] == "error"


def test_a_prompt_that_is_too_long_has_its_code(demo: Running) -> None:
    long = "word " * 3000
    longer = "word " * 500_000  # is refused before a tokenizer sees it
    for text in (long, longer):
        said = [{"role": "user", "content": text}]
        requests: list[tuple[str, Any]] = [
            (CHAT, {"messages": said}), (COMPLETIONS, {"prompt": text}), (COMPLETIONS, {"prompt": [5] * 1025}),
            (RESPONSES, {"input": text}), ("/v1/embeddings", {"input": text, "pooling": "cls"}),
        ]  # fmt: skip
        for path, body in requests:
            begin = time.monotonic()
            answer = demo.ask(path, body)
            assert answer.status == 400 and answer.json["error"]["code"] == "context_length_exceeded", (
                path,
                answer.data,
            )
            assert time.monotonic() - begin < 5, path
    many = demo.ask(CHAT, {"messages": HELLO * 2000})
    assert many.json["error"]["code"] == "context_length_exceeded"


def test_props_say_what_is_served(demo: Running) -> None:
    props = demo.ask("/props").json
    about = props["tritpack"]
    assert about["sha256"] == demo.model.file.sha256 and about["layout"] == "i2_s" and about["file"] == "demo.gguf"
    assert props["default_generation_settings"]["n_ctx"] == 1024 and "messages" in props["chat_template"]
    assert str(demo.model.file.path.parent) not in json.dumps(props)
    demo.ask(CHAT, GOOD[CHAT])
    assert any("matvec" in name or "matmul" in name for name in demo.ask("/props").json["tritpack"]["kernels"])


def test_kernels_are_read_between_passes(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tritpack.runtime.model import Model

    threads = []
    kernels = Model.kernels
    monkeypatch.setattr(Model, "kernels", lambda self: threads.append(threading.current_thread().name) or kernels(self))
    with serving(demo_gguf) as running:
        scheduler = running.server.backend.scheduler
        running.ask(COMPLETIONS, GOOD[COMPLETIONS])
        known = running.ask("/props").json["tritpack"]["kernels"]
        assert known and threads == ["tritpack-scheduler"]
        scheduler.close()
        assert running.ask("/props").json["tritpack"]["kernels"] == known


def test_the_file_says_how_to_sample(demo: Running) -> None:
    from tritpack.runtime.model import Model

    params = demo.ask("/props").json["default_generation_settings"]["params"]
    assert (params["temperature"], params["top_p"]) == (0.6, 0.9)  # of the checkpoint's generation_config.json
    asked = {"prompt": "Once upon a time", "max_tokens": 20, "seed": 7}
    texts = [demo.ask(COMPLETIONS, asked | more).json["choices"][0]["text"] for more in ({}, {"temperature": 0})]
    with Model(demo.model.file) as model:
        wanted = [
            model.generate("Once upon a time", max_tokens=20, seed=7, **more).text for more in ({}, {"temp": 0.0})
        ]  # type: ignore[arg-type]
    assert texts == wanted and texts[0] != texts[1]


def test_an_end_token_can_be_ignored(demo: Running) -> None:
    prompt = [demo.model.tokenizer.eos_id]
    asked = {"prompt": [prompt] * 2, "max_tokens": 60, "temperature": 2, "seed": 1, "ignore_eos": True}
    assert demo.ask(COMPLETIONS, asked).json["usage"]["completion_tokens"] == 120


def test_the_chat_page_is_there(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the page: it needs no key, since it asks its user for one, and only it."""
    from tritpack.runtime.serve import app

    (tmp_path / "parts").mkdir()
    (tmp_path / "index.html").write_text("<title>Chat</title>")
    (tmp_path / "parts" / "engine.js").write_text("export {}")
    monkeypatch.setattr(app, "PAGE", tmp_path)
    with serving(demo_gguf, api_keys=("key",)) as running:
        page = running.ask("/")
        assert page.status == 200 and page.headers["content-type"].startswith("text/html") and b"Chat" in page.data
        assert running.ask("/parts/engine.js").headers["content-type"].startswith("text/javascript")
        assert running.ask("/v1/models").status == running.ask("/parts/other.js").status == 401
        assert running.ask("/nothing", Authorization="Bearer key").json["error"]["type"] == "not_found_error"


def test_an_attestation_is_shown_and_compared(demo_gguf: Path) -> None:
    digest = {"sha256": "0" * 64}
    predicate = dict.fromkeys(("conclusion", "level", "source", "verifier"), "x") | {"verdict": "pass"}
    about = {"attestation": {"subject": [{"name": "demo.gguf", "digest": digest}], "predicate": predicate}}
    with serving(demo_gguf, about=about) as running:
        shown = running.ask("/props").json["tritpack"]["attestation"]
        assert shown["verdict"] == "pass" and shown["of_this_file"] is False
        digest["sha256"] = running.model.file.sha256
        assert running.ask("/props").json["tritpack"]["attestation"]["of_this_file"] is True


def test_figures_are_counted(demo: Running) -> None:
    name = f'tritpack_requests_total{{path="{CHAT}",status="200"}}'
    tokens = "tritpack_generated_tokens_total"
    before = [demo.figure(name), demo.figure(tokens)]
    demo.ask(CHAT, GOOD[CHAT])
    assert [demo.figure(name), demo.figure(tokens)] == [before[0] + 1, before[1] + 2]
    demo.ask("/made/up")
    assert 'path="/made/up"' not in demo.ask("/metrics").data.decode()
    for wanted in ("tritpack_slots_busy", "tritpack_requests_queued", "tritpack_first_token_seconds_count"):
        assert f"\n{wanted} " in demo.ask("/metrics").data.decode(), wanted


def test_tokens_and_texts(demo: Running) -> None:
    text = "Once upon a time — über"
    ids = demo.model.tokenizer.encode(text, add_special=False)
    assert demo.ask("/tokenize", {"content": text}).json == {"tokens": ids}
    assert demo.ask("/tokenize", {"content": text, "add_special": True}).json["tokens"] == [2032, *ids]
    pieces = demo.ask("/tokenize", {"content": text, "with_pieces": True}).json["tokens"]
    data = b"".join(p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces)
    assert data.decode() == text and [p["id"] for p in pieces] == ids
    assert demo.ask("/detokenize", {"tokens": ids}).json == {"content": text}
    plain = demo.ask("/tokenize", {"content": "<|eot_id|>", "parse_special": False}).json["tokens"]
    assert len(plain) > 1 and demo.ask("/tokenize", {"content": "<|eot_id|>"}).json["tokens"] == [2041]

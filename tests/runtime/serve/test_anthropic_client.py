"""The server with Anthropic's own Python client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.make.server import Running

anthropic = pytest.importorskip("anthropic", reason="the client `anthropic` is not installed")

FOX = [{"role": "user", "content": "Tell me a story about a fox."}]
CLOCK = {
    "name": "clock",
    "description": "Tells the time.",
    "input_schema": {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"],
                     "additionalProperties": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def client(demo: Running) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=demo.url, api_key="none", max_retries=0) as made:
        yield made


def greedy(messages: Any = FOX, **more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": messages, "max_tokens": 16, "extra_body": {"temperature": 0}, **more}


def text_of(demo: Running, messages: Any = FOX) -> str:
    from tritpack.runtime.model import Model

    with Model(demo.model.file) as model:
        return model.chat(messages, max_tokens=16, temp=0.0).text


def test_an_answer_is_that_of_the_library(client: Any, demo: Running) -> None:
    answer = client.messages.create(**greedy())
    [block] = answer.content
    assert block.type == "text" and block.text == text_of(demo)
    assert answer.stop_reason == "max_tokens" and answer.role == "assistant" and answer.usage.output_tokens == 16
    counted = client.messages.count_tokens(model="any", messages=FOX)
    assert counted.input_tokens == answer.usage.input_tokens + answer.usage.cache_read_input_tokens


def test_a_stream_gives_the_same(client: Any, demo: Running) -> None:
    whole = client.messages.create(**greedy()).content[0].text
    with client.messages.stream(**greedy()) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == whole == final.content[0].text and len(pieces) > 10
    assert final.stop_reason == "max_tokens" and final.usage.output_tokens == 16


def test_stop_sequences_are_named(client: Any, demo: Running) -> None:
    text = text_of(demo)
    stop = text[8:12]
    for stream in (False, True):
        asked = greedy(stop_sequences=["never said", stop])
        if stream:
            with client.messages.stream(**asked) as events:
                answer = events.get_final_message()
        else:
            answer = client.messages.create(**asked)
        assert answer.content[0].text == text[: text.index(stop)], stream
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop), stream


def test_tools(client: Any, demo: Running) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    asked = greedy(tools=[CLOCK]) | {"max_tokens": 100}
    for choice in ({"type": "any"}, {"type": "tool", "name": "clock"}):
        answer = client.messages.create(**asked, tool_choice=choice)
        [call] = answer.content
        assert call.type == "tool_use" and call.name == "clock" and call.input["zone"] in ("UTC", "CET"), choice
        assert answer.stop_reason == "tool_use", choice
        with client.messages.stream(**asked, tool_choice=choice) as stream:
            streamed = stream.get_final_message()
        assert streamed.content[0].input == call.input and streamed.stop_reason == "tool_use", choice
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "12:00"}]}
    turn = [*FOX, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    told = client.messages.count_tokens(model="any", messages=turn, tools=[CLOCK]).input_tokens
    assert told > client.messages.count_tokens(model="any", messages=FOX).input_tokens + 20


def test_system_texts_and_blocks(client: Any, demo: Running) -> None:
    system = "You are a patient keeper."
    plain = client.messages.create(**greedy(system=system)).content[0].text
    assert plain == text_of(demo, [{"role": "system", "content": system}, *FOX])
    blocks = [{"role": "user", "content": [{"type": "text", "text": FOX[0]["content"]}]}]
    listed = client.messages.create(**greedy(blocks, system=[{"type": "text", "text": system}]))
    assert listed.content[0].text == plain


def test_errors_have_the_protocols_shape(client: Any, demo: Running) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    with pytest.raises(anthropic.BadRequestError, match="reads text only") as caught:
        client.messages.create(**greedy([{"role": "user", "content": [image]}]))
    assert caught.value.body["type"] == "error" and caught.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="context of 1024 tokens"):
        client.messages.create(**greedy([{"role": "user", "content": "word " * 3000}]))


def test_several_at_once(demo: Running) -> None:
    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=demo.url, api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(*[client.messages.create(**greedy()) for _ in range(8)])
            return [answer.content[0].text for answer in answers]

    assert asyncio.run(ask()) == [text_of(demo)] * 8

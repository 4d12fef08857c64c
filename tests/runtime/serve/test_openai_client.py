"""The server with OpenAI's own Python client: what it sends is understood, and it understands what comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.make.server import Running

openai = pytest.importorskip("openai", reason="the client `openai` is not installed")

FOX = [{"role": "user", "content": "Tell me a story about a fox."}]
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "Tells the time.",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def client(demo: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def greedy(demo: Running, messages: Any = FOX, tokens: int = 16, **more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": messages, "max_completion_tokens": tokens, "temperature": 0, **more}


def text_of(demo: Running, messages: Any = FOX, tokens: int = 16) -> str:
    """What the library says, asked directly by another model object."""
    from tritpack.runtime.model import Model

    with Model(demo.model.file) as model:
        return model.chat(messages, max_tokens=tokens, temp=0.0).text


def test_an_answer_is_that_of_the_library(client: Any, demo: Running) -> None:
    answer = client.chat.completions.create(**greedy(demo))
    [choice] = answer.choices
    assert choice.message.content == text_of(demo) and choice.finish_reason == "length"
    assert choice.message.role == "assistant" and answer.model == "demo" and choice.logprobs is None
    assert answer.usage.completion_tokens == 16 and answer.usage.total_tokens == 16 + answer.usage.prompt_tokens
    assert answer.system_fingerprint.startswith("tritpack-")


def test_a_stream_gives_the_same_text_and_then_the_usage(client: Any, demo: Running) -> None:
    whole = client.chat.completions.create(**greedy(demo))
    chunks = list(client.chat.completions.create(**greedy(demo), stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks[-3:-1]] == [None, "length"]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 16
    assert all(chunk.usage is None for chunk in chunks[:-1])
    plain = list(client.chat.completions.create(**greedy(demo), stream=True))
    assert plain[-1].choices[0].finish_reason == "length" and plain[-1].usage.completion_tokens == 16
    assert all(chunk.usage is None for chunk in plain[:-1])


def test_the_cache_of_prefixes_is_in_the_usage(client: Any, demo: Running) -> None:
    asked = greedy(demo, [{"role": "user", "content": "Tell me of the seven ravens and their sister."}])
    first, second = (client.chat.completions.create(**asked) for _ in range(2))
    assert first.choices == second.choices
    assert second.usage.prompt_tokens_details.cached_tokens >= second.usage.prompt_tokens - 1


def test_choices_have_seeds_of_their_own_and_a_seed_repeats_them(client: Any, demo: Running) -> None:
    asked = greedy(demo) | {"temperature": 1.0, "seed": 5, "n": 3}
    first, second = (client.chat.completions.create(**asked) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2] and len(set(texts)) == 3
    assert texts == [choice.message.content for choice in second.choices]
    assert first.usage.completion_tokens == 48
    streamed: dict[int, str] = dict.fromkeys(range(3), "")
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == texts


def test_log_probabilities_are_those_of_the_model(client: Any, demo: Running) -> None:
    from tritpack.runtime.chat import chat_ids
    from tritpack.runtime.model import Model
    from tritpack.runtime.perplexity import log_softmax

    answer = client.chat.completions.create(**greedy(demo, tokens=4), logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == answer.choices[0].message.content
    with Model(demo.model.file) as model:
        ids = chat_ids(model.tokenizer, FOX)
        for place, entry in enumerate(entries):
            scores = log_softmax(model.logits(ids)[-1:])[0]
            likely = scores.argsort()[::-1][:3]
            ids.append(int(likely[0]))
            assert [top.logprob for top in entry.top_logprobs] == pytest.approx(scores[likely].tolist()), place
            assert entry.logprob == entry.top_logprobs[0].logprob and bytes(entry.bytes).decode() == entry.token, place
    streamed = client.chat.completions.create(**greedy(demo, tokens=4), logprobs=True, stream=True)
    tokens = [e.token for c in streamed if c.choices and c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert tokens == [entry.token for entry in entries]


def test_stop_strings_end_an_answer(client: Any, demo: Running) -> None:
    text = text_of(demo)
    stop = text[8:12]
    answer = client.chat.completions.create(**greedy(demo), stop=[stop, "never said"])
    assert answer.choices[0].message.content == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_a_schema_is_followed(client: Any, demo: Running) -> None:
    schema = {"type": "object", "properties": {"animal": {"enum": ["fox", "crow"]}, "old": {"type": "boolean"}},
              "required": ["animal", "old"], "additionalProperties": False}  # fmt: skip
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    format_ = {"type": "json_schema", "json_schema": {"name": "beast", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(**greedy(demo, tokens=200), response_format=format_)
    value = json.loads(answer.choices[0].message.content)
    assert set(value) == {"animal", "old"} and value["animal"] in ("fox", "crow")
    assert answer.choices[0].finish_reason == "stop"
    free = client.chat.completions.create(**greedy(demo), response_format={"type": "json_object"})
    assert free.choices[0].message.content.startswith("{")
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    with pytest.raises(openai.BadRequestError, match="schema"):
        client.chat.completions.create(**greedy(demo), response_format=wrong)


def test_a_tool_that_has_to_be_called_is_called(client: Any, demo: Running) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    forced = {"type": "function", "function": {"name": "clock"}}
    for choice in ("required", forced):
        asked = greedy(demo, tokens=100, tools=[CLOCK], tool_choice=choice)
        answer = client.chat.completions.create(**asked).choices[0]
        [call] = answer.message.tool_calls
        assert call.function.name == "clock" and json.loads(call.function.arguments)["zone"] in ("UTC", "CET"), choice
        assert answer.finish_reason == "tool_calls" and answer.message.content is None, choice
        chunks = [c.choices[0] for c in client.chat.completions.create(**asked, stream=True)]
        [streamed] = [c.delta.tool_calls[0] for c in chunks if c.delta.tool_calls]
        assert streamed.function.arguments == call.function.arguments and streamed.index == 0, choice
        assert chunks[-1].finish_reason == "tool_calls", choice


def test_results_of_tools_come_back(client: Any, demo: Running) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
    turn = [*FOX, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "12:00"}]  # fmt: skip
    answer = client.chat.completions.create(**greedy(demo, turn, tools=[CLOCK]))
    plain = client.chat.completions.create(**greedy(demo, FOX))
    assert answer.choices[0].message.content is not None
    assert answer.usage.prompt_tokens > plain.usage.prompt_tokens + 20  # tools, call and result were told


def test_completions_of_texts_and_ids(client: Any, demo: Running) -> None:
    ids = demo.model.tokenizer.encode("Once upon a time")
    asked = {"model": "demo", "max_tokens": 5, "temperature": 0}
    texts = [client.completions.create(prompt=prompt, **asked).choices[0].text for prompt in ("Once upon a time", ids)]
    assert texts[0] == texts[1] == demo.model.tokenizer.decode(_continuation(demo, ids, 5))
    both = client.completions.create(prompt=[ids, "The"], n=2, **asked)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3] and both.choices[1].text == texts[0]
    assert client.completions.create(prompt="The", model="x", temperature=0).usage.completion_tokens == 16
    chunks = list(client.completions.create(prompt=ids, stream=True, **asked))
    assert "".join(c.choices[0].text for c in chunks) == texts[0] and chunks[-1].choices[0].finish_reason == "length"


def _continuation(demo: Running, ids: list[int], tokens: int) -> list[int]:
    from tritpack.runtime.model import Model

    with Model(demo.model.file) as model:
        return model.generate(tokens=ids, max_tokens=tokens, temp=0.0).ids


def test_echo_scores_the_prompt(client: Any, demo: Running) -> None:
    from tritpack.runtime.model import Model
    from tritpack.runtime.perplexity import log_softmax

    ids = demo.model.tokenizer.encode("Once upon a time there lived a king.")
    with Model(demo.model.file) as model:
        scores = log_softmax(model.logits(ids))
    for tokens in (0, 1):
        asked = {"prompt": [ids], "max_tokens": tokens, "echo": True, "logprobs": 1, "temperature": 0, "model": "x"}
        [choice] = client.completions.create(**asked).choices
        logprobs = choice.logprobs
        assert logprobs.token_logprobs[0] is None and len(logprobs.tokens) == len(ids) + tokens, tokens
        wanted = [float(scores[place, token]) for place, token in enumerate(ids[1:])]
        assert logprobs.token_logprobs[1 : len(ids)] == pytest.approx(wanted, rel=1e-12), tokens
        best = [max(top.values()) for top in logprobs.top_logprobs[1 : len(ids)]]
        assert best == pytest.approx(scores[:-1].max(-1).tolist(), rel=1e-12), tokens
        assert choice.text.startswith("Once upon a time there lived a king."), tokens
        for token, offset in list(zip(logprobs.tokens, logprobs.text_offset))[1:]:
            assert choice.text[offset:].startswith(token), (token, offset)


def test_responses(client: Any, demo: Running) -> None:
    asked = {"model": "demo", "input": FOX[0]["content"], "max_output_tokens": 16, "temperature": 0}
    answer = client.responses.create(**asked)
    assert answer.output_text == text_of(demo) and answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens" and answer.usage.output_tokens == 16
    with client.responses.stream(**asked) as stream:
        events = list(stream)
    names = [event.type for event in events]
    assert events[-1].response.output_text == answer.output_text and names.count("response.output_text.delta") >= 10
    assert names[0] == "response.created" and names[-1] == "response.incomplete"
    listed = client.responses.create(**{**asked, "input": [{"role": "user", "content": [
        {"type": "input_text", "text": FOX[0]["content"]}]}]})  # fmt: skip
    assert listed.output_text == answer.output_text
    with pytest.raises(openai.BadRequestError, match="stores no responses"):
        client.responses.create(**asked, previous_response_id="resp_1")


def test_responses_call_tools(client: Any, demo: Running) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    tool = {"type": "function", **CLOCK["function"]}  # type: ignore[dict-item]
    asked: dict[str, Any] = {"model": "demo", "input": "What time is it?", "tools": [tool], "tool_choice": "required"}
    [call] = client.responses.create(**asked, temperature=0).output
    assert call.type == "function_call" and json.loads(call.arguments)["zone"] in ("UTC", "CET")
    with client.responses.stream(**asked, temperature=0) as stream:
        names = [event.type for event in stream]
    assert "response.function_call_arguments.done" in names and names[-1] == "response.completed"
    items = [{"role": "user", "content": "What time is it?"},
             {"type": "function_call", "call_id": call.call_id, "name": "clock", "arguments": call.arguments},
             {"type": "function_call_output", "call_id": call.call_id, "output": "12:00"}]  # fmt: skip
    told = client.responses.create(model="demo", input=items, tools=[tool], max_output_tokens=4, temperature=0)
    assert told.output_text


def test_models_and_errors(client: Any, demo: Running) -> None:
    assert [model.id for model in client.models.list()] == ["demo"] and client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client.models.retrieve("other")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**greedy(demo, [{"role": "user", "content": "word " * 3000}]))
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    with pytest.raises(openai.BadRequestError, match="reads text only"):
        client.chat.completions.create(**greedy(demo, [{"role": "user", "content": [image]}]))
    part = {"type": "text", "text": FOX[0]["content"]}
    parts = client.chat.completions.create(**greedy(demo, [{"role": "user", "content": [part]}]))
    assert parts.choices[0].message.content == text_of(demo)


def test_many_clients_at_once_get_what_each_gets_alone(demo: Running) -> None:
    stories = [[{"role": "user", "content": f"Tell me a story about {beast}."}] for beast in ("a fox", "a king", "two")]
    alone = [text_of(demo, story) for story in stories]

    async def all_at_once() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0) as client:
            answers = [client.chat.completions.create(**greedy(demo, story)) for story in stories * 3]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*answers)]

    assert asyncio.run(all_at_once()) == alone * 3


def test_an_answer_that_nobody_waits_for_is_stopped(demo: Running) -> None:
    asked = {"model": "demo", "prompt": "Once upon a time", "max_tokens": 900, "n": 4, "temperature": 1.5, "seed": 1}
    before = demo.figure("tritpack_answers_cancelled_total")

    async def leave() -> None:
        async with openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.completions.create(**asked, stream=True)
            async for _ in stream:
                break
            await stream.close()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.completions.create(**asked), 0.1)

    asyncio.run(leave())
    assert demo.wait_for("tritpack_answers_cancelled_total", before + 8) == before + 8
    assert demo.figure("tritpack_slots_busy") == 0

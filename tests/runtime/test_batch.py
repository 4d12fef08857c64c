"""runtime/batch.py and request_options.py: lines are checked, and answered as each would be alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tritpack.formats.errors import TritpackError, Unreadable, Unsupported, UsageError
from tritpack.runtime.batch import FIELDS, answer_batch, parse_batch
from tritpack.runtime.chat import chat_ids
from tritpack.runtime.continuation import Generation
from tritpack.runtime.model import Model
from tritpack.runtime.request_options import make_request

LINES: list[dict[str, Any]] = [
    {"prompt": "Once upon a time", "temp": 0, "max_tokens": 7, "id": {"any": ["thing"]}},
    {"messages": [{"role": "user", "content": "Tell me about a fox."}], "temperature": 0.9, "seed": 4},
    {"prompt": "The sea", "stop": "e", "max_completion_tokens": 9, "top_k": None},
    {"prompt": "The sea", "stop": ["the", "."], "logprobs": 2},
    {"prompt": "Who are you?", "system": "A fox.", "seed": 9, "repetition_penalty": 1.2},
]


@pytest.fixture(scope="module")
def model(demo_gguf: Path) -> Iterator[Model]:
    with Model(demo_gguf, threads=1) as model:
        yield model


def test_answers_are_those_that_each_line_gets_alone(model: Model) -> None:
    lines = parse_batch("\n\n".join(map(json.dumps, LINES)))
    assert [line.number for line in lines] == [1, 3, 5, 7, 9] and lines[0].id == {"any": ["thing"]}
    answers = list(answer_batch(model, lines, parallel=3, max_tokens=12))
    assert [line for line, _ in answers] == lines
    for line, answer in answers:
        options = {"max_tokens": 12, **line.options}
        if "messages" in options:
            options["tokens"] = chat_ids(model.tokenizer, options.pop("messages"))
        alone = model.generate(**options)
        assert isinstance(answer, Generation), line
        assert (answer.text, answer.ids, answer.logprobs) == (alone.text, alone.ids, alone.logprobs), line
        assert answer.stop_reason == alone.stop_reason, line
    assert answers[1][1] != answers[2][1]


WRONG = {
    "no JSON": ("{", "not valid JSON"),
    "a list": ("[1]", "not an object"),
    "a typing error": ('{"prompt": "a", "max_token": 3}', "unknown field 'max_token': did you mean max_tokens"),
    "a type": ('{"prompt": "a", "max_tokens": "3"}', "max_tokens is \"3\", expected a whole number"),
    "a bool": ('{"prompt": "a", "seed": true}', "seed is true, expected a whole number"),
    "a stop": ('{"prompt": "a", "stop": [1]}', "expected a text or a list of texts"),
    "both": ('{"prompt": "a", "messages": []}', "either a prompt or messages"),
    "neither": ('{"temp": 1}', "either a prompt or messages"),
    "a value": ('{"prompt": "a", "top_p": 2}', "top_p must be"),
    "a chat": ('{"messages": [{"role": "user"}]}', "no text under 'content'"),
    "a long prompt": (json.dumps({"prompt": "word " * 2000}), "more than the model's context"),
}  # fmt: skip


def test_a_bad_line_is_named_and_the_others_are_answered(model: Model) -> None:
    good = '{"prompt": "The sea"}'
    lines = parse_batch("\n".join([good, *(line for line, _ in WRONG.values()), good]))
    answers = [answer for _, answer in answer_batch(model, lines, max_tokens=2, temp=0)]
    for (name, (_, words)), answer in zip(WRONG.items(), answers[1:-1], strict=True):
        assert isinstance(answer, TritpackError) and words in str(answer), (name, answer)
    assert isinstance(answers[0], Generation) and isinstance(answers[-1], Generation)
    assert answers[0].ids == answers[-1].ids


def test_whatever_a_line_meets_ends_that_line_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (Unreadable("the template refuses it"), Unsupported("the model has no chat template")):
        monkeypatch.setattr("tritpack.runtime.request_options.chat_ids", _raising(error))
        lines = parse_batch('{"messages": [{"role": "user", "content": "a"}]}\n{"prompt": "The sea"}')
        (_, refused), (_, answer) = answer_batch(model, lines, max_tokens=2)
        assert refused is error and isinstance(answer, Generation), error


def _raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_requests_are_made_shortly_before_their_answers(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(model: Model, prompt: str, **options: Any) -> Any:
        made.append(prompt)
        return make_request(model, prompt, **options)

    monkeypatch.setattr("tritpack.runtime.batch.make_request", counted)
    lines = parse_batch("\n".join(f'{{"prompt": "Once {number}"}}' for number in range(20)))
    answers = answer_batch(model, lines, parallel=2, max_tokens=1)
    assert next(answers)[0] is lines[0] and len(made) <= 2 * 2
    assert [line for line, _ in answers] == lines[1:] and made == [line.options["prompt"] for line in lines]


@pytest.mark.parametrize("line", [{"grammar": "own"}, {"json_schema": {"own": 1}}, {}], ids=str)
def test_the_constraint_of_a_line_takes_the_place_of_the_default(
    model: Model, line: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("tritpack.runtime.request_options.constraint_for", lambda _, **given: asked.append(given))
    for default in ({"json_schema": "{}", "grammar": None}, {"json_schema": None, "grammar": "default"}):
        list(answer_batch(model, parse_batch(json.dumps({"prompt": "a", **line})), max_tokens=1, **default))
        expected = {"json_schema": None, "grammar": None, **line} if line else default
        assert asked.pop() == expected, default


def test_a_file_without_lines() -> None:
    with pytest.raises(UsageError, match="is empty"):
        parse_batch("\n \n")


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, "either a prompt"), ({"prompt": "a", "tokens": [1]}, "either a prompt"),
     ({"tokens": [1], "chat": True}, "as given"), ({"prompt": "a", "logprobs": 101}, "logprobs must be"),
     ({"prompt": "a", "temp": -1.0}, "temperature must be")],
    ids=["nothing", "both", "chat of ids", "logprobs", "temperature"],
)  # fmt: skip
def test_requests_that_are_impossible(model: Model, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_request(model, **options)


def test_every_field_is_an_option_of_a_request() -> None:
    import inspect

    names = set(inspect.signature(make_request).parameters) | {
        "temp", "top_k", "top_p", "min_p", "repeat_penalty", "seed",
    }  # fmt: skip
    assert set(FIELDS) <= names

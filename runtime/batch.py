"""Many prompts from a JSONL file: read and checked line by line, and answered side by side.

Each answer is the one that its line would get alone: what else is evaluated in the same pass changes no bit.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tritpack.formats.errors import TritpackError, UsageError
from tritpack.formats.suggestions import did_you_mean
from tritpack.runtime.continuation import Generation, Request
from tritpack.runtime.request_options import make_request

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

Kinds = tuple[type, ...]
NUMBER: Kinds = (int, float)
FIELDS: dict[str, tuple[Kinds, str]] = {
    "prompt": ((str,), "a text"),
    "messages": ((list,), "a list"),
    "system": ((str,), "a text"),
    "max_tokens": ((int,), "a whole number"),
    "temp": (NUMBER, "a number"),
    "top_k": ((int,), "a whole number"),
    "top_p": (NUMBER, "a number"),
    "min_p": (NUMBER, "a number"),
    "repeat_penalty": (NUMBER, "a number"),
    "seed": ((int,), "a whole number"),
    "stop": ((str, list), "a text or a list of texts"),
    "logprobs": ((int,), "a whole number"),
    "json_schema": ((dict,), "an object"),
    "grammar": ((str,), "a text"),
}
"""What a line may have besides `id`: the options of `generate`."""
ALIASES = {"temperature": "temp", "repetition_penalty": "repeat_penalty", "max_completion_tokens": "max_tokens"}
"""Names of other programs for the same."""
CONSTRAINTS = ("json_schema", "grammar")
AHEAD = 2
"""Requests per slot that are made before they are answered: a constraint takes memory and time of its own."""


@dataclass(frozen=True)
class BatchLine:
    """A line of the file. number: from 1. id: whatever the line has under `id`, to be given back. options: by the names
    of FIELDS. error: why it cannot be answered."""

    number: int
    id: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    error: TritpackError | None = None


def parse_batch(text: str) -> list[BatchLine]:
    """Return the lines of a JSONL text; empty ones are left out, and wrong ones have an `error`. Raises UsageError for
    a text without lines."""
    lines = [_parse(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UsageError("the file of prompts is empty", hint='a line is like {"prompt": "Once upon a time"}')
    return lines


def _parse(number: int, line: str) -> BatchLine:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BatchLine(number, error=UsageError(f"it is not valid JSON ({error})"))
    if not isinstance(value, dict):
        return BatchLine(number, error=UsageError('it is not an object such as {"prompt": "Once upon a time"}'))
    given: dict[str, Any] = {
        str(ALIASES.get(name, name)): part for name, part in value.items() if name != "id" and part is not None
    }
    try:
        return BatchLine(number, value.get("id"), _checked(given))
    except UsageError as error:
        return BatchLine(number, value.get("id"), error=error)


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a line, of the right types. Raises UsageError."""
    for name, value in given.items():
        if name not in FIELDS:
            near = did_you_mean(name, FIELDS)
            raise UsageError(f"it has an unknown field {name!r}" + (f": {near}" if near else ""))
        kinds, words = FIELDS[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UsageError(f"{name} is {json.dumps(value)[:40]}, expected {words}")
    if ("prompt" in given) == ("messages" in given):
        raise UsageError("it needs either a prompt or messages")
    stop = given.get("stop", [])
    if isinstance(stop, list) and not all(isinstance(part, str) for part in stop):
        raise UsageError(f"stop is {json.dumps(stop)[:40]}, expected {FIELDS['stop'][1]}")
    return {**given, "stop": [stop]} if isinstance(stop, str) else given


def answer_batch(
    model: Model, lines: Sequence[BatchLine], *, parallel: int = 8, **defaults: Any
) -> Iterator[tuple[BatchLine, Generation | TritpackError]]:
    """Yield each line with its answer, or with what was wrong with it, in the order of the lines.

    Few requests are made ahead, so the first answers do not wait for the last lines. parallel: answers that are written
    at once. defaults: options of `make_request` for lines that do not give them; a constraint of a line takes the place
    of theirs.
    """
    from tritpack.runtime.scheduler import Scheduler

    slots = max(1, min(parallel, len(lines)))
    done: queue.SimpleQueue[tuple[int, Generation | Exception]] = queue.SimpleQueue()
    results: dict[int, Generation | TritpackError] = {}
    rest, running = iter(lines), 0
    with Scheduler(model, slots, queue_limit=AHEAD * slots) as scheduler:
        for line in lines:
            while line.number not in results:
                following = next(rest, None) if running < AHEAD * slots else None
                if following is not None:
                    try:
                        request = _request(model, following, defaults)
                        scheduler.submit(request, _ignore, _put_under(done, following.number))
                        running += 1
                    except TritpackError as error:
                        results[following.number] = error
                    continue
                number, result = done.get()
                running -= 1
                if isinstance(result, Exception) and not isinstance(result, TritpackError):
                    raise result
                results[number] = result
            yield line, results.pop(line.number)


def _request(model: Model, line: BatchLine, defaults: Mapping[str, Any]) -> Request:
    """The request of a line. Raises TritpackError if there is none."""
    if line.error is not None:
        raise line.error
    if not line.options.keys().isdisjoint(CONSTRAINTS):  # one takes the place of the other
        defaults = {name: value for name, value in defaults.items() if name not in CONSTRAINTS}
    options = {**defaults, **line.options}
    return make_request(model, options.pop("prompt", None), **options)


def _ignore(token: object) -> None:
    """A single token of an answer says nothing here."""


def _put_under(
    done: queue.SimpleQueue[tuple[int, Generation | Exception]], number: int
) -> Callable[[Generation | Exception], None]:
    return lambda result: done.put((number, result))

"""POST /v1/completions: prompts as text or token ids, several at once, with `echo` and log-probabilities as evaluation
harnesses use them."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from tritpack.runtime.continuation import GeneratedToken, Request, TokenLogprob
from tritpack.runtime.grammar import GrammarConstraint
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.serve.api_errors import ApiError
from tritpack.runtime.serve.backend import Backend, Runs, client_of
from tritpack.runtime.serve.chat_answer import Usage, end_reason, event
from tritpack.runtime.serve.event_stream import EventStream
from tritpack.runtime.serve.json_fields import Fields
from tritpack.runtime.serve.limits import MOST_ANSWERS, MOST_CHOICES, MOST_INPUTS, MOST_LOGPROBS, MOST_TOP_LOGPROBS
from tritpack.runtime.serve.request_fields import sampling_of, schema_of, stops_of
from tritpack.runtime.serve.token_texts import LegacyLogprobs

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""


@dataclasses.dataclass(frozen=True)
class CompletionRequest:
    """What a body asks for. prompts: each with its text and its ids; top_logprobs: None for none."""

    prompts: Sequence[tuple[str, list[int]]]
    params: SamplingParams
    max_tokens: int
    stops: Sequence[str]
    choices: int
    echo: bool
    top_logprobs: int | None
    schema: dict[str, Any] | None
    ignore_eos: bool

    @property
    def scores_prompts(self) -> bool:
        """Whether log-probabilities of the prompts' own tokens are wanted."""
        return self.echo and self.top_logprobs is not None


async def completions(request: HttpRequest, fields: Fields, backend: Backend) -> Response:
    """Continue prompts, at once or as a stream."""
    backend.require_logits()
    asked = await _asked(fields, backend)
    stream, options = fields.boolean("stream"), fields.object("stream_options")
    include_usage = options.boolean("include_usage") if options else False
    head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time()),
            "model": backend.settings.name, "system_fingerprint": backend.fingerprint}  # fmt: skip
    run = Completion(asked, backend, client_of(request), await backend.constraint(asked.schema))
    if stream:
        return EventStream(_chunks(run, head, include_usage), run.close, request.url.path)
    choices = await _choices(run)
    return JSONResponse({**head, "choices": choices, "usage": run.usage.openai(), "timings": run.usage.timings()})


async def _asked(fields: Fields, backend: Backend) -> CompletionRequest:
    fields.refuse("suffix", ("",), "leave it out")
    wanted = fields.values.get("logprobs")
    top: int | None = (
        0 if wanted is True else None if wanted is False else fields.integer("logprobs", None, 0, MOST_TOP_LOGPROBS)
    )
    choices = fields.integer("n", 1, 1, MOST_CHOICES) or 1
    fields.refuse("best_of", (1, choices), "ask for n answers and choose one")
    asked = CompletionRequest(
        prompts=[],
        params=sampling_of(fields, backend),
        max_tokens=fields.integer("max_tokens", DEFAULT_MAX_TOKENS, -1) or 0,
        stops=stops_of(fields),
        choices=choices,
        echo=fields.boolean("echo"),
        top_logprobs=top,
        schema=schema_of(fields.object("response_format")),
        ignore_eos=fields.boolean("ignore_eos"),
    )
    prompts = prompts_of(fields)
    if len(prompts) * choices > MOST_ANSWERS:
        raise fields.fail("prompt", f"at most {MOST_ANSWERS} answers to a request: prompts times n")
    asked = dataclasses.replace(asked, prompts=[await _prompt(prompt, backend) for prompt in prompts])
    scored = sum(len(ids) for _, ids in asked.prompts) * choices * (1 + (top or 0))
    if asked.scores_prompts and scored > MOST_LOGPROBS:
        message = f"the prompts would get {scored} log-probabilities, more than {MOST_LOGPROBS}"
        raise ApiError(f"{message}: send fewer at once, or a smaller logprobs", code="invalid_value", param="logprobs")
    return asked


def prompts_of(fields: Fields, key: str = "prompt") -> list[str | list[int]]:
    """Return the texts of a field: a text, token ids, or a list of these. Raises ApiError."""
    value = fields.values.get(key)
    listed = [value] if isinstance(value, str) or _are_ids(value) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(p, str) or _are_ids(p) for p in listed):
        raise fields.fail(key, "text, token ids, or a list of texts or of lists of token ids")
    if len(listed) > MOST_INPUTS:
        raise fields.fail(key, f"at most {MOST_INPUTS} texts")
    return listed


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


async def _prompt(prompt: str | list[int], backend: Backend) -> tuple[str, list[int]]:
    if isinstance(prompt, str):
        return prompt, await backend.text_ids(prompt, "prompt")
    backend.check_ids(prompt, "prompt")
    return await backend.apart(backend.tokenizer.decode, prompt, True), prompt


def _requests(asked: CompletionRequest) -> list[Request]:
    return [
        Request(
            prompt=ids,
            max_tokens=asked.max_tokens,
            params=dataclasses.replace(asked.params, seed=asked.params.seed + place),
            stop_ids=() if asked.ignore_eos else None,
            stop_strings=list(asked.stops),
            top_logprobs=asked.top_logprobs,
            prompt_logprobs=asked.scores_prompts,
        )
        for _, ids in asked.prompts
        for place in range(asked.choices)
    ]


class Completion:
    """The answers to one request as they come: choice k of prompt p is choice p * n + k."""

    def __init__(
        self, asked: CompletionRequest, backend: Backend, client: str, constraint: GrammarConstraint | None
    ) -> None:
        requests = _requests(asked)
        self.asked = asked
        self.usage = Usage(sum(len(ids) for _, ids in asked.prompts))
        self._logprobs = [LegacyLogprobs(backend.tokenizer) for _ in requests]
        self._runs: Runs = backend.run(requests, client, constraint)

    def close(self) -> None:
        """Stop what still runs."""
        self._runs.close()

    async def parts(self) -> AsyncIterator[dict[str, Any]]:
        """Yield parts of choices as chunks of a stream show them. Where prompts are scored, a choice comes in the end,
        since its tokens follow those of its prompt."""
        held: dict[int, list[GeneratedToken]] = {}
        for index in range(len(self._logprobs)):
            if self.asked.echo and not self.asked.scores_prompts:
                yield self._part(index, self._prompt(index)[0])
        async for index, item in self._runs:
            if isinstance(item, GeneratedToken):
                if self.asked.scores_prompts:
                    held.setdefault(index, []).append(item)
                else:
                    yield self._part(index, item.text, _scores(item))
                continue
            if self.asked.scores_prompts:
                text, ids = self._prompt(index)
                yield self._part(index, text, item.prompt_logprobs, first=ids[0])
                for token in held.pop(index, []):
                    yield self._part(index, token.text, _scores(token))
            self.usage.add(item)
            yield {**self._part(index, ""), "finish_reason": end_reason(item)}

    def _prompt(self, index: int) -> tuple[str, list[int]]:
        return self.asked.prompts[index // self.asked.choices]

    def _part(
        self, index: int, text: str, tokens: Sequence[TokenLogprob] = (), first: int | None = None
    ) -> dict[str, Any]:
        logprobs = None if self.asked.top_logprobs is None else self._logprobs[index].listed(tokens, first)
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": None}


def _scores(token: GeneratedToken) -> list[TokenLogprob]:
    return [] if token.logprob is None else [token.logprob]


async def _choices(run: Completion) -> list[dict[str, Any]]:
    """Whole choices, in order."""
    whole: dict[int, dict[str, Any]] = {}
    texts: dict[int, list[str]] = {}
    async for part in run.parts():
        index = part["index"]
        choice = whole.setdefault(index, part)
        texts.setdefault(index, []).append(part["text"])
        if choice is not part:
            choice["finish_reason"] = part["finish_reason"] or choice["finish_reason"]
            for key, values in (part["logprobs"] or {}).items():
                choice["logprobs"][key] += values
    return [{**whole[index], "text": "".join(texts[index])} for index in sorted(whole)]


async def _chunks(run: Completion, head: dict[str, Any], include_usage: bool) -> AsyncIterator[str]:
    """The events of a stream; usage as in /v1/chat/completions."""
    open_choices = len(run.asked.prompts) * run.asked.choices
    head = {**head, **({"usage": None} if include_usage else {})}
    async for part in run.parts():
        if part["finish_reason"]:
            open_choices -= 1
            last = not open_choices and not include_usage
            extra = {"usage": run.usage.openai(), "timings": run.usage.timings()} if last else {}
            yield event({**head, "choices": [part], **extra})
        elif part["text"] or part["logprobs"]:
            yield event({**head, "choices": [part]})
    if include_usage:
        yield event({**head, "choices": [], "usage": run.usage.openai(), "timings": run.usage.timings()})
    yield "data: [DONE]\n\n"

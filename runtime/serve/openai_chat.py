"""POST /v1/chat/completions."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from tritpack.runtime.serve.backend import Backend, client_of
from tritpack.runtime.serve.chat_answer import ChatRequest, ChatRun, Piece, event, start
from tritpack.runtime.serve.event_stream import EventStream
from tritpack.runtime.serve.json_fields import Fields
from tritpack.runtime.serve.limits import MOST_CHOICES, MOST_TOP_LOGPROBS
from tritpack.runtime.serve.messages import conversation
from tritpack.runtime.serve.request_fields import chosen, openai_choice, sampling_of, schema_of, stops_of, tools_of
from tritpack.runtime.serve.token_texts import detailed
from tritpack.runtime.serve.tool_calls import ToolCall


def chat_request(fields: Fields, backend: Backend) -> ChatRequest:
    """Return what a body asks for. Raises ApiError."""
    limit = fields.integer("max_completion_tokens", None, 0)
    wanted = fields.integer("top_logprobs", None, 0, MOST_TOP_LOGPROBS)
    return ChatRequest(
        messages=conversation(fields),
        params=sampling_of(fields, backend),
        max_tokens=limit if limit is not None else fields.integer("max_tokens", -1, -1) or 0,
        stops=stops_of(fields),
        choices=fields.integer("n", 1, 1, MOST_CHOICES) or 1,
        top_logprobs=(wanted or 0) if fields.boolean("logprobs") else None,
        use=chosen(tools_of(fields), openai_choice(fields), fields),
        schema=schema_of(fields.object("response_format")),
    )


async def chat_completions(request: HttpRequest, fields: Fields, backend: Backend) -> Response:
    """Answer a conversation, at once or as a stream."""
    chat = chat_request(fields, backend)
    options = fields.object("stream_options")
    include_usage = options.boolean("include_usage") if options else False
    stream = fields.boolean("stream")
    run = await start(backend, chat, client_of(request))
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": backend.settings.name,
            "system_fingerprint": backend.fingerprint}  # fmt: skip
    if stream:
        return EventStream(_chunks(run, chat, backend, head, include_usage), run.close, request.url.path)
    choices = await _choices(run, chat, backend)
    return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": run.usage.openai(),
                         "timings": run.usage.timings()})  # fmt: skip


async def _choices(run: ChatRun, chat: ChatRequest, backend: Backend) -> list[dict[str, Any]]:
    gathered = [_Choice(place) for place in range(chat.choices)]
    async for piece in run:
        choice = gathered[piece.choice]
        choice.texts.append(piece.text)
        choice.logprobs += detailed(backend.tokenizer, piece.tokens)
        choice.calls += [piece.call] if piece.call else []
        choice.reason = piece.reason or choice.reason
    return [choice.as_json(chat.top_logprobs is not None) for choice in gathered]


@dataclasses.dataclass
class _Choice:
    index: int
    texts: list[str] = dataclasses.field(default_factory=list)
    logprobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    calls: list[ToolCall] = dataclasses.field(default_factory=list)
    reason: str = "stop"

    def as_json(self, with_logprobs: bool) -> dict[str, Any]:
        text = "".join(self.texts)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if self.calls else ""),
            "refusal": None,
        }
        if self.calls:
            message["tool_calls"] = [call_json(call) for call in self.calls]
        logprobs = {"content": self.logprobs, "refusal": None} if with_logprobs else None
        return {"index": self.index, "message": message, "logprobs": logprobs, "finish_reason": self.reason}


def call_json(call: ToolCall) -> dict[str, Any]:
    """Return a call as OpenAI writes it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


async def _chunks(
    run: ChatRun, chat: ChatRequest, backend: Backend, head: dict[str, Any], include_usage: bool
) -> AsyncIterator[str]:
    """The events of a stream. With stream_options.include_usage a last chunk without choices has the usage, as at
    OpenAI; without it, the chunk that ends the last choice has it."""
    head = {**head, "object": "chat.completion.chunk", **({"usage": None} if include_usage else {})}
    calls = [0] * chat.choices
    open_choices = chat.choices

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**head, "choices": [choice]}

    for index in range(chat.choices):
        yield event(chunk(index, {"role": "assistant", "content": ""}))
    async for piece in run:
        if piece.reason:
            open_choices -= 1
            last = not open_choices and not include_usage
            extra = {"usage": run.usage.openai(), "timings": run.usage.timings()} if last else {}
            yield event(chunk(piece.choice, {}, piece.reason) | extra)
        elif piece.call:
            yield event(chunk(piece.choice, {"tool_calls": [{"index": calls[piece.choice], **call_json(piece.call)}]}))
            calls[piece.choice] += 1
        else:
            logprobs = {"content": detailed(backend.tokenizer, piece.tokens), "refusal": None} if piece.tokens else None
            yield event(chunk(piece.choice, _content(piece), logprobs=logprobs))
    if include_usage:
        yield event({**head, "choices": [], "usage": run.usage.openai(), "timings": run.usage.timings()})
    yield "data: [DONE]\n\n"


def _content(piece: Piece) -> dict[str, Any]:
    return {"content": piece.text}

"""POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients use them."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from tritpack.runtime.serve.backend import Backend, client_of
from tritpack.runtime.serve.chat_answer import ChatRequest, ChatRun, Piece, Usage, event, prompt_ids, start
from tritpack.runtime.serve.event_stream import EventStream
from tritpack.runtime.serve.json_fields import Fields
from tritpack.runtime.serve.messages import anthropic_conversation
from tritpack.runtime.serve.request_fields import ToolUse, anthropic_tools, chosen, sampling_of, stops_of

CHOICES = {"auto": "auto", "none": "none", "any": "required"}


async def messages(request: HttpRequest, fields: Fields, backend: Backend) -> Response:
    """Answer a conversation, at once or as a stream of events."""
    limit = fields.integer("max_tokens", None, 1)
    if limit is None:
        raise fields.fail("max_tokens", "a whole number of 1 or more")
    chat = ChatRequest(
        messages=anthropic_conversation(fields),
        params=sampling_of(fields, backend),
        max_tokens=limit,
        stops=stops_of(fields, "stop_sequences"),
        use=_use(fields),
    )
    stream = fields.boolean("stream")
    run = await start(backend, chat, client_of(request))
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant"}
    head |= {"model": backend.settings.name}
    if stream:
        return EventStream(_events(run, head), run.close, request.url.path)
    pieces = [piece async for piece in run]
    return JSONResponse({**head, "content": _blocks(pieces), **_end(pieces[-1]), "usage": _usage(run.usage)})


async def count_tokens(request: HttpRequest, fields: Fields, backend: Backend) -> Response:
    """Return how many tokens a conversation has."""
    backend.require_logits()
    ids = await prompt_ids(backend, anthropic_conversation(fields), _use(fields), "messages")
    return JSONResponse({"input_tokens": len(ids)})


def _use(fields: Fields) -> ToolUse:
    choice = fields.object("tool_choice")
    tools = anthropic_tools(fields)
    if choice is None:
        return chosen(tools, "auto", fields)
    kind = choice.text("type")
    if kind == "tool":
        return chosen(tools, f"={choice.text('name', '')}", fields)
    if kind not in CHOICES:
        raise choice.fail("type", "auto, any, tool or none")
    return chosen(tools, CHOICES[kind], fields)


def _blocks(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for piece in pieces:
        if piece.call:
            arguments = json.loads(piece.call.arguments)
            blocks.append({"type": "tool_use", "id": piece.call.id, "name": piece.call.name, "input": arguments})
        elif piece.text and blocks and blocks[-1]["type"] == "text":
            blocks[-1]["text"] += piece.text
        elif piece.text:
            blocks.append({"type": "text", "text": piece.text})
    return blocks


def _end(last: Piece) -> dict[str, Any]:
    """Why an answer ended, and by which stop string."""
    generation = last.generation
    assert generation is not None
    if last.reason == "tool_calls":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if generation.stop_reason == "stop_string":
        return {"stop_reason": "stop_sequence", "stop_sequence": generation.stop_string}
    if generation.stop_reason == "context":
        return {"stop_reason": "model_context_window_exceeded", "stop_sequence": None}
    return {"stop_reason": "max_tokens" if last.reason == "length" else "end_turn", "stop_sequence": None}


async def _events(run: ChatRun, head: dict[str, Any]) -> AsyncIterator[str]:
    start_of = {**head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(run.usage)}
    yield event({"type": "message_start", "message": start_of}, "message_start")
    index, in_text = -1, False
    async for piece in run:
        if in_text and (piece.call or piece.reason):
            yield event({"type": "content_block_stop", "index": index}, "content_block_stop")
            in_text = False
        if piece.call:
            index += 1
            block = {"type": "tool_use", "id": piece.call.id, "name": piece.call.name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": piece.call.arguments}
            yield event({"type": "content_block_start", "index": index, "content_block": block}, "content_block_start")
            yield event({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
            yield event({"type": "content_block_stop", "index": index}, "content_block_stop")
        elif piece.text:
            if not in_text:
                index, in_text = index + 1, True
                block = {"type": "text", "text": ""}
                data = {"type": "content_block_start", "index": index, "content_block": block}
                yield event(data, "content_block_start")
            delta = {"type": "text_delta", "text": piece.text}
            yield event({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
        elif piece.reason:
            yield event({"type": "message_delta", "delta": _end(piece), "usage": _usage(run.usage)}, "message_delta")
    yield event({"type": "message_stop"}, "message_stop")


def _usage(usage: Usage) -> dict[str, Any]:
    """Anthropic's count: tokens that were read from a cache are not among the input tokens."""
    cached = usage.cached or 0
    return {
        "input_tokens": usage.prompt - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.generated,
    }

"""POST /v1/responses, without stored responses: every request brings the whole conversation."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from tritpack.runtime.serve.api_errors import ApiError
from tritpack.runtime.serve.backend import Backend, client_of
from tritpack.runtime.serve.chat_answer import ChatRequest, ChatRun, Piece, Usage, event, start
from tritpack.runtime.serve.event_stream import EventStream
from tritpack.runtime.serve.json_fields import Fields
from tritpack.runtime.serve.limits import MOST_TOP_LOGPROBS
from tritpack.runtime.serve.messages import response_conversation
from tritpack.runtime.serve.request_fields import chosen, openai_choice, sampling_of, schema_of, tools_of
from tritpack.runtime.serve.token_texts import detailed


async def responses(request: HttpRequest, fields: Fields, backend: Backend) -> Response:
    """Answer an input, at once or as a stream of events."""
    fields.refuse("previous_response_id", (), "this server stores no responses; send the whole conversation as input")
    fields.refuse("conversation", (), "this server stores no conversations; send the whole conversation as input")
    fields.refuse("background", (False,), "leave it out")
    text = fields.object("text")
    wanted = fields.integer("top_logprobs", None, 0, MOST_TOP_LOGPROBS)
    included = fields.texts("include", 16)
    chat = ChatRequest(
        messages=response_conversation(fields),
        params=sampling_of(fields, backend),
        max_tokens=fields.integer("max_output_tokens", -1, 1) or -1,
        top_logprobs=(wanted or 0) if wanted or "message.output_text.logprobs" in included else None,
        use=chosen(tools_of(fields, nested=False), openai_choice(fields, nested=False), fields),
        schema=schema_of(text.object("format") if text else None, json_schema=None),
        param="input",
    )
    answer = _Answer(fields, chat, backend)
    stream = fields.boolean("stream")
    run = await start(backend, chat, client_of(request))
    if stream:
        return EventStream(_events(run, answer), run.close, request.url.path)
    async for piece in run:
        answer.events(piece)
    return JSONResponse(answer.as_json(run.usage))


async def _events(run: ChatRun, answer: _Answer) -> AsyncIterator[str]:
    number = 0

    def numbered(data: dict[str, Any]) -> str:
        nonlocal number
        number += 1
        return event({**data, "sequence_number": number - 1}, data["type"])

    for name in ("response.created", "response.in_progress"):
        yield numbered({"type": name, "response": answer.as_json(None)})
    try:
        async for piece in run:
            for data in answer.events(piece):
                yield numbered(data)
    except ApiError as error:
        answer.error = {"code": "server_error", "message": error.message}
        yield numbered({"type": "response.failed", "response": answer.as_json(run.usage)})
        return
    yield numbered({"type": f"response.{answer.status}", "response": answer.as_json(run.usage)})


class _Answer:
    """A response that grows: its items, and the events that tell of each step."""

    def __init__(self, fields: Fields, chat: ChatRequest, backend: Backend) -> None:
        self._backend, self._chat = backend, chat
        self._output: list[dict[str, Any]] = []
        self._message: dict[str, Any] | None = None  # the item that text is added to
        self._texts: list[str] = []
        self.status = "in_progress"
        self.error: dict[str, Any] | None = None
        text = fields.object("text")
        self._head = {
            "id": f"resp_{secrets.token_hex(12)}", "object": "response", "created_at": int(time.time()),
            "model": backend.settings.name, "instructions": fields.text("instructions"),
            "max_output_tokens": None if chat.max_tokens < 0 else chat.max_tokens, "parallel_tool_calls": True,
            "temperature": chat.params.temperature, "top_p": chat.params.top_p,
            "tool_choice": fields.values.get("tool_choice") or "auto", "tools": fields.values.get("tools") or [],
            "text": dict(text.values) if text else {"format": {"type": "text"}}, "truncation": "disabled",
            "store": False, "previous_response_id": None, "metadata": fields.values.get("metadata") or {},
        }  # fmt: skip

    def as_json(self, usage: Usage | None) -> dict[str, Any]:
        """Return the response so far. usage: None while it is not known."""
        status = "failed" if self.error else self.status
        return {
            **self._head, "status": status, "error": self.error, "output": self._output,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "usage": None if usage is None else _usage(usage),
        }  # fmt: skip

    def events(self, piece: Piece) -> list[dict[str, Any]]:
        """Add a piece, and return the events that it makes."""
        if piece.reason:
            self.status = "incomplete" if piece.reason == "length" else "completed"
            return self._end_message()
        if piece.call:
            return [*self._end_message(), *self._call(piece)]
        begun = [] if self._message else self._begin_message()
        assert self._message is not None
        self._texts.append(piece.text)
        logprobs = detailed(self._backend.tokenizer, piece.tokens)
        self._message["content"][0]["logprobs"] += logprobs
        place = {"item_id": self._message["id"], "output_index": len(self._output) - 1, "content_index": 0}
        delta = {"type": "response.output_text.delta", **place, "delta": piece.text, "logprobs": logprobs}
        return [*begun, delta]

    def _begin_message(self) -> list[dict[str, Any]]:
        item: dict[str, Any] = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant"}
        item |= {"status": "in_progress", "content": []}
        added = {"type": "response.output_item.added", "output_index": len(self._output), "item": dict(item)}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        place = {"item_id": item["id"], "output_index": len(self._output), "content_index": 0}
        begun = {"type": "response.content_part.added", **place, "part": {**part, "logprobs": []}}
        self._message = item | {"content": [part]}
        self._output.append(self._message)
        return [added, begun]

    def _end_message(self) -> list[dict[str, Any]]:
        if self._message is None:
            return []
        item, self._message = self._message, None
        part = item["content"][0]
        part["text"], self._texts = "".join(self._texts), []
        item["status"] = "incomplete" if self.status == "incomplete" else "completed"
        index = len(self._output) - 1
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        return [
            {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": part["logprobs"]},
            {"type": "response.content_part.done", **place, "part": part},
            {"type": "response.output_item.done", "output_index": index, "item": item},
        ]

    def _call(self, piece: Piece) -> list[dict[str, Any]]:
        assert piece.call is not None
        item = {"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "call_id": piece.call.id,
                "name": piece.call.name, "arguments": piece.call.arguments, "status": "completed"}  # fmt: skip
        self._output.append(item)
        place = {"item_id": item["id"], "output_index": len(self._output) - 1}
        begun = {**item, "arguments": "", "status": "in_progress"}
        return [
            {"type": "response.output_item.added", "output_index": place["output_index"], "item": begun},
            {"type": "response.function_call_arguments.delta", **place, "delta": piece.call.arguments},
            {"type": "response.function_call_arguments.done", **place, "name": piece.call.name,
             "arguments": piece.call.arguments},
            {"type": "response.output_item.done", "output_index": place["output_index"], "item": item},
        ]  # fmt: skip


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": 0},
        "output_tokens": usage.generated,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.generated,
    }

"""A conversation's answer, whatever the protocol: from a request in OpenAI's terms to text and calls of tools."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tritpack.runtime.chat import Message, takes_tools
from tritpack.runtime.continuation import Generation, Request, TokenLogprob
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.serve.backend import Backend, Runs
from tritpack.runtime.serve.request_fields import NO_TOOLS, ToolUse
from tritpack.runtime.serve.tool_calls import CallReader, ToolCall, described, forcing_schema


@dataclasses.dataclass(frozen=True)
class ChatRequest:
    """What a client wants. top_logprobs: None for none. schema: JSON schema of the answer."""

    messages: Sequence[Message]
    params: SamplingParams
    max_tokens: int = -1
    stops: Sequence[str] = ()
    choices: int = 1
    top_logprobs: int | None = None
    use: ToolUse = NO_TOOLS
    schema: dict[str, Any] | None = None
    param: str = "messages"  # the field that they came in


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of one choice's answer: text with its tokens, a call, or its end with the reason in OpenAI's words."""

    choice: int
    text: str = ""
    tokens: Sequence[TokenLogprob] = ()
    call: ToolCall | None = None
    generation: Generation | None = None
    reason: str | None = None  # stop, length or tool_calls


async def start(backend: Backend, chat: ChatRequest, client: str) -> ChatRun:
    """Render a conversation and submit it, once per choice. Raises ApiError."""
    backend.require_logits()
    ids = await prompt_ids(backend, chat.messages, chat.use, chat.param)
    schema = forcing_schema(chat.use.tools) if chat.use.forced else chat.schema
    requests = [
        Request(
            prompt=ids,
            max_tokens=chat.max_tokens,
            params=dataclasses.replace(chat.params, seed=chat.params.seed + place),
            stop_strings=list(chat.stops),
            top_logprobs=chat.top_logprobs,
        )
        for place in range(chat.choices)
    ]
    return ChatRun(backend.run(requests, client, await backend.constraint(schema)), chat, len(ids))


async def prompt_ids(backend: Backend, messages: Sequence[Message], use: ToolUse, param: str) -> list[int]:
    """Return the token ids of a conversation. Raises ApiError."""
    tools = use.tools
    if not takes_tools(backend.tokenizer.chat_template or ""):
        messages, tools = described(messages, tools), ()
    return await backend.conversation_ids(messages, tools, param)


class ChatRun:
    """The answers to one request as they come. Whoever starts one closes it."""

    def __init__(self, runs: Runs, chat: ChatRequest, prompt_tokens: int) -> None:
        self._runs, self._chat = runs, chat
        self._readers = [CallReader(chat.use.names) for _ in range(chat.choices)]
        self.usage = Usage(prompt_tokens)

    def close(self) -> None:
        """Stop what still runs."""
        self._runs.close()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        called: set[int] = set()
        async for choice, item in self._runs:
            if isinstance(item, Generation):
                self.usage.add(item)
                yield Piece(choice, generation=item, reason="tool_calls" if choice in called else end_reason(item))
                continue
            last = item.stop_reason is not None
            parts: list[str | ToolCall] = [item.text] if item.text else []
            if self._chat.use.tools:
                parts = self._readers[choice].feed(item.text, last)
            tokens = () if item.logprob is None else (item.logprob,)
            if tokens and not (parts and isinstance(parts[0], str)):
                parts.insert(0, "")
            for part in parts:
                if isinstance(part, ToolCall):
                    called.add(choice)
                    yield Piece(choice, call=part)
                else:
                    yield Piece(choice, part, tokens)
                    tokens = ()


@dataclasses.dataclass
class Usage:
    """Tokens of a request: a prompt counts once, however many choices there are."""

    prompt: int
    cached: int | None = None
    generated: int = 0
    speeds: tuple[float, float] = (0.0, 0.0)  # tokens per second: of the prompt, of the answer

    def add(self, generation: Generation) -> None:
        """Add a choice. Its stop token counts, since it was generated too."""
        self.cached = generation.cached_tokens if self.cached is None else self.cached
        self.generated += len(generation.ids) + (generation.stop_id is not None)
        self.speeds = (generation.prompt_tokens_per_second, generation.tokens_per_second)

    def timings(self) -> dict[str, float]:
        """Return the speeds of the last choice, as llama-server names them."""
        return {"prompt_per_second": self.speeds[0], "predicted_per_second": self.speeds[1]}

    def openai(self) -> dict[str, Any]:
        """Return OpenAI's `usage`."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached or 0},
        }


def end_reason(generation: Generation) -> str:
    """Return why an answer ended, in OpenAI's words. One that was cut by the time limit ends like one cut by length."""
    return "length" if generation.stop_reason in ("length", "context", "cancelled") else "stop"


def event(data: Any, name: str | None = None) -> str:
    """Return one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"

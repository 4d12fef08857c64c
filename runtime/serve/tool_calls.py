"""Tools: how a model is told of them and made to call one, and how its calls are found in its text.

Two forms are read: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` anywhere in an answer (Qwen, Hermes and
others), and an answer that is JSON from its first character on (Llama 3), where `parameters` may stand for `arguments`.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from tritpack.runtime.chat import Message

OPEN, CLOSE = "<tool_call>", "</tool_call>"
PYTHON_TAG = "<|python_tag|>"
"""What Llama 3 may write before a call."""

Tool = dict[str, Any]
"""A tool in OpenAI's format, {type: function, function: {name, description, parameters}}, as templates take it."""


@dataclasses.dataclass(frozen=True)
class ToolCall:
    """A call of a tool. arguments: JSON text."""

    name: str
    arguments: str
    id: str = dataclasses.field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


def described(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Return a conversation for a template that has no place for tools: tools, calls and results become text."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    about = (
        f"You can call these functions:\n{lines}\nTo call one, answer with "
        f'{OPEN}{{"name": NAME, "arguments": {{...}}}}{CLOSE} and nothing else.'
    )
    system = [message["content"] for message in messages[:1] if message["role"] == "system"]
    result: list[Message] = [{"role": "system", "content": "\n\n".join([*system, about])}] if tools else []
    for message in messages[len(system) if tools else 0 :]:
        if message["role"] == "tool":
            result.append({"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"})
        elif calls := message.get("tool_calls"):
            written = [f"{OPEN}{json.dumps(call['function'], ensure_ascii=False)}{CLOSE}" for call in calls]
            result.append({"role": "assistant", "content": "\n".join(filter(None, [message["content"], *written]))})
        else:
            result.append(message)
    return result


def forcing_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """Return the JSON schema of a call of one of the tools, for answers that must be one."""
    return {"anyOf": [_schema_of_call(tool["function"]) for tool in tools]}


def _schema_of_call(function: dict[str, Any]) -> dict[str, Any]:
    properties = {"name": {"const": function["name"]}, "arguments": function.get("parameters") or {"type": "object"}}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


class CallReader:
    """Finds calls in an answer as it grows. Text that may become a call is held back until that is decided."""

    def __init__(self, names: Iterable[str]) -> None:
        """names: of the tools; a call of any other is text."""
        self._names = frozenset(names)
        self._held = ""
        self._begun = False  # text has been shown, so the answer is not one call from its beginning

    def feed(self, text: str, last: bool = False) -> list[str | ToolCall]:
        """Return what `text` completes, in order. last: the answer ends here."""
        self._held += text
        parts: list[str | ToolCall] = []
        while self._held:
            start = self._held.find(OPEN)
            if start < 0 and not self._begun and _may_be_json(self._held) and not last:
                break
            if start < 0:
                parts += self._rest(last)
                break
            if start:
                parts += self._shown(self._held[:start])
                self._held = self._held[start:]
            end = self._held.find(CLOSE)
            if end < 0 and not last:
                break
            inside, whole = (
                (self._held[len(OPEN) : end], end + len(CLOSE)) if end >= 0 else (self._held[len(OPEN) :], None)
            )
            calls = self._calls(inside)
            parts += calls or self._shown(self._held[:whole])
            self._held = self._held[whole:].lstrip("\n") if whole else ""
        return parts

    def _rest(self, last: bool) -> list[str | ToolCall]:
        """Text without a mark: all of it at the end, else what cannot be the beginning of one."""
        if last:
            text, self._held = self._held, ""
            calls = [] if self._begun else self._calls(text)
            return [*calls] if calls else self._shown(text)
        keep = next((n for n in range(min(len(OPEN) - 1, len(self._held)), 0, -1) if self._held.endswith(OPEN[:n])), 0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return self._shown(shown)

    def _shown(self, text: str) -> list[str | ToolCall]:
        if not text or (not self._begun and not text.strip()):
            return []
        self._begun = True
        return [text]

    def _calls(self, text: str) -> list[ToolCall]:
        """The calls that a text consists of; none if it is anything else."""
        text = text.strip().removeprefix(PYTHON_TAG)
        values: list[Any] = []
        decoder = json.JSONDecoder()
        try:
            while text := text.lstrip(" \t\r\n;,"):
                value, end = decoder.raw_decode(text)
                values += value if isinstance(value, list) else [value]
                text = text[end:]
        except (ValueError, RecursionError):
            return []
        calls = [self._call(value) for value in values]
        return [call for call in calls if call] if all(calls) else []

    def _call(self, value: Any) -> ToolCall | None:
        value = value.get("function", value) if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in self._names:
            return None
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                return None
        if not isinstance(arguments, dict):
            return None
        return ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False))


def _may_be_json(text: str) -> bool:
    """Whether an answer so far can be one of JSON alone."""
    text = text.lstrip()
    return not text or text[0] in "{[" or PYTHON_TAG.startswith(text[: len(PYTHON_TAG)])

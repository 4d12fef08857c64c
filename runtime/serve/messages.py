"""Conversations of each protocol as lists of messages that chat templates take."""

from __future__ import annotations

import json
from typing import Any

from tritpack.formats.errors import UsageError
from tritpack.runtime.chat import Message, check_messages
from tritpack.runtime.serve.api_errors import ApiError
from tritpack.runtime.serve.json_fields import Fields

ROLES = {"developer": "system", "function": "tool"}
"""Names for roles that templates know by another one."""


def checked(messages: list[Any], param: str) -> list[Message]:
    """Return messages with text as content. Raises ApiError for an image and other wrong messages."""
    try:
        listed = check_messages(messages)
    except UsageError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise ApiError(f"{error.message}{hint}", code="invalid_value", param=param) from error
    return [{**message, "role": ROLES.get(message["role"], message["role"])} for message in listed]


def conversation(fields: Fields) -> list[Message]:
    """Return the messages of /v1/chat/completions."""
    if fields.values.get("messages") is None:
        raise fields.fail("messages", "a list of messages")
    return checked([message.values for message in fields.objects("messages")], "messages")


def instructed(instructions: str | None, messages: list[Any]) -> list[Any]:
    """Return messages after a system message, if there are instructions."""
    return [{"role": "system", "content": instructions}, *messages] if instructions else messages


# -- /v1/messages ------------------------------------------------------------------------------------------------------


def anthropic_conversation(fields: Fields) -> list[Message]:
    """Return the messages of /v1/messages with their system text in front."""
    if fields.values.get("messages") is None:
        raise fields.fail("messages", "a list of messages")
    messages: list[Any] = []
    for message in fields.objects("messages"):
        role, content = message.text("role"), message.values.get("content")
        if role not in ("user", "assistant", "system"):
            raise message.fail("role", "user or assistant")
        if isinstance(content, list):
            messages += _of_blocks(role, message.objects("content"))
        else:
            messages.append({"role": role, "content": content})
    return checked(instructed(_system(fields), messages), "messages")


def _system(fields: Fields) -> str | None:
    if isinstance(fields.values.get("system"), list):
        return "\n".join(_text(block) for block in fields.objects("system"))
    return fields.text("system")


def _of_blocks(role: str, blocks: list[Fields]) -> list[Any]:
    """The messages of one message of blocks: each result of a tool is a message of its own, before the text."""
    texts, calls, results = [], [], []
    for block in blocks:
        kind = block.text("type")
        if kind == "tool_use":
            arguments = block.object("input")
            function = {"name": block.text("name", ""), "arguments": dict(arguments.values) if arguments else {}}
            calls.append({"id": block.text("id", ""), "type": "function", "function": function})
        elif kind == "tool_result":
            results.append({"role": "tool", "tool_call_id": block.text("tool_use_id", ""), "content": _result(block)})
        elif kind not in ("thinking", "redacted_thinking"):
            texts.append(_text(block))
    message: Message = {"role": role, "content": "\n".join(texts)}
    if calls:
        message["tool_calls"] = calls
    return [*results, message] if texts or calls or not results else results


def _result(block: Fields) -> str:
    if isinstance(block.values.get("content"), list):
        return "\n".join(_text(part) for part in block.objects("content"))
    return block.text("content", "") or ""


def _text(block: Fields) -> str:
    if block.text("type", "text") != "text":
        raise ApiError(
            f"{block.path} is of type {block.text('type')}, expected text: the model reads text only",
            code="invalid_value", param=block.path,
        )  # fmt: skip
    text = block.text("text")
    if text is None:
        raise block.fail("text", "text")
    return text


# -- /v1/responses -----------------------------------------------------------------------------------------------------


def response_conversation(fields: Fields) -> list[Message]:
    """Return the input of /v1/responses, a text or a list of items, with its instructions in front."""
    value = fields.values.get("input")
    if isinstance(value, str):
        messages: list[Any] = [{"role": "user", "content": value}]
    elif isinstance(value, list):
        messages = []
        for item in fields.objects("input"):
            _add_item(messages, item)
    else:
        raise fields.fail("input", "text or a list of items")
    return checked(instructed(fields.text("instructions"), messages), "input")


def _add_item(messages: list[Any], item: Fields) -> None:
    kind = item.text("type", "message")
    if kind == "message":
        messages.append({"role": item.text("role", ""), "content": item.values.get("content")})
    elif kind == "function_call":
        function = {"name": item.text("name", ""), "arguments": item.text("arguments", "{}")}
        call = {"id": item.text("call_id", ""), "type": "function", "function": function}
        if messages and messages[-1].get("tool_calls"):  # calls of one turn belong to one message
            messages[-1]["tool_calls"].append(call)
        else:
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    elif kind == "function_call_output":
        output = item.values.get("output")
        content = output if isinstance(output, (str, list)) else json.dumps(output)
        messages.append({"role": "tool", "tool_call_id": item.text("call_id", ""), "content": content})
    elif kind != "reasoning":
        raise item.fail("type", "message, function_call or function_call_output")

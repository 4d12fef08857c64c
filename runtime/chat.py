"""Chat templates: they turn a list of messages into the text, and the token ids, that the model was trained on.

A template is a program from a downloaded file, so it runs in another process with limits (untrusted.py), and there in
jinja2's sandbox (template_sandbox.py). That is set up as transformers sets up its own, so that the same template gives
the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tritpack.formats.errors import Unsupported, UsageError, locating
from tritpack.runtime.tokenizer import Tokenizer
from tritpack.runtime.untrusted import render

Message = dict[str, Any]

_MESSAGES_HINT = 'a chat is a JSON list like [{"role": "user", "content": "Hello"}]'
_TOOLS_HINT = 'a tool is {"type": "function", "function": {"name": "clock", "parameters": {...}}}'
_OWN_NAMES = ("messages", "tools", "add_generation_prompt")
"""What a caller gives a template by an argument of its own, and not as a variable."""


def parse_messages(document: str) -> list[Message]:
    """Parse the JSON text of a chat. Raises UsageError."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"the chat is not valid JSON ({exc})", hint=_MESSAGES_HINT) from exc
    return check_messages(value)


def check_messages(value: object) -> list[Message]:
    """Return a list of messages as templates take them: each an object with text under `role` and `content`.

    A content that is a list of text parts, as OpenAI's clients send it, becomes their lines. The content of a message
    with `tool_calls` may be absent, and the arguments of a call may be JSON text, which becomes an object.
    Raises UsageError for anything else.
    """
    if not isinstance(value, list) or not value:
        raise UsageError("the chat is not a non-empty list of messages", hint=_MESSAGES_HINT)
    return [_checked_message(message, f"message {place} of the chat") for place, message in enumerate(value)]


def _checked_message(message: object, name: str) -> Message:
    if not isinstance(message, dict):
        raise UsageError(f"{name} is not an object", hint=_MESSAGES_HINT)
    if not isinstance(message.get("role"), str):
        raise UsageError(f"{name} has no text under 'role'", hint=_MESSAGES_HINT)
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, str) and not calls:
        return message
    if isinstance(content, list):
        content = "\n".join(_part_text(part, name) for part in content)
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise UsageError(f"{name} has no text under 'content'", hint=_MESSAGES_HINT)
    message = {**message, "content": content}
    return {**message, "tool_calls": _checked_calls(calls, name)} if calls else message


def _part_text(part: object, name: str) -> str:
    """The text of a part of a content. Raises UsageError for an image or another kind."""
    if not isinstance(part, dict) or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, dict) else None
        of = f" of type {kind!r}" if isinstance(kind, str) else ""
        raise UsageError(f"{name} has a part{of} that is not text", hint="the model reads text only")
    return str(part["text"])


def _checked_calls(calls: object, name: str) -> list[dict[str, Any]]:
    """Calls of tools, whose arguments are objects: templates write them as JSON by themselves. Raises UsageError."""
    checked = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UsageError(f"{name} has a tool call without the name of a function")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError) as exc:
                raise UsageError(f"{name} has a tool call whose arguments are not valid JSON ({exc})") from exc
        checked.append({**call, "function": {**function, "arguments": arguments}})
    return checked


def check_tools(value: object) -> list[dict[str, Any]]:
    """Return a list of tools in OpenAI's format, as templates take them. Raises UsageError."""
    if not isinstance(value, list):
        raise UsageError("the tools are not a list", hint=_TOOLS_HINT)
    for place, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UsageError(f"tool {place} has no function with a name", hint=_TOOLS_HINT)
    return value


def takes_tools(template: str) -> bool:
    """Tell whether a template mentions tools: one that does not leaves them out in silence."""
    return re.search(r"\btools\b", template) is not None


def render_chat(
    template: str,
    messages: Sequence[Message],
    *,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Render `messages`.

    special_tokens: the text of bos_token, pad_token and the like, by name; the template sees these. A token that the
    tokenizer lacks stays undefined and renders as nothing. tools: in OpenAI's format. variables: more names that the
    template sees, such as `enable_thinking`; their values are JSON.
    Raises UsageError for wrong messages, tools or variables, Unreadable for a template that fails or that takes too
    long, too much memory or too many characters, MissingRequirement without jinja2.
    """
    if wrong := [name for name in variables or () if name in _OWN_NAMES]:
        raise UsageError(f"{wrong[0]!r} cannot be a variable of the chat template: it has an argument of its own")
    names = {
        **special_tokens,
        "documents": None,
        **(variables or {}),
        "messages": check_messages(list(messages)),
        "tools": check_tools(list(tools)) if tools else None,
        "add_generation_prompt": add_generation_prompt,
    }
    return render(template, names, characters=_characters([names["messages"], names["tools"], dict(variables or {})]))


def _characters(value: Any) -> int:
    """The number of characters in all texts of a JSON value."""
    if isinstance(value, Mapping):
        return sum(_characters(key) + _characters(part) for key, part in value.items())
    if isinstance(value, list):
        return sum(map(_characters, value))
    return len(value) if isinstance(value, str) else 0


def chat_text(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = True,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Render `messages` with the tokenizer's own template, and the arguments of `render_chat`. Raises Unsupported if it
    has none."""
    if not tokenizer.chat_template:
        raise Unsupported(
            "the file has no chat template (tokenizer.chat_template): it is a base model",
            path=tokenizer.path,
            hint="use -p with a prompt instead of a chat",
        )
    checked = check_messages(list(messages))
    with locating(path=tokenizer.path):
        return render_chat(
            tokenizer.chat_template,
            checked,
            special_tokens=tokenizer.special_tokens,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            variables=variables,
        )


def chat_ids(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = True,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """Return the token ids of `chat_text`, without specials beyond those that the template renders."""
    text = chat_text(tokenizer, messages, add_generation_prompt, tools=tools, variables=variables)
    return tokenizer.encode(text, add_special=False)

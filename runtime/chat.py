"""Chat templates: they turn a list of messages into the text, and the token ids, that the model was trained on.

A template is a program from a downloaded file, so it runs in another process with limits (untrusted.py), and there in
jinja2's sandbox (template_sandbox.py). That is set up as transformers sets up its own, so that the same template gives
the same text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tritpack.formats.errors import Unsupported, UsageError, locating
from tritpack.runtime.tokenizer import Tokenizer
from tritpack.runtime.untrusted import render

Message = dict[str, Any]

_MESSAGES_HINT = 'a chat is a JSON list like [{"role": "user", "content": "Hello"}]'


def parse_messages(document: str) -> list[Message]:
    """Parse the JSON text of a chat. Raises UsageError."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"the chat is not valid JSON ({exc})", hint=_MESSAGES_HINT) from exc
    return check_messages(value)


def check_messages(value: object) -> list[Message]:
    """Return `value` if it is a non-empty list of {role, content} with text in both. Raises UsageError."""
    if not isinstance(value, list) or not value:
        raise UsageError("the chat is not a non-empty list of messages", hint=_MESSAGES_HINT)
    for place, message in enumerate(value):
        if not isinstance(message, dict):
            raise UsageError(f"message {place} of the chat is not an object", hint=_MESSAGES_HINT)
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise UsageError(f"message {place} of the chat has no text under {key!r}", hint=_MESSAGES_HINT)
    return value


def render_chat(
    template: str,
    messages: Sequence[Message],
    *,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
) -> str:
    """Render `messages`.

    special_tokens: the text of bos_token, pad_token and the like, by name; the template sees these. A token that the
    tokenizer lacks stays undefined and renders as nothing. Raises UsageError for wrong messages, Unreadable for a
    template that fails or that takes too long, too much memory or too many characters, MissingRequirement without
    jinja2.
    """
    checked = check_messages(list(messages))
    names = {
        **special_tokens,
        "messages": checked,
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
    }
    return render(template, names, characters=sum(len(message["content"]) for message in checked))


def chat_text(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
    """Render `messages` with the tokenizer's own template. Raises Unsupported if it has none."""
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
        )


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
    """Return the token ids of `chat_text`, without specials beyond those that the template renders."""
    return tokenizer.encode(chat_text(tokenizer, messages, add_generation_prompt), add_special=False)

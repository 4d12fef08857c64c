"""Chat templates: they turn a list of messages into the text, and the token ids, that the model was trained on.

A template is a program from a downloaded file, so it runs in jinja2's sandbox (template_sandbox.py), which is set up as
transformers sets up its own, so that the same template gives the same text. jinja2 is imported on first use.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported, UsageError
from tritpack.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]

# The exceptions that a mistake in a template raises, besides jinja2's own.
_TEMPLATE_FAULTS = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip

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
    bos_token: str | None,
    eos_token: str | None,
    add_generation_prompt: bool = True,
) -> str:
    """Render `messages`. Raises UsageError for wrong messages, Unreadable for a template that fails."""
    checked = check_messages(list(messages))
    environment = _environment()  # before the import below: it raises the error that names jinja2
    from jinja2 import TemplateError

    # A token that the tokenizer lacks stays undefined and renders as nothing; None would render as "None".
    specials = {name: text for name, text in (("bos_token", bos_token), ("eos_token", eos_token)) if text is not None}
    try:
        text: str = environment.from_string(template).render(
            messages=json.loads(json.dumps(checked)),  # a copy: the template cannot reach the caller's objects
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **specials,
        )
    except (TemplateError, *_TEMPLATE_FAULTS) as exc:
        raise Unreadable(
            f"the chat template cannot render this chat: {' '.join(str(exc).split()) or type(exc).__name__}",
            hint="the template is tokenizer.chat_template in the file; check that it accepts these roles",
        ) from exc
    return text


def chat_text(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
    """Render `messages` with the tokenizer's own template. Raises Unsupported if it has none."""
    if not tokenizer.chat_template:
        raise Unsupported(
            "the file has no chat template (tokenizer.chat_template): it is a base model",
            hint="use -p with a prompt instead of a chat",
        )
    return render_chat(
        tokenizer.chat_template,
        messages,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        add_generation_prompt=add_generation_prompt,
    )


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
    """Return the token ids of `chat_text`, without specials beyond those that the template renders."""
    return tokenizer.encode(chat_text(tokenizer, messages, add_generation_prompt), add_special=False)


@functools.lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    """The sandbox. Raises MissingRequirement without jinja2, or with a version whose sandbox has known holes."""
    try:
        import jinja2
    except ImportError as exc:
        raise MissingRequirement(
            "chat templates need the Python package jinja2, which is not installed", hint="pip install jinja2"
        ) from exc
    if tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdigit()) < (3, 1, 6):
        raise MissingRequirement(
            f"chat templates need jinja2 3.1.6 or later, {jinja2.__version__} is installed",
            hint="pip install --upgrade jinja2",
        )
    from tritpack.runtime.template_sandbox import environment

    return environment()

"""Chat templates: they turn a list of messages into the text, and the token ids, that the model was trained on.

A template is a program from a downloaded file, so it runs in jinja2's sandbox. The sandbox is set up as transformers
sets up its own (transformers/utils/chat_template_utils.py), so that the same template gives the same text. jinja2 is
imported on first use.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
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
_LONGEST_PRODUCT = 1_000_000  # of `*` and `**` inside a template, in characters or bits


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
        from jinja2 import ext, nodes, parser, sandbox
    except ImportError as exc:
        raise MissingRequirement(
            "chat templates need the Python package jinja2, which is not installed", hint="pip install jinja2"
        ) from exc
    if tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdigit()) < (3, 1, 6):
        raise MissingRequirement(
            f"chat templates need jinja2 3.1.6 or later, {jinja2.__version__} is installed",
            hint="pip install --upgrade jinja2",
        )

    class GenerationTag(ext.Extension):
        """`{% generation %}`, which marks the assistant's words for training; here its body is only rendered."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it as an instance attribute)

        def parse(self, parser: parser.Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    class Sandbox(sandbox.ImmutableSandboxedEnvironment):
        """jinja2's sandbox, with a limit so that `'a' * 10**10` cannot fill the memory."""

        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "*":
                for many, times in ((left, right), (right, left)):
                    repeats = isinstance(many, (str, list, tuple)) and isinstance(times, int)
                    if repeats and len(many) * times > _LONGEST_PRODUCT:
                        raise jinja2.TemplateError("the template repeats a value too often")
            elif isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _LONGEST_PRODUCT:
                raise jinja2.TemplateError("the template raises a number to too high a power")
            return super().call_binop(context, operator, left, right)

    class Namespace(jinja2.utils.Namespace):
        """`namespace()` that refuses names with a leading underscore, which lead to Python's internals."""

        def __init__(*args: Any, **values: Any) -> None:
            for name in dict(*args[1:], **values):
                Namespace.refuse_private(name)
            jinja2.utils.Namespace.__init__(*args, **values)

        def __setitem__(self, name: str, value: Any) -> None:
            Namespace.refuse_private(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def refuse_private(name: object) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"the template sets the private attribute {name!r}")

    class PlainDict:
        """`dict(...)` and `dict.fromkeys(...)`, without access to the type itself."""

        def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
            return dict(*args, **values)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # jinja2's own `tojson` escapes for HTML, and no model was trained on that.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(pattern: str) -> str:
        return datetime.datetime.now().strftime(pattern)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, ext.loopcontrols])
    environment.filters["tojson"] = tojson
    additions: Mapping[str, Any] = {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": PlainDict(),
        "namespace": Namespace,
    }
    environment.globals.update(additions)
    return environment

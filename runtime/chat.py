"""Chat templates: a list of messages to the text (and the token ids) that the model was trained on.

A template is a program out of a downloaded file, so it runs in jinja2's sandbox, set up as transformers does
(transformers/utils/chat_template_utils.py) so that the same template gives the same text. jinja2 is imported on use.
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

# What a template's own mistakes raise, besides jinja2's errors.
_TEMPLATE_FAULTS = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip

_MESSAGES_HINT = 'a chat is a JSON list like [{"role": "user", "content": "Hello"}]'
_LONGEST_PRODUCT = 1_000_000  # characters or bits that `*` and `**` may make inside a template


def parse_messages(document: str) -> list[Message]:
    """The JSON text of a chat as messages. Raises UsageError."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"the chat is not valid JSON ({exc})", hint=_MESSAGES_HINT) from exc
    return check_messages(value)


def check_messages(value: object) -> list[Message]:
    """`value` if it is a non-empty list of {role, content} with text in both. Raises UsageError."""
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
    """The text of `messages`. Raises UsageError (messages), Unreadable (template)."""
    checked = check_messages(list(messages))
    environment = _environment()  # first: it is what says that jinja2 is missing
    from jinja2 import TemplateError

    # A token that the tokenizer lacks stays undefined and renders as nothing; None would render as "None".
    named = {name: text for name, text in (("bos_token", bos_token), ("eos_token", eos_token)) if text is not None}
    try:
        text: str = environment.from_string(template).render(
            messages=json.loads(json.dumps(checked)),  # a plain copy: the caller's objects never reach the template
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **named,
        )
    except (TemplateError, *_TEMPLATE_FAULTS) as exc:
        raise Unreadable(
            f"the chat template cannot render this chat: {' '.join(str(exc).split()) or type(exc).__name__}",
            hint="the template is tokenizer.chat_template in the file; check that the roles are ones it knows",
        ) from exc
    return text


def chat_text(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
    """The text of `messages` by the tokenizer's own template. Raises Unsupported if it has none."""
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
    """Token ids of `chat_text`: no specials beyond what the template renders."""
    return tokenizer.encode(chat_text(tokenizer, messages, add_generation_prompt), add_special=False)


@functools.lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    try:
        import jinja2
        from jinja2 import ext, nodes, parser, sandbox
    except ImportError as exc:
        raise MissingRequirement(
            "chat templates need the Python package jinja2, which is not installed", hint="pip install jinja2"
        ) from exc
    if tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdigit()) < (3, 1, 6):
        # Older sandboxes have known holes.
        raise MissingRequirement(
            f"chat templates need jinja2 3.1.6 or later, {jinja2.__version__} is installed",
            hint="pip install --upgrade jinja2",
        )

    class GenerationTag(ext.Extension):
        """`{% generation %}` marks the assistant's words for training; here its body is just rendered."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it as an instance attribute)

        def parse(self, parser: parser.Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    class Sandbox(sandbox.ImmutableSandboxedEnvironment):
        """jinja2's sandbox, in which a short template cannot ask for gigabytes by `'a' * 10**10`."""

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
        """`namespace()` without names that begin with an underscore: those lead to Python's internals."""

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
        """`dict(...)` and `dict.fromkeys(...)`, not the type itself."""

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
        # jinja2's own escapes for HTML, which no model was trained on.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

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

"""The sandbox of jinja2 in which chat templates run, set up as transformers sets up its own.

Importing this module imports jinja2; only the process of runtime/worker.py does, on first use.
"""

from __future__ import annotations

import datetime
import functools
import json
from typing import Any

import jinja2
from jinja2 import ext, nodes, parser, sandbox

from tritpack.formats.errors import Unreadable

# The exceptions that a mistake in a template raises, besides jinja2's own.
FAULTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
LONGEST_PRODUCT = 1_000_000
"""Of `*` and `**` inside a template, in characters or bits."""


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
                if repeats and len(many) * times > LONGEST_PRODUCT:
                    raise jinja2.TemplateError("the template repeats a value too often")
        elif isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > LONGEST_PRODUCT:
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


@functools.lru_cache(maxsize=1)
def environment() -> sandbox.ImmutableSandboxedEnvironment:
    """Return the sandbox with the extensions, filters and functions that templates may use."""
    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, ext.loopcontrols])
    made.filters["tojson"] = tojson
    made.globals.update(
        raise_exception=raise_exception, strftime_now=strftime_now, dict=PlainDict(), namespace=Namespace
    )
    return made


@functools.lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
    """Return the template as jinja2 runs it."""
    return environment().from_string(template)


def render(template: str, names: dict[str, Any], longest: int) -> str:
    """Render a template. Raises Unreadable if it fails, or gives more than `longest` characters."""
    pieces: list[str] = []
    length = 0
    try:
        for piece in compiled(template).generate(names):
            pieces.append(piece)
            length += len(piece)
            if length > longest:
                raise Unreadable(f"the chat template gives more than {longest} characters")
    except (jinja2.TemplateError, *FAULTS) as exc:
        raise Unreadable(
            f"the chat template cannot render this chat: {' '.join(str(exc).split()) or type(exc).__name__}",
            hint="the template is tokenizer.chat_template in the file; check that it accepts these roles",
        ) from exc
    return "".join(pieces)

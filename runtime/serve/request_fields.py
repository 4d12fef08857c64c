"""What the protocols' requests have in common: sampling, stop strings, formats of answers, tools."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

from tritpack.formats.errors import TritpackError
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.sampling_defaults import sampling_params
from tritpack.runtime.serve.api_errors import from_library
from tritpack.runtime.serve.backend import Backend
from tritpack.runtime.serve.json_fields import Fields
from tritpack.runtime.serve.limits import MOST_STOPS, MOST_TOOLS
from tritpack.runtime.serve.tool_calls import Tool

LONGEST_STOP = 1000


def sampling_of(fields: Fields, backend: Backend) -> SamplingParams:
    """Return how to sample: the request's fields, and the file's defaults for the rest. Without a seed it is random.

    top_k, min_p, repeat_penalty (also repetition_penalty) and a seed of -1 are those of llama-server.
    """
    for key in ("frequency_penalty", "presence_penalty"):
        fields.refuse(key, (0,), "leave it out, or use repeat_penalty")
    fields.refuse("logit_bias", ({},), "leave it out")
    penalty = "repeat_penalty" if fields.values.get("repeat_penalty") is not None else "repetition_penalty"
    top_k, top_p = fields.integer("top_k", None, -1), fields.number("top_p", None, 0, 1)
    seed = fields.integer("seed", None, -(2**63), 2**63 - 1)
    options: dict[str, Any] = {
        "temp": fields.number("temperature", None, 0, 100),
        "top_k": None if top_k is None else max(0, top_k),  # -1 is off, as elsewhere
        "top_p": None if top_p is None else max(1e-9, top_p),  # 0 leaves the likeliest token
        "min_p": fields.number("min_p", None, 0, 1),
        "repeat_penalty": fields.number(penalty, None, 0, 100),
    }
    try:
        params = sampling_params(backend.model.file.metadata, **options)
    except TritpackError as error:
        raise from_library(error) from error
    return dataclasses.replace(params, seed=secrets.randbits(32) if seed is None or seed == -1 else seed % 2**62)


def stops_of(fields: Fields, key: str = "stop") -> list[str]:
    """Return the stop strings."""
    stops = fields.texts(key, MOST_STOPS)
    if any(len(stop) > LONGEST_STOP for stop in stops):
        raise fields.fail(key, f"texts of at most {LONGEST_STOP} characters")
    return [stop for stop in stops if stop]


def schema_of(format_: Fields | None, json_schema: str | None = "json_schema") -> dict[str, Any] | None:
    """Return the JSON schema that an answer has to follow, None for text.

    format_: {type: text | json_object | json_schema}. json_schema: the field of it with {schema: ...}; None if it is in
    `format_` itself.
    """
    kind = format_.text("type") if format_ else "text"
    if format_ is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise format_.fail("type", "text, json_object or json_schema")
    holder = format_.object(json_schema) if json_schema else format_
    schema = holder.object("schema") if holder else None
    if schema is None:
        raise (holder or format_).fail("schema" if holder else str(json_schema), "an object")
    return dict(schema.values)


@dataclasses.dataclass(frozen=True)
class ToolUse:
    """The tools of a request. forced: the answer has to be a call of one of them."""

    tools: tuple[Tool, ...] = ()
    forced: bool = False

    @property
    def names(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.tools]


NO_TOOLS = ToolUse()


def tools_of(fields: Fields, nested: bool = True) -> list[Tool]:
    """Return the tools of a request of OpenAI's. nested: in {type, function: {...}}, else all in one object.

    Raises ApiError for tools that a vendor's server would run by itself.
    """
    tools = []
    for tool in _limited(fields):
        if tool.text("type", "function") != "function":
            raise tool.fail("type", "function: this server runs no tools by itself")
        function = tool.object("function") if nested else tool
        if function is None:
            raise tool.fail("function", "an object")
        tools.append(made_tool(function, "parameters"))
    return tools


def made_tool(function: Fields, parameters: str) -> Tool:
    """Return a tool as templates take it. parameters: the field with its JSON schema."""
    name = function.text("name")
    if not name:
        raise function.fail("name", "text")
    schema = function.object(parameters)
    made = {
        "name": name,
        "description": function.text("description", ""),
        "parameters": dict(schema.values) if schema else {"type": "object"},
    }
    return {"type": "function", "function": made}


def _limited(fields: Fields) -> list[Fields]:
    tools = fields.objects("tools")
    if len(tools) > MOST_TOOLS:
        raise fields.fail("tools", f"at most {MOST_TOOLS} tools")
    return tools


def anthropic_tools(fields: Fields) -> list[Tool]:
    """Return the tools of a request of Anthropic's."""
    tools = []
    for tool in _limited(fields):
        if tool.text("type", "custom") != "custom":
            raise tool.fail("type", "custom: this server runs no tools by itself")
        tools.append(made_tool(tool, "input_schema"))
    return tools


def chosen(tools: list[Tool], choice: str, fields: Fields) -> ToolUse:
    """Return how tools are used. choice: auto, none, required, or `=NAME` for the tool that has to be called."""
    if choice == "none" or (choice == "auto" and not tools):
        return NO_TOOLS
    if choice == "auto":
        return ToolUse(tuple(tools))
    named = [tool for tool in tools if choice == "required" or tool["function"]["name"] == choice[1:]]
    if not named:
        raise fields.fail("tool_choice", "the name of one of the tools" if tools else "tools that can be called")
    return ToolUse(tuple(named), forced=True)


def openai_choice(fields: Fields, nested: bool = True) -> str:
    """Return `tool_choice` as `chosen` takes it."""
    value = fields.values.get("tool_choice")
    if value is None:
        return "auto"
    if isinstance(value, dict):
        holder = fields.object("tool_choice")
        named = holder.object("function") if holder and nested else holder
        name = named.text("name") if named else None
        if name:
            return f"={name}"
    elif value in ("auto", "none", "required"):
        return str(value)
    raise fields.fail("tool_choice", "auto, none, required, or an object that names a function")

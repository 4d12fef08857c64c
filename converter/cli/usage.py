"""What a mistyped command line gets: click's own errors in the form of ours, with the nearest right name as a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import click
from click.core import ParameterSource

from tritpack.formats.errors import UsageError
from tritpack.formats.suggestions import did_you_mean


class ChoiceBeside(click.Choice):  # type: ignore[type-arg]
    """A choice with hints for values that belong to another option. elsewhere: value -> hint."""

    def __init__(self, choices: Iterable[str], elsewhere: Mapping[str, str]) -> None:
        super().__init__(list(choices))
        self.elsewhere = elsewhere


def as_ours(error: click.ClickException) -> UsageError:
    """Return an error of click as one of ours. All of them are about usage; click ends some of them with 1."""
    context = getattr(error, "ctx", None)
    if context is None:
        return UsageError(_plain(error.format_message()), hint="--help after a command explains all of its options")
    hint = f"'{context.command_path} --help' explains all arguments and options"
    if isinstance(error, click.NoSuchOption):
        options = [name for option in context.command.params for name in option.opts if name.startswith("--")]
        nearest = did_you_mean(error.option_name, options)
        return UsageError(f"{context.info_name} has no option {error.option_name}", hint=nearest or hint)
    parameter = getattr(error, "param", None)
    if not isinstance(error, click.BadParameter) or parameter is None:
        return UsageError(_plain(error.format_message()), hint=_for_texts(error, context.command) or hint)
    name = _name(parameter)
    if isinstance(error, click.MissingParameter):
        if isinstance(parameter, click.Option) and "-o" in parameter.opts:
            hint = f"give what to write with -o {parameter.metavar or 'OUT'}"
        return UsageError(f"{name} is missing", hint=hint)
    if isinstance(parameter.type, click.Choice):
        value = error.message.partition(" ")[0].strip("'\"")  # the only place where click keeps it
        elsewhere = parameter.type.elsewhere if isinstance(parameter.type, ChoiceBeside) else {}
        hint = (
            elsewhere.get(value.lower())
            or _of_floats(name, value)
            or did_you_mean(value, map(str, parameter.type.choices))
            or hint
        )
    if context.get_parameter_source(parameter.name) is ParameterSource.ENVIRONMENT:
        variable = parameter.envvar if isinstance(parameter.envvar, str) else " or ".join(parameter.envvar)
        hint = f"the value comes from the environment variable {variable}"
    return UsageError(f"{name}: {_plain(error.message)}", hint=hint)


def _for_texts(error: click.ClickException, command: click.Command) -> str | None:
    """Return a hint for a prompt that was given without -p."""
    takes_texts = any("--prompt" in option.opts and "-p" in option.opts for option in command.params)
    return "give a text with -p TEXT" if takes_texts and "extra argument" in error.message else None


def _of_floats(name: str, value: str) -> str | None:
    """Return a hint for a type of rounded floats, which ternary weights are never stored in."""
    if name != "--outtype" or not re.fullmatch(r"(iq|q)[2-8](_[a-z0-9_]+)?", value.lower()):
        return None
    return (
        "ternary weights are stored exactly, mostly as i2_s; --embedding-type q4_k, q6_k or q8_0 rounds the embedding"
    )


def _name(parameter: click.Parameter) -> str:
    """Return what a user types: the longest name of an option, the metavar of an argument."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.metavar or str(parameter.name).upper()


def _plain(message: str) -> str:
    """Return a sentence of click as the first line of an error: lower case, no full stop, one line."""
    message = " ".join(message.split()).rstrip(".")
    for kind, article in (("integer", "an integer"), ("float", "a number")):
        message = message.replace(f"a valid {kind} range", article).replace(f"a valid {kind}", article)
    return message[:1].lower() + message[1:]

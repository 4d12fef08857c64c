"""The options that say how tokens are chosen: sampling, whose defaults a file may hold, and grammars."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.main import show
from tritpack.converter.cli.model_options import read_text_argument
from tritpack.formats.errors import UsageError

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

NEEDS_LIBRARY = 'Needs llguidance: pip install "tritpack[grammar]".'
NAMES = ("temp", "top_k", "top_p", "min_p", "repeat_penalty")


def sampling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --temp, --top-k, --top-p, --min-p, --repeat-penalty and --seed to a command."""
    for option in (
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampler."),
        click.option("--repeat-penalty", type=float, help="1 is off. Default: the file's, or 1."),
        click.option("--min-p", type=float, help="0 is off. Default: the file's, or 0."),
        click.option("--top-p", type=float, help="1 is off. Default: the file's, or 1."),
        click.option("--top-k", type=int, help="0 is off. Default: the file's, or 0."),
        click.option(
            "--temp",
            type=float,
            help="Temperature; 0 is greedy and ignores what the file says. Default: the file's, or 0.",
        ),
    ):
        function = option(function)
    return function


def grammar_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json-schema and --grammar to a command."""
    for option in (
        click.option(
            "--grammar",
            type=PATH,
            metavar="FILE",
            help=f"Grammar that the text keeps to, in GBNF or Lark. {NEEDS_LIBRARY}",
        ),
        click.option(
            "--json-schema",
            metavar="FILE|JSON",
            help=f"JSON schema that the text keeps to: a file or the JSON itself; {{}} is any JSON. {NEEDS_LIBRARY}",
        ),
    ):
        function = option(function)
    return function


def take_grammar(options: dict[str, Any]) -> dict[str, str]:
    """Move the options of `grammar_options` out of a command's keyword arguments, and return the texts that are given.

    Raises UsageError for both at once, Unreadable for a file that cannot be read.
    """
    schema, grammar = options.pop("json_schema"), options.pop("grammar")
    if schema is not None and grammar is not None:
        raise UsageError("give either --json-schema or --grammar, not both")
    if schema is not None:
        return {"json_schema": schema if schema.lstrip().startswith("{") else read_text_argument(schema)}
    return {} if grammar is None else {"grammar": read_text_argument(grammar)}


def take_sampling(options: dict[str, Any]) -> dict[str, Any]:
    """Move the options of `sampling_options` out of a command's keyword arguments; those that are not given are None.

    Raises UsageError for impossible values, before FILE is opened.
    """
    from tritpack.runtime.sampling_defaults import sampling_params

    sampling = {name: options.pop(name) for name in (*NAMES, "seed")}
    sampling_params({}, **sampling)
    return sampling


def with_defaults(model: Model, sampling: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Return the sampling options with the file's in the places of those that are not given, and say so on stderr."""
    from tritpack.runtime.sampling_defaults import resolve

    resolved = resolve(sampling, model.sampling_defaults)
    used = [name for name in model.sampling_defaults if sampling[name] is None and sampling["temp"] != 0]
    if used and not quiet:
        values = ", ".join(f"--{name.replace('_', '-')} {resolved[name]:g}" for name in used)
        show(f"sampling as the file says: {values}", err=True)
    return resolved

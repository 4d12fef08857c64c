"""What commands share of their options: the option --json, and types that click does not have."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from tritpack.converter.cli.usage import ChoiceBeside
from tritpack.formats.errors import UsageError

json_option = click.option("--json", "as_json", is_flag=True, help="Print a machine-readable result on stdout.")


class ByteSize(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of bytes: `500M`, `2G`; units are powers of 1000, as in llama.cpp."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from tritpack.formats.split_writer import parse_size

        try:
            return parse_size(value)
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}.", param, ctx)


class ChoiceList(ChoiceBeside):
    """One or several of some names, separated by commas, in any case."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = [super(ChoiceList, self).convert(name, param, ctx) for name in str(value).lower().split(",")]
        return ",".join(dict.fromkeys(names))

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(map(str, self.choices))}][,...]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        names = map(str, self.choices)
        return [CompletionItem(before + comma + name) for name in names if name.startswith(last.lower())]

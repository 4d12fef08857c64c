"""tritpack engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.formats.errors import UsageError
from tritpack.formats.suggestions import did_you_mean

if TYPE_CHECKING:
    from tritpack.converter.targets.engines.table import Row

COLOURS = {"right": "green", "wrong": "red", "refuses": "yellow"}


@click.command("engines")
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Print the page docs/engines.md.")
@json_option
def command(name: str | None, markdown: bool, as_json: bool) -> None:
    """List what each engine makes of which files: bitnet.cpp, llama.cpp, ik_llama.cpp and others.

    NAME shows one engine. Each line says how it was tried, or where it was read. `inspect FILE` says it for one file,
    and `verify FILE --engine PATH` asks your own build.
    """
    from tritpack.converter.targets.engines import lines, table

    rows = _named(name) if name else table.rows()
    if as_json:
        print_json(lines.as_json(rows))
    elif markdown:
        if name is not None:
            raise UsageError("--markdown prints the page of all engines; leave out the name")
        click.echo(lines.page(), nl=False)
    else:
        for row in rows:
            for version in row.all_versions():
                click.echo(f"{click.style(version.name, bold=True)}  {row.url}".rstrip())
                for line in lines.lines(version):
                    verdict = click.style(f"{line.verdict:<8}", fg=COLOURS.get(line.verdict))
                    click.echo(f"  {verdict} {line.file}{': ' if line.why else ''}{line.why}")
                    if line.evidence:
                        click.echo(f"           [{line.evidence}]")
                if version.produce != row.produce:
                    click.echo(f"  make one: {lines.make_one(version)}")
            click.echo(f"  make one: {lines.make_one(row)}\n  {lines.what_it_takes(row)}\n")


def _named(name: str) -> Sequence[Row]:
    """Return the engine of that name, else all whose names hold it, else the one inside a program of that name.

    Raises UsageError if there is none.
    """
    from tritpack.converter.targets.engines import table

    wanted, rows = name.lower(), table.rows()
    for row in rows:
        if wanted == row.name.lower():
            return [row]
    if found := [row for row in rows if wanted in row.name.lower()]:
        return found
    inside = {program.lower(): (program, row) for row in rows for program in row.inside}
    if wanted in inside:
        program, row = inside[wanted]
        show(f"note: {program} runs models with {row.name}; it may have an older version of it inside", err=True)
        return [row]
    known = [*(row.name for row in rows), *(program for program, _ in inside.values())]
    hint = did_you_mean(name, known) or f"choose one of: {', '.join(row.name for row in rows)}"
    raise UsageError(f"no engine is called {name!r}", hint=hint)

"""tritpack engines."""

from __future__ import annotations

import click

from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.parameters import json_option
from tritpack.formats.errors import UsageError
from tritpack.formats.suggestions import did_you_mean

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

    rows = [row for row in table.rows() if name is None or name.lower() in row.name.lower()]
    if not rows:
        known = [row.name for row in table.rows()]
        hint = did_you_mean(name or "", known) or f"choose one of: {', '.join(known)}"
        raise UsageError(f"no engine is called {name!r}", hint=hint)
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
            click.echo(f"  make one: {row.produce.format(file='FILE', output='OUT.gguf', folder='DIR')}\n")

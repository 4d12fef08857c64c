"""tritpack families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.parameters import json_option

if TYPE_CHECKING:
    from tritpack.converter.families.family import Family


@click.command("families")
@json_option
def command(as_json: bool) -> None:
    """List every checkpoint family: its repositories, how it is recognised, and how its weights are stored and run.

    The families are tried in this order, and the first that fits counts. What is refused by name follows, with the
    reason.
    """
    from tritpack.converter.families.family import families, refusals
    from tritpack.converter.storage.catalog import STORAGES

    if as_json:
        print_json(
            {
                "schema": "tritpack.families/1",
                "families": [_row(family) for family in families()],
                "refused": [{"name": refusal.name, "reason": refusal.reason} for refusal in refusals()],
            }
        )
        return
    width = max(len(storage.name) for storage in STORAGES.values())
    for row in map(_row, families()):
        head = f"{click.style(row['title'], bold=True)} ({row['name']}; GGUF architecture {row['architecture']})"
        click.echo(head)
        click.echo(f"  {'recognised by':<{width}}  {row['recognised_by']}")
        click.echo(f"  {'tokenizer':<{width}}  {row['tokenizer']}")
        for stored in row["storages"]:
            click.echo(f"  {stored['storage']:<{width}}  {stored['repositories']}")
            click.echo(f"  {'':<{width}}    {stored['read_as']}; activations {stored['activations']}")
        click.echo()
    click.echo(click.style("Refused by name", bold=True))
    for refusal in refusals():
        click.echo(f"  {refusal.name}: {refusal.reason}")


def _row(family: Family) -> dict[str, Any]:
    """Return what the command says about one family."""
    from tritpack.converter.storage.catalog import STORAGES

    return {
        "name": family.name,
        "title": family.title,
        "architecture": family.architecture,
        "recognised_by": family.recognised_by(),
        "tokenizer": family.tokenizer,
        "storages": [
            {
                "storage": STORAGES[key].name,
                "read_as": STORAGES[key].description,
                "repositories": repositories,
                "activations": family.activations(storage_takes_int8=STORAGES[key].int8_activations),
            }
            for key, repositories in family.checkpoints.items()
        ],
    }

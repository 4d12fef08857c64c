"""tritpack families."""

from __future__ import annotations

import click

from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.parameters import json_option


@click.command("families")
@click.option("--markdown", is_flag=True, help="Print the page docs/families.md.")
@json_option
def command(markdown: bool, as_json: bool) -> None:
    """List every checkpoint family: its repositories, how it is recognised, and how its weights are stored and run.

    The families are tried in this order, and the first that fits counts. What is refused by name follows, with the
    reason.
    """
    from tritpack.converter.families import listing
    from tritpack.converter.families.family import families, refusals
    from tritpack.converter.storage.catalog import STORAGES

    if as_json:
        print_json(listing.as_json())
        return
    if markdown:
        click.echo(listing.page(), nl=False)
        return
    width = max(len(storage.name) for storage in STORAGES.values())
    for row in map(listing.about, families()):
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

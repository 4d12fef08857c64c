"""tritpack families."""

from __future__ import annotations

import click

from tritpack.converter.cli.main import print_json


@click.command("families")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def command(as_json: bool) -> None:
    """List every checkpoint family: which repositories, how it is recognised, how its weights are read, how it is run.

    The first family that fits counts, in this order. What is refused by name is listed below, with the reason.
    """
    from tritpack.converter.families.family import FORMS, families, refusals

    if as_json:
        print_json(
            {
                "schema": "tritpack.families/1",
                "families": [
                    {
                        "name": family.name,
                        "title": family.title,
                        "architecture": family.architecture,
                        "recognised_by": family.recognised_by(),
                        "tokenizer": family.tokenizer,
                        "forms": [
                            {
                                "form": form,
                                "read_as": FORMS[form],
                                "repositories": repositories,
                                "activations": family.activations(form),
                            }
                            for form, repositories in family.checkpoints.items()
                        ],
                    }
                    for family in families()
                ],
                "refused": [{"name": refusal.name, "reason": refusal.reason} for refusal in refusals()],
            }
        )
        return
    for family in families():
        click.echo(f"{click.style(family.title, bold=True)} (GGUF architecture {family.architecture})")
        click.echo(f"  recognised by  {family.recognised_by()}")
        click.echo(f"  tokenizer      {family.tokenizer}")
        for form, repositories in family.checkpoints.items():
            click.echo(f"  {form:<8} {repositories}")
            click.echo(f"  {'':<8}   {FORMS[form]}; activations {family.activations(form)}")
        click.echo()
    click.echo(click.style("Refused by name", bold=True))
    for refusal in refusals():
        click.echo(f"  {refusal.name}: {refusal.reason}")

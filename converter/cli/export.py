"""tritpack export."""

from __future__ import annotations

import time

import click

from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.progress import Progress


@click.command("export")
@click.argument("source", metavar="IN.gguf")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder to write.")
@click.option("--to", type=click.Choice(["hf", "mlx"]), default="hf", show_default=True, help="Who is to read it.")
@click.option(
    "--form",
    type=click.Choice(["auto", "packed", "online", "floats"]),
    default="auto",
    show_default=True,
    help="How transformers is to find the linears: packed codes, masters that it quantises online, or plain floats; "
    "auto is packed, or floats where activations are float.",
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "bfloat16", "float16", "float32"]),
    default="auto",
    show_default=True,
    help="Type of floats; auto is the first that holds all of them exactly.",
)
@click.option("--group-size", type=click.Choice(["32", "64", "128"]), help="Of --to mlx; the largest that fits.")
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub.")
@click.option("--allow-scale-rounding", is_flag=True, help="Change scales that cannot be held, and say by how much.")
@click.option("--allow-wrong-engine", is_flag=True, help="Write it although the engine will run another model.")
@click.option("--force", is_flag=True, help="Replace the checkpoint's files in a folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    source: str,
    output: str,
    to: str,
    form: str,
    dtype: str,
    group_size: str | None,
    revision: str | None,
    allow_scale_rounding: bool,
    allow_wrong_engine: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a packed file (or any checkpoint) as a checkpoint folder, from the file alone: weights, config, tokenizer.

    The folder is read again and every code and scale compared before it gets its name.

    \b
    Examples: tritpack export model.gguf -o folder
              tritpack export model.gguf -o folder --form online --dtype float32
              tritpack export bonsai.gguf -o folder --to mlx
    """
    from tritpack.converter.export.export import export

    started = time.monotonic()
    result = export(
        source,
        output,
        to=to,
        form=form,
        dtype=dtype,
        group_size=None if group_size is None else int(group_size),
        revision=revision,
        allow_scale_rounding=allow_scale_rounding,
        allow_wrong_engine=allow_wrong_engine,
        force=force,
        progress=Progress("exporting", quiet=quiet),
    )
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(
            {
                "schema": "tritpack.export/1",
                "source": source,
                "output": output,
                "to": to,
                "form": result.form,
                "dtype": result.dtype,
                "scale_loss": result.scale_loss,
                "nbytes": result.nbytes,
                "warnings": result.warnings,
            }
        )
        return
    lost = "every code and scale the same"
    if result.scale_loss:
        lost = f"every code the same, scales within {result.scale_loss:.1g} of themselves"
    seconds = time.monotonic() - started
    click.echo(f"wrote {output}: {result.nbytes} bytes, {result.form} {result.dtype}, {lost}, {seconds:.1f} s")

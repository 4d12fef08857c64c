"""tritpack convert."""

from __future__ import annotations

import time
from pathlib import Path

import click

from converter.cli.main import print_json
from converter.cli.opening import quantize_option
from converter.cli.progress import Progress


@click.command("convert")
@click.argument("source", metavar="SOURCE")
@click.option("-o", "--outfile", "--output", "output", required=True, metavar="OUT.gguf", help="File to write.")
@click.option(
    "--outtype",
    type=click.Choice(["auto", "i2_s", "t2"]),
    default="auto",
    show_default=True,
    help="Layout of the ternary weights; auto is i2_s if it holds all of them exactly, else t2.",
)
@click.option(
    "--embedding-type",
    type=click.Choice(["auto", "f32", "f16", "bf16", "q8_0", "q6_k"]),
    default="auto",
    show_default=True,
    help="Type of embedding and head; auto keeps ternary ones ternary, and takes f16 if every value survives it, else "
    "the checkpoint's own.",
)
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub (or write ORG/NAME@REVISION).")
@quantize_option
@click.option("--name", help="general.name of the file.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@click.option("--dry-run", is_flag=True, help="Show the plan (sizes, memory, refusals) and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    source: str,
    output: str,
    outtype: str,
    embedding_type: str,
    revision: str | None,
    quantize: str | None,
    name: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Convert SOURCE to a GGUF file, keeping every code and scale exactly.

    SOURCE is a checkpoint folder, a GGUF file, or a repository on the Hub (ORG/NAME or ORG/NAME@REVISION; HF_TOKEN,
    HF_ENDPOINT and HF_HUB_OFFLINE are respected). What was recognised, and why, is said in one line.

    \b
    Examples: tritpack convert bitnet-b1.58-2B-4T -o model.gguf --outtype i2_s
              tritpack convert tiiuae/Falcon-E-1B-Base@prequantized -o model.gguf --quantize absmean
    """
    from converter.convert import convert
    from converter.opening import open_source, repository_name
    from converter.plan import Plan, make_plan
    from formats.gguf_file import refuse_existing

    def summary(plan: Plan) -> dict[str, object]:
        return {
            "schema": "tritpack.convert/1",
            "source": source,
            "output": output,
            "recognised": plan.why,
            "architecture": plan.spec.architecture,
            "outtype": plan.outtype,
            "granularity": plan.granularity,
            "embedding_type": plan.embedding_type,
            "output_bytes": plan.output_bytes,
            "peak_bytes": plan.peak_bytes,
            "unused": list(plan.unused),
        }

    if dry_run:
        refuse_existing(Path(output), force=force)
        plan = make_plan(
            open_source(source, revision=revision, progress=not quiet),
            outtype=outtype,
            embedding_type=embedding_type,
            name=name or repository_name(source),
            quantize=quantize,
            hashed=False,
        )
        for warning in plan.warnings:
            click.echo(f"warning: {warning}", err=True)
        tensors = [
            {"name": t.target.name, "type": t.kind, "shape": list(t.target.shape), "nbytes": t.target.nbytes}
            for t in plan.tensors
        ]
        if as_json:
            print_json({**summary(plan), "dry_run": True, "warnings": plan.warnings, "tensors": tensors})
            return
        for tensor in tensors:
            click.echo(f"{tensor['name']:<32} {tensor['type']:<6} {tensor['nbytes']:>12}  {tensor['shape']}")
        click.echo(f"recognised: {plan.why}")
        click.echo(
            f"would write {plan.output_bytes} bytes to {output}, working memory about {plan.peak_bytes >> 20} MiB"
        )
        return
    started = time.monotonic()
    result = convert(
        source,
        output,
        outtype=outtype,
        embedding_type=embedding_type,
        name=name,
        quantize=quantize,
        revision=revision,
        force=force,
        progress=Progress("converting", quiet=quiet),
    )
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        scales = {name: most if least == most else [least, most] for name, (least, most) in result.scales.items()}
        print_json({**summary(result.plan), "dry_run": False, "warnings": result.warnings, "scales": scales})
        return
    plan, ranges = result.plan, result.scales.values()
    click.echo(f"recognised: {plan.why}")
    units = ", ".join(f"{count} x {unit}" for unit, count in plan.granularity.items())
    least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
    click.echo(f"scales: {least:.6g} to {most:.6g} in {len(ranges)} ternary tensors, one a unit of: {units}")
    click.echo(
        f"wrote {output}: {plan.output_bytes} bytes, {plan.outtype}, embedding {plan.embedding_type}, "
        f"{time.monotonic() - started:.1f} s"
    )

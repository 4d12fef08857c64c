"""What `convert` and `repack` share: the options that say what to write, the plan shown before, the summary after."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.progress import Progress

if TYPE_CHECKING:
    from tritpack.converter.plan import Plan
    from tritpack.converter.sources.repair import ReadRequest

# Written out, so that --help imports neither numpy nor the layouts; a test holds them to fitting.py and targets.py.
OUTTYPES = (
    "auto", "i2_s", "t2", "t158", "tl1", "tl2", "tq1_0", "tq2_0", "q2_0", "ptq1_0", "pq2_0", "iq1_bn", "iq2_bn",
    "iq2_bn_r4",
)  # fmt: skip
EMBEDDING_TYPES = ("auto", "f32", "f16", "bf16", "q8_0", "q6_k", "q4_k")
TARGETS = ("tritpack", "bitnet.cpp", "llama.cpp", "ik_llama.cpp")
OPTIONS = (
    click.option("-o", "--outfile", "--output", "output", required=True, metavar="OUT.gguf", help="File to write."),
    click.option(
        "--outtype",
        type=click.Choice(OUTTYPES),
        default="auto",
        show_default=True,
        help="Layout of the ternary weights; auto is i2_s if it holds all of them exactly, else t2 (with --for, the "
        "first of the engine's own that does).",
    ),
    click.option(
        "--embedding-type",
        type=click.Choice(EMBEDDING_TYPES),
        default="auto",
        show_default=True,
        help="Type of embedding and head; auto keeps ternary ones ternary, and takes f16 if every value survives it, "
        "else the source's own.",
    ),
    click.option(
        "--for",
        "target",
        type=click.Choice(TARGETS),
        default="tritpack",
        show_default=True,
        help="The engine the file is for: its layouts, ids and tensors; what it would run wrong is refused.",
    ),
    click.option("--allow-wrong-engine", is_flag=True, help="Write it although the engine will run another model."),
    click.option(
        "--allow-scale-rounding",
        is_flag=True,
        help="Change scales that the layout cannot hold (to float16, or fewer of them), and record by how much.",
    ),
    click.option(
        "--tiling",
        "tiling",
        multiple=True,
        metavar="ROWSxCOLS=BM,BK,bm",
        help="How tl1 and tl2 tile tensors of a shape; otherwise by rule. May be given several times.",
    ),
    click.option("--kernel-config", metavar="FILE", help="The same from a kernel_config.ini of bitnet.cpp."),
    click.option(
        "--tl2-id",
        type=click.Choice(["39", "42"]),
        default="39",
        show_default=True,
        help="Type id of tl2; 42 since July 2026.",
    ),
    click.option("--name", help="general.name of the file."),
    click.option("--force", is_flag=True, help="Overwrite an existing output."),
    click.option("--dry-run", is_flag=True, help="Show the plan (sizes, memory, refusals) and write nothing."),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
)


def writing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds OPTIONS to a command, which gets them as one dict `writing`."""
    names = (
        "output", "outtype", "embedding_type", "target", "allow_wrong_engine", "allow_scale_rounding", "tiling",
        "kernel_config", "tl2_id", "name", "force", "dry_run", "as_json", "quiet",
    )  # fmt: skip

    @functools.wraps(command)
    def gathered(**arguments: Any) -> None:
        writing = {name: arguments.pop(name) for name in names}
        command(writing=writing, **arguments)

    return functools.reduce(lambda each, option: option(each), reversed(OPTIONS), gathered)


def tilings_of(writing: dict[str, Any]) -> dict[tuple[int, int], Any]:
    """--kernel-config, and --tiling over it."""
    from tritpack.formats.layouts.tiling import parse_tilings, read_kernel_config

    config = writing["kernel_config"]
    return {**(read_kernel_config(config) if config else {}), **parse_tilings(writing["tiling"])}


def write(
    source: str, writing: dict[str, Any], *, command: str, reading: ReadRequest | None = None, **options: Any
) -> None:
    """Convert, or with --dry-run plan, and say what came of it. options: `quantize` and `revision`."""
    from tritpack.converter.convert import convert
    from tritpack.converter.plan import make_plan
    from tritpack.converter.sources.open import open_source, repository_name
    from tritpack.formats.files import refuse_existing

    output, quiet, as_json = writing["output"], writing["quiet"], writing["as_json"]
    wanted: dict[str, Any] = {
        "tl2_id": int(writing["tl2_id"]),
        "tilings": tilings_of(writing),
        "reading": reading,
        **{
            key: writing[key]
            for key in ("outtype", "embedding_type", "target", "allow_wrong_engine", "allow_scale_rounding")
        },
    }
    if writing["dry_run"]:
        refuse_existing(Path(output), force=writing["force"])
        opened = open_source(source, revision=options.get("revision"), progress=not quiet)
        plan = make_plan(
            opened,
            name=writing["name"] or repository_name(source),
            quantize=options.get("quantize"),
            hashed=False,
            **wanted,
        )
        _show_plan(source, output, command, plan, as_json=as_json)
        return
    started = time.monotonic()
    result = convert(
        source,
        output,
        name=writing["name"],
        force=writing["force"],
        progress=Progress(f"{command}ing", quiet=quiet),
        **options,
        **wanted,
    )
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    plan = result.plan
    if as_json:
        scales = {name: most if least == most else [least, most] for name, (least, most) in result.scales.items()}
        summary = _summary(source, output, command, plan)
        print_json({**summary, "dry_run": False, "warnings": result.warnings, "scales": scales})
        return
    click.echo(f"recognised: {plan.why}")
    units = ", ".join(f"{count} x {unit}" for unit, count in plan.granularity.items())
    ranges = result.scales.values()
    least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
    click.echo(f"scales: {least:.6g} to {most:.6g} in {len(ranges)} ternary tensors, one a unit of: {units}")
    if plan.fit.losses:
        worst = max(plan.fit.losses.values())
        click.echo(f"scales changed in {len(plan.fit.losses)} tensors, by {worst:.2g} of themselves at most")
    click.echo(
        f"wrote {output}: {plan.output_bytes} bytes, {plan.outtype}, embedding {plan.embedding_type}, "
        f"{time.monotonic() - started:.1f} s"
    )


def _summary(source: str, output: str, command: str, plan: Plan) -> dict[str, Any]:
    return {
        "schema": f"tritpack.{command}/1",
        "source": source,
        "output": output,
        "recognised": plan.why,
        "architecture": plan.spec.architecture,
        "outtype": plan.outtype,
        "granularity": plan.granularity,
        "embedding_type": plan.embedding_type,
        "scale_rounding": plan.fit.losses,
        "output_bytes": plan.output_bytes,
        "peak_bytes": plan.peak_bytes,
        "unused": list(plan.unused),
    }


def _show_plan(source: str, output: str, command: str, plan: Plan, *, as_json: bool) -> None:
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    tensors = [
        {"name": t.target.name, "type": t.kind, "shape": list(t.target.shape), "nbytes": t.target.nbytes}
        for t in plan.tensors
    ]
    if as_json:
        summary = _summary(source, output, command, plan)
        print_json({**summary, "dry_run": True, "warnings": plan.warnings, "tensors": tensors})
        return
    for tensor in tensors:
        click.echo(f"{tensor['name']:<32} {tensor['type']:<9} {tensor['nbytes']:>12}  {tensor['shape']}")
    click.echo(f"recognised: {plan.why}")
    click.echo(f"would write {plan.output_bytes} bytes to {output}, working memory about {plan.peak_bytes >> 20} MiB")

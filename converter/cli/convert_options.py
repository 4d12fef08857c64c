"""What `convert` and `repack` share: the options that say what to write, the plan, and the summary.

The choices of an option are in formats/names.py, those of --for in targets/engines/.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.progress import Progress
from tritpack.converter.cli.usage import ChoiceBeside
from tritpack.converter.targets import engines
from tritpack.formats import names

if TYPE_CHECKING:
    from tritpack.converter.convert import Conversion
    from tritpack.converter.options import ConvertOptions
    from tritpack.converter.plan import Plan


def one_of(*choices: int) -> Callable[[click.Context, click.Parameter, int | None], int | None]:
    """Return the callback of an option that takes one of a few integers."""

    def check(context: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
        if value is not None and value not in choices:
            raise click.BadParameter(f"{value} is not one of {', '.join(map(str, choices))}.", context, parameter)
        return value

    return check


OF_TABLES = "--outtype is for the ternary weights; --embedding-type names the type of embedding and head"
OF_TERNARY = (
    "--outtype names the layout of ternary weights; an embedding that is ternary in the source gets it too, with "
    "--embedding-type auto, if the engine runs such tables"
)
CHOSEN = (
    click.option(
        "--outtype",
        type=ChoiceBeside(("auto", *names.LAYOUTS), dict.fromkeys(names.FLOAT_TYPES, OF_TABLES)),
        default="auto",
        show_default=True,
        help="Layout of the ternary weights; auto is i2_s if that holds all of them exactly, else t2 (with --for: the "
        "first of the engine's layouts that holds them).",
    ),
    click.option(
        "--embedding-type",
        type=ChoiceBeside(("auto", *names.FLOAT_TYPES), dict.fromkeys(names.LAYOUTS, OF_TERNARY)),
        default="auto",
        show_default=True,
        help="Type of embedding and head; auto leaves ternary ones ternary, and takes f16 if every value survives it, "
        "else the source's own type.",
    ),
    click.option(
        "--for",
        "target",
        type=click.Choice(engines.NAMES),
        default="tritpack",
        show_default=True,
        help="The engine that the file is for. It decides on layouts, type ids and tensors; what the engine would run "
        "wrong is refused.",
    ),
    click.option(
        "--allow-wrong-engine", is_flag=True, help="Write the file even if the engine will run another model."
    ),
    click.option(
        "--allow-scale-rounding",
        is_flag=True,
        help="Change scales that the layout cannot hold (round them to float16, or merge them), and record by how "
        "much.",
    ),
    click.option(
        "--tiling",
        multiple=True,
        metavar="ROWSxCOLS=BM,BK,bm",
        help="How tl1 and tl2 tile tensors of this shape; a rule decides for all others. Can be given several times.",
    ),
    click.option(
        "--kernel-config", type=PATH, metavar="FILE", help="Take these tilings from a kernel_config.ini of bitnet.cpp."
    ),
    click.option(
        "--tl2-id",
        type=int,
        metavar=f"[{'|'.join(map(str, names.TL2_TYPE_IDS))}]",
        callback=one_of(*names.TL2_TYPE_IDS),
        default=names.TL2_TYPE_IDS[0],
        show_default=True,
        help="GGUF type id of tl2: 42 for bitnet.cpp since July 2026, 39 for older builds.",
    ),
    click.option(
        "--pq2-id",
        type=int,
        metavar=f"[{'|'.join(map(str, names.PQ2_TYPE_IDS))}]",
        callback=one_of(*names.PQ2_TYPE_IDS),
        default=names.PQ2_TYPE_IDS[0],
        show_default=True,
        help="GGUF type id of pq2_0: 142 for PrismML's llama.cpp, 42 for its builds until mid 2026.",
    ),
    click.option("--name", help="Name of the model (general.name)."),
)
"""The options that become ConvertOptions."""
HANDLING = (
    click.option("--force", is_flag=True, help="Overwrite an existing output."),
    click.option("--dry-run", is_flag=True, help="Show the plan (sizes, memory, refusals) and write nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print a machine-readable result on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors."),
)
OUTPUT = click.option(
    "-o", "--outfile", "--output", "output", required=True, type=PATH, metavar="OUT.gguf", help="File to write."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of `convert` or `repack`: what is written where, and what is shown."""

    command: str
    source: str
    output: str
    force: bool
    dry_run: bool
    as_json: bool
    quiet: bool

    @property
    def progress(self) -> Progress:
        return Progress(f"{self.command}ing", quiet=self.quiet)


def convert_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command. It gets them as `chosen` (for ConvertOptions) and `handling` (for Run)."""

    @functools.wraps(command)
    def split(**arguments: Any) -> None:
        handling = {name: arguments.pop(name) for name in ("output", "force", "dry_run", "as_json", "quiet")}
        named = ("outtype", "embedding_type", "target", "allow_wrong_engine", "allow_scale_rounding", "tiling",
                 "kernel_config", "tl2_id", "pq2_id", "name")  # fmt: skip
        chosen = {name: arguments.pop(name) for name in named}
        command(chosen=chosen, handling=handling, **arguments)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed((OUTPUT, *CHOSEN, *HANDLING)), split)


# -- the plan ----------------------------------------------------------------------------------------------------------


def show_plan(run: Run, options: ConvertOptions, revision: str | None = None) -> None:
    """Plan the run and print what it would write."""
    from tritpack.converter.plan import make_plan
    from tritpack.converter.sources.open import open_source, repository_name
    from tritpack.formats.files import refuse_existing

    refuse_existing(Path(run.output), force=run.force)
    opened = open_source(run.source, revision=revision, progress=not run.quiet)
    options = dataclasses.replace(options, name=options.name or repository_name(run.source))
    plan = make_plan(opened, options, hashed=False)
    for warning in plan.warnings:
        show(f"warning: {warning}", err=True)
    rows: list[dict[str, Any]] = [
        {"name": t.output.name, "type": t.kind, "shape": list(t.output.shape), "nbytes": t.output.nbytes}
        for t in plan.tensors
    ]
    if run.as_json:
        print_json({**_summary(run, plan), "dry_run": True, "warnings": plan.warnings, "tensors": rows})
        return
    for row in rows:
        show(f"{row['name']:<32} {row['type']:<9} {size(row['nbytes']):>10}  {row['shape']}")
    show(f"recognised: {plan.why}")
    show(f"would write {size(plan.output_bytes)} to {run.output}, working memory about {size(plan.peak_bytes)}")


def _summary(run: Run, plan: Plan) -> dict[str, Any]:
    return {
        "schema": f"tritpack.{run.command}/1",
        "source": run.source,
        "output": run.output,
        "recognised": plan.why,
        "architecture": plan.spec.architecture,
        "outtype": plan.outtype,
        "type_id": plan.type_id,
        "granularity": plan.granularity,
        "embedding_type": plan.embedding_type,
        "scale_rounding": plan.choice.losses,
        "output_bytes": plan.output_bytes,
        "peak_bytes": plan.peak_bytes,
        "unused": list(plan.unused),
    }


# -- the result --------------------------------------------------------------------------------------------------------


def show_result(run: Run, convert: Callable[[], Conversion]) -> None:
    """Convert, and print what was written."""
    started = time.monotonic()
    conversion = convert()
    seconds = time.monotonic() - started
    for warning in conversion.warnings:
        show(f"warning: {warning}", err=True)
    if run.as_json:
        scales = {name: most if least == most else [least, most] for name, (least, most) in conversion.scales.items()}
        summary = _summary(run, conversion.plan)
        print_json({**summary, "dry_run": False, "warnings": conversion.warnings, "scales": scales})
    elif not run.quiet:
        _show_summary(run, conversion, seconds)


def _show_summary(run: Run, conversion: Conversion, seconds: float) -> None:
    plan = conversion.plan
    show(f"recognised: {plan.why}")
    show(_scales_line(conversion))
    if losses := plan.choice.losses:
        show(f"scales changed in {len(losses)} tensors, with a relative change of at most {max(losses.values()):.2g}")
    for line in _type_id_lines(plan):
        show(line)
    show(
        f"wrote {run.output}: {size(plan.output_bytes)}, {plan.outtype}, embedding {plan.embedding_type}, "
        f"{seconds:.1f} s"
    )


def _type_id_lines(plan: Plan) -> Iterator[str]:
    """Yield which type id was written, if engines know the layout by several."""
    from tritpack.formats.layouts.catalog import MEANINGS

    options = {"tl2": "--tl2-id", "pq2_0": "--pq2-id"}
    if plan.outtype in options:
        names_by_id = {meaning.type_id: meaning.dialect for meaning in MEANINGS if meaning.name == plan.outtype}
        written = names_by_id.pop(plan.type_id)
        others = ", ".join(f"{options[plan.outtype]} {number}: {dialect}" for number, dialect in names_by_id.items())
        yield f"type id of {plan.outtype}: {plan.type_id}, {written} ({others})"


def _scales_line(conversion: Conversion) -> str:
    """Return `scales: LEAST to MOST; one scale per tensor in 28 tensors`, with every granularity that there is."""
    ranges = conversion.scales.values()
    least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
    units = ", ".join(f"one scale per {unit} in {count} tensors" for unit, count in conversion.plan.granularity.items())
    return f"scales: {least:.6g} to {most:.6g}; {units}"

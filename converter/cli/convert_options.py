"""What `convert` and `repack` share: the options that say what to write, the plan, and the summary.

The choices of an option are in formats/names.py, those of --for in targets/engines/.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.human import duration, size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import ByteSize, ChoiceList, json_option
from tritpack.converter.cli.progress import Progress
from tritpack.converter.cli.usage import ChoiceBeside
from tritpack.converter.targets import engines
from tritpack.formats import names

if TYPE_CHECKING:
    from tritpack.converter.convert import Conversion, RunOptions
    from tritpack.converter.options import ConvertOptions
    from tritpack.converter.plan import Plan
    from tritpack.formats.split_writer import Shard


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
        type=ChoiceList(("auto", *names.LAYOUTS), dict.fromkeys(names.FLOAT_TYPES, OF_TABLES)),
        default="auto",
        show_default=True,
        help="Layout of the ternary weights; auto is i2_s if that holds all of them exactly, else t2 (with --for: the "
        "first of the engine's layouts that holds them). Several, with commas, make several files in one pass.",
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
    click.option(
        "--split-max-size",
        "split_max_bytes",
        type=ByteSize(),
        metavar="SIZE",
        help="Split the output into files of at most this size: 500M, 2G.",
    ),
    click.option(
        "--split-max-tensors", type=click.IntRange(1), metavar="N", help="Split it into files of at most N tensors."
    ),
)
"""The options that become ConvertOptions."""
HANDLING = (
    click.option("--force", is_flag=True, help="Overwrite an existing output."),
    click.option(
        "-t",
        "--threads",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Threads to work with; 0, the default, is all cores. The output is the same with any number.",
    ),
    click.option(
        "--max-memory",
        type=ByteSize(),
        default="1G",
        show_default=True,
        metavar="SIZE",
        help="Memory that the work may take besides the interpreter.",
    ),
    click.option("--dry-run", is_flag=True, help="Show the plan (sizes, memory, time, refusals) and write nothing."),
    click.option("--tensors", is_flag=True, help="With --dry-run: list every tensor."),
    json_option,
    click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors."),
)
OUTPUT = click.option(
    "-o",
    "--outfile",
    "--output",
    "output",
    required=True,
    type=PATH,
    metavar="OUT.gguf",
    help="File to write; {name} in it becomes the name of the model, {ftype} the layout, {FTYPE} the same in capitals. "
    "A file in a FOLDER/ is named by the convention of GGUF files: BaseName-SizeLabel-FineTune-Version-FTYPE.gguf.",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of `convert` or `repack`: what is written where, and what is shown."""

    command: str
    source: str
    output: str
    force: bool
    threads: int
    max_memory: int
    dry_run: bool
    tensors: bool
    as_json: bool
    quiet: bool
    local: Path | None = None
    """The file that was unpacked from `source`, if that is a bundle."""

    def options(self, **hub: Any) -> RunOptions:
        """Return what the library calls these. hub: revision and stream, which only `convert` has."""
        from tritpack.converter.convert import RunOptions

        progress = Progress(f"{self.command}ing", quiet=self.quiet)
        return RunOptions(threads=self.threads, max_memory=self.max_memory, force=self.force, progress=progress, **hub)


def convert_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command. It gets them as `chosen` (for ConvertOptions) and `handling` (for Run)."""

    @functools.wraps(command)
    def split(**arguments: Any) -> None:
        handled = ("output", "force", "threads", "max_memory", "dry_run", "tensors", "as_json", "quiet")
        handling = {name: arguments.pop(name) for name in handled}
        named = ("outtype", "embedding_type", "target", "allow_wrong_engine", "allow_scale_rounding", "tiling",
                 "kernel_config", "tl2_id", "pq2_id", "name", "split_max_bytes", "split_max_tensors")  # fmt: skip
        chosen = {name: arguments.pop(name) for name in named}
        command(chosen=chosen, handling=handling, **arguments)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed((OUTPUT, *CHOSEN, *HANDLING)), split)


def wanted(chosen: dict[str, Any], **others: Any) -> list[ConvertOptions]:
    """Return the options of each output. others: what only one of the commands has."""
    from tritpack.converter.options import ConvertOptions

    outtypes = chosen.pop("outtype").split(",")
    return [ConvertOptions(outtype=outtype, **chosen, **others) for outtype in outtypes]


# -- the plan ----------------------------------------------------------------------------------------------------------


def show_plan(run: Run, options: Sequence[ConvertOptions], **hub: Any) -> None:
    """Plan the run and print what it would write. hub: as for Run.options."""
    from tritpack.converter.convert import plan_conversion
    from tritpack.converter.pipeline.estimate import estimate
    from tritpack.converter.pipeline.workers import default_threads

    planned = plan_conversion(run.local or run.source, run.output, options, run.options(**hub))
    _warn(plan.warnings for plan, _ in planned)
    for plan, shards in planned:
        if not run.as_json:
            _show_plan(run, plan, shards)
    seconds = estimate([plan for plan, _ in planned], run.threads or default_threads())
    if run.as_json:
        _print_summaries([{**_planned(run, plan, shards), "estimated_seconds": seconds} for plan, shards in planned])
        return
    keeps_up = "the disk and the network keep up" if hub.get("stream") else "the disk keeps up"
    show(f"time: about {duration(max(seconds, 1))}, if {keeps_up}")


def _warn(warnings: Iterable[Iterable[str]]) -> None:
    """Print the warnings of all outputs; what is true of several is said once."""
    for warning in dict.fromkeys(itertools.chain.from_iterable(warnings)):
        show(f"warning: {warning}", err=True)


def _planned(run: Run, plan: Plan, shards: Sequence[Shard]) -> dict[str, Any]:
    summary = _summary(run, plan, [shard.path for shard in shards])
    return {**summary, "dry_run": True, "warnings": plan.warnings, "tensors": _rows(plan)}


def _show_plan(run: Run, plan: Plan, shards: Sequence[Shard]) -> None:
    needed, folder = sum(shard.nbytes for shard in shards), shards[0].path.parent
    show(f"recognised: {plan.why}")
    split = f" in {len(shards)} files" if len(shards) > 1 else ""
    show(f"would write {shards[0].path}: {size(needed)}{split}, {plan.outtype}, embedding {_embedding(plan)}")
    show(f"memory: about {size(plan.peak_bytes)} (--max-memory {size(run.max_memory)})")
    show(f"disk: {size(needed)} needed, {size(shutil.disk_usage(folder).free)} free")
    if run.tensors:
        for row in _rows(plan):
            show(f"{row['name']:<32} {row['type']:<9} {size(row['nbytes']):>10}  {row['shape']}")


def _embedding(plan: Plan) -> str:
    """Return the type of the embedding, or both that it can get."""
    table = next((tensor for tensor in plan.tensors if tensor.output.name == "token_embd.weight"), None)
    either = f" ({table.otherwise} if a value does not fit)" if table and table.otherwise else ""
    return plan.embedding_type + either


def _rows(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"name": t.output.name, "type": t.kind, "shape": list(t.output.shape), "nbytes": t.output.nbytes}
        for t in plan.tensors
    ]


def _print_summaries(summaries: list[dict[str, Any]]) -> None:
    """Print one output as a document of its own, several as a list in one."""
    if len(summaries) == 1:
        print_json(summaries[0])
        return
    print_json({"schema": summaries[0]["schema"], "source": summaries[0]["source"], "outputs": summaries})


def _summary(run: Run, plan: Plan, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "schema": f"tritpack.{run.command}/1",
        "source": run.source,
        "output": str(files[0]),
        "files": [str(path) for path in files],
        "recognised": plan.why,
        "architecture": plan.architecture,
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


def show_result(run: Run, options: Sequence[ConvertOptions], **hub: Any) -> None:
    """Convert, and print what was written. hub: as for Run.options."""
    from tritpack.converter.convert import run_conversion

    started = time.monotonic()
    conversions = run_conversion(run.local or run.source, run.output, options, run.options(**hub))
    seconds = time.monotonic() - started
    _warn(conversion.warnings for conversion in conversions)
    for conversion in conversions:
        if not run.as_json and not run.quiet:
            _show_conversion(conversion)
    if run.as_json:
        _print_summaries([_result(run, conversion) for conversion in conversions])
    elif not run.quiet:
        show(f"took {seconds:.1f} s")


def _result(run: Run, conversion: Conversion) -> dict[str, Any]:
    scales = {name: most if least == most else [least, most] for name, (least, most) in conversion.scales.items()}
    summary = _summary(run, conversion.plan, conversion.files)
    return {**summary, "dry_run": False, "warnings": conversion.warnings, "scales": scales}


def _show_conversion(conversion: Conversion) -> None:
    plan = conversion.plan
    show(f"recognised: {plan.why}")
    show(_scales_line(conversion))
    if losses := plan.choice.losses:
        show(f"scales changed in {len(losses)} tensors, with a relative change of at most {max(losses.values()):.2g}")
    for line in _type_id_lines(plan):
        show(line)
    split = f" in {len(conversion.files)} files" if len(conversion.files) > 1 else ""
    show(f"wrote {conversion.path}: {size(plan.output_bytes)}{split}, {plan.outtype}, embedding {plan.embedding_type}")


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

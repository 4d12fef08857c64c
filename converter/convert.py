"""The one pipeline: a source's plan -> one pass over its files -> GGUF files, checked before they get their names."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from tritpack.converter.foreign_plan import foreign_plan
from tritpack.converter.options import ConvertOptions
from tritpack.converter.output_names import is_template, paths_of
from tritpack.converter.pipeline.jobs import jobs_of
from tritpack.converter.pipeline.one_pass import read_once
from tritpack.converter.pipeline.output import Output, shards_to_write
from tritpack.converter.pipeline.shards import shards_of
from tritpack.converter.pipeline.workers import default_threads
from tritpack.converter.plan import BLOCK_MEMORY, MAX_MEMORY, Plan, check_memory, make_plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import open_source, repository_name
from tritpack.converter.targets.trained_scales import warn_of_scales
from tritpack.formats.files import refuse_existing
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_metadata import foreign_architecture
from tritpack.formats.names import PQ2_TYPE_IDS, TL2_TYPE_IDS
from tritpack.formats.progress import Progress, silent
from tritpack.formats.split_writer import Shard
from tritpack.runtime import packers


@dataclasses.dataclass(repr=False)
class Conversion:
    """The result of a conversion.

    plan: what was decided. path: the output, the first of its files if it is split. files: all of them.
    warnings: one line for everything a user should know.
    scales: ternary tensor -> its smallest scale that is not zero, and its largest.
    """

    plan: Plan
    path: Path
    files: list[Path]
    warnings: list[str]
    scales: dict[str, tuple[float, float]]

    def __repr__(self) -> str:
        return f"Conversion({str(self.path)!r}, {self.plan.outtype}, {self.plan.output_bytes} bytes)"

    def __str__(self) -> str:
        """`PATH: BYTES bytes, LAYOUT, embedding TYPE`, and one line per warning."""
        plan = self.plan
        wrote = f"{self.path}: {plan.output_bytes} bytes, {plan.outtype}, embedding {plan.embedding_type}"
        return "\n".join([wrote, *(f"warning: {warning}" for warning in self.warnings)])


def convert(
    source: str | Path,
    output: str | Path,
    *,
    outtype: str = "auto",
    embedding_type: str = "auto",
    target: str = "tritpack",
    name: str | None = None,
    quantize: str | None = None,
    revision: str | None = None,
    stream: bool = False,
    allow_scale_rounding: bool = False,
    allow_wrong_engine: bool = False,
    tiling: Sequence[str] = (),
    kernel_config: str | Path | None = None,
    tl2_id: int = TL2_TYPE_IDS[0],
    pq2_id: int = PQ2_TYPE_IDS[0],
    split_max_bytes: int | None = None,
    split_max_tensors: int | None = None,
    threads: int = 0,
    max_memory: int = MAX_MEMORY,
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a checkpoint (a folder, or ORG/NAME[@REVISION] on the Hub) or a GGUF file to a GGUF file.

    Codes and scales are kept exactly; every packed tensor is decoded again and compared before it counts. The arguments
    are the options of the command (`target` is --for); see ConvertOptions and, for the name of the output,
    output_names.paths_of. revision: branch, tag or commit on the Hub. stream: read the weights of a repository as they
    come from the Hub, and store no checkpoint. threads: 0 for all cores; the bytes are the same for any number.
    max_memory: bytes that the work may take besides the interpreter. force: overwrite an existing output.
    Raises Unreadable, Unsupported, UsageError, NetworkTrouble, IntegrityFailed, MissingRequirement, WriteFailed.
    """
    options = ConvertOptions(
        outtype=outtype,
        embedding_type=embedding_type,
        target=target,
        name=name,
        quantize=quantize,
        allow_scale_rounding=allow_scale_rounding,
        allow_wrong_engine=allow_wrong_engine,
        tiling=tiling,
        kernel_config=kernel_config,
        tl2_id=tl2_id,
        pq2_id=pq2_id,
        split_max_bytes=split_max_bytes,
        split_max_tensors=split_max_tensors,
    )
    run = RunOptions(revision, stream, threads, max_memory, force, progress)
    [conversion] = run_conversion(source, output, [options], run)
    return conversion


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a conversion is done; what it writes does not depend on these. See `convert`."""

    revision: str | None = None
    stream: bool = False
    threads: int = 0
    max_memory: int = MAX_MEMORY
    force: bool = False
    progress: Progress | None = None


def run_conversion(
    source: str | Path, output: str | Path | Sequence[Path], wanted: Sequence[ConvertOptions], run: RunOptions
) -> list[Conversion]:
    """Write one output for each of the options, in one pass over the source. output: see output_names.paths_of."""
    return write_planned(*prepare(source, output, wanted, run), run)


Planned = list[tuple[Plan, list[Shard]]]
"""Each plan with the files that it becomes."""


def write_planned(source: CheckpointFolder | GgufFile, planned: Planned, run: RunOptions) -> list[Conversion]:
    """Write the outputs that `prepare` has planned, or some of them, in one pass over the source."""
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(Output(plan, shards, source, force=run.force)) for plan, shards in planned]
        jobs = [job for each in outputs for job in jobs_of(each.plan, each)]
        hashes = read_once(
            shards_of(source),
            jobs,
            threads=run.threads or default_threads(),
            nbytes=min(BLOCK_MEMORY, run.max_memory // 4),
            progress=run.progress or silent,
        )
        for each in outputs:
            each.complete(hashes)
    return [_conversion(each) for each in outputs]


def plan_conversion(
    source: str | Path, output: str | Path | Sequence[Path], wanted: Sequence[ConvertOptions], run: RunOptions
) -> Planned:
    """Return what run_conversion would write: each plan, and its files. Raises the same refusals."""
    return prepare(source, output, wanted, dataclasses.replace(run, stream=True))[1]


def prepare(
    source: str | Path, output: str | Path | Sequence[Path], wanted: Sequence[ConvertOptions], run: RunOptions
) -> tuple[CheckpointFolder | GgufFile, Planned]:
    """Return the opened source and the plans for it. Raises the refusals of a conversion, before any work."""
    packers.use_c_packers()
    inputs = (source, *(options.kernel_config for options in wanted), *map(_reference, wanted))
    if isinstance(output, (str, Path)) and not is_template(output):
        refuse_existing(Path(output), force=run.force, inputs=inputs)  # before any work
    progress = run.progress is not None
    opened = open_source(source, revision=run.revision, progress=progress, remote=run.stream)
    name = repository_name(source)
    plans = [
        # Where a split is cut depends on the exact size of its header, so on the types of the tables.
        _plan(opened, dataclasses.replace(options, name=options.name or name))
        for options in wanted
    ]
    check_memory(plans, run.max_memory)
    planned = [
        (plan, shards_to_write(plan, path, options))
        for plan, path, options in zip(plans, paths_of(output, plans), wanted)
    ]
    for _, shards in planned:
        for shard in shards:
            refuse_existing(shard.path, force=run.force, inputs=(*inputs, *opened.files))
    return opened, planned


def _plan(source: CheckpointFolder | GgufFile, options: ConvertOptions) -> Plan:
    if isinstance(source, GgufFile) and (architecture := foreign_architecture(source)) is not None:
        return foreign_plan(source, architecture, options)
    return make_plan(source, options, certain=options.is_split)


def _conversion(output: Output) -> Conversion:
    plan, warnings, scales = output.plan, list(output.plan.warnings), {}
    for tensor in plan.tensors:
        if tensor.output.name in output.zero:
            warnings.append(f"tensor {tensor.source.name!r} is all zero; is the checkpoint intact?")
        if tensor.output.name in output.scales:
            scales[tensor.output.name] = output.scales[tensor.output.name]
    if warning := _warn_of_scales(scales):
        warnings.append(warning)
    return Conversion(plan, output.path, [shard.path for shard in output.shards], warnings, scales)


def _reference(options: ConvertOptions) -> Path | None:
    return None if options.reading is None else options.reading.reference


def _warn_of_scales(scales: Mapping[str, tuple[float, float]]) -> str | None:
    """Return what to say of scales that no trained model has; None if there are none."""
    warning = warn_of_scales({name: most for name, (_, most) in scales.items()})
    return warning and f"{warning}: compare linear_class in config.json with the model's origin"

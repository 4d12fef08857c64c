"""The one pipeline: a source's plan -> one streaming pass -> a GGUF file that is checked before it gets its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tritpack.converter.options import ConvertOptions
from tritpack.converter.plan import Plan, PlannedTensor, make_plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import open_source, repository_name
from tritpack.formats import float_types
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import WriteFailed, locating
from tritpack.formats.files import refuse_existing
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import write_gguf
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.names import PQ2_TYPE_IDS, TL2_TYPE_IDS
from tritpack.formats.progress import ByteCount, Progress, silent
from tritpack.formats.ternary import TernaryTensor, scales_differ
from tritpack.runtime import packers

LARGEST_TRAINED_SCALE = 5.0
"""Multipliers of trained models are a few hundredths to about 2.5; those of an inverted direction are 6 and more."""


@dataclasses.dataclass(repr=False)
class Conversion:
    """The result of a conversion.

    plan: what was decided. path: the output. warnings: one line for everything a user should know.
    scales: ternary tensor -> its smallest scale that is not zero, and its largest.
    """

    plan: Plan
    path: Path
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
    allow_scale_rounding: bool = False,
    allow_wrong_engine: bool = False,
    tiling: Sequence[str] = (),
    kernel_config: str | Path | None = None,
    tl2_id: int = TL2_TYPE_IDS[0],
    pq2_id: int = PQ2_TYPE_IDS[0],
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a checkpoint (a folder, or ORG/NAME[@REVISION] on the Hub) or a GGUF file to a GGUF file.

    Codes and scales are kept exactly; every packed tensor is decoded again and compared before it counts. Memory is
    bounded by the largest tensor. The arguments are the options of the command (`target` is --for); see ConvertOptions.
    revision: branch, tag or commit on the Hub. force: overwrite an existing output.
    Raises Unreadable, Unsupported, UsageError, IntegrityFailed, MissingRequirement, WriteFailed.
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
    )
    return run_conversion(source, output, options, revision=revision, force=force, progress=progress)


def run_conversion(
    source: str | Path,
    output: str | Path,
    options: ConvertOptions,
    *,
    revision: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Do what `convert` and `repack` have in common."""
    path = Path(output)
    refuse_existing(path, force=force, inputs=(source, options.kernel_config, _reference(options)))  # before any work
    options = dataclasses.replace(options, name=options.name or repository_name(source))
    opened = open_source(source, revision=revision, progress=progress is not None)
    refuse_existing(path, force=force, inputs=opened.files)
    packers.use_c_packers()
    plan = make_plan(opened, options)
    conversion = Conversion(plan, path, list(plan.warnings), {})
    write_gguf(
        path,
        plan.metadata,
        [tensor.output for tensor in plan.tensors],
        _data(conversion, progress),
        force=force,
        check=lambda partial: _check_written(partial, plan, opened),
        types=plan.types,
    )
    if warning := _warn_of_scales(conversion.scales):
        conversion.warnings.append(warning)
    return conversion


def _reference(options: ConvertOptions) -> Path | None:
    return None if options.reading is None else options.reading.reference


def _warn_of_scales(scales: Mapping[str, tuple[float, float]]) -> str | None:
    """Return what to say of scales that no trained model has; None if there are none."""
    large = {name: most for name, (_, most) in scales.items() if most > LARGEST_TRAINED_SCALE}
    if not large:
        return None
    name = max(large, key=large.__getitem__)
    return (
        f"scales of {len(large)} of {len(scales)} ternary tensors are larger than in any trained model: up to "
        f"{large[name]:.4g} in {name!r}, where at most {LARGEST_TRAINED_SCALE:g} is usual. This is the typical sign of "
        "a weight_scale taken in the wrong direction: compare linear_class in config.json with the model's origin"
    )


# -- the streaming pass ------------------------------------------------------------------------------------------------


def _data(conversion: Conversion, progress: Progress | None) -> Iterator[Iterator[Bytes]]:
    """Yield the bytes of each tensor, in pieces, and let go of its source afterwards."""
    tensors = conversion.plan.tensors
    count = ByteCount(progress or silent, sum(tensor.output.nbytes for tensor in tensors))
    for tensor in tensors:
        pieces = _packed(tensor, conversion) if tensor.ternary else _encoded(tensor)
        yield count.through(tensor.output.name, pieces)
        tensor.source.release()
    count.end()


def _encoded(tensor: PlannedTensor) -> Iterator[Bytes]:
    with locating(tensor=tensor.source.name):
        if (stored := tensor.source.stored_as(tensor.kind)) is not None:
            yield stored  # quantised once is enough
            return
        for piece in tensor.source.pieces():
            yield float_types.encode(tensor.kind, piece)


def _packed(tensor: PlannedTensor, conversion: Conversion) -> Iterator[Bytes]:
    name, choice = tensor.output.name, conversion.plan.choice
    with locating(tensor=tensor.source.name):
        ternary = tensor.source.ternary()
        assert ternary is not None  # the plan has looked
        if not ternary.codes.any():
            conversion.warnings.append(f"tensor {tensor.source.name!r} is all zero; is the checkpoint intact?")
        stored = choice.stored(name, ternary)
        packed = choice.layout.pack(stored)
    _check_round_trip(tensor, choice.layout, packed, stored)
    largest = float(ternary.scales.max())
    smallest = float(ternary.scales.min(initial=largest, where=ternary.scales > 0))
    conversion.scales[name] = smallest, largest
    yield packed


def _check_round_trip(tensor: PlannedTensor, layout: Layout, packed: Bytes, ternary: TernaryTensor) -> None:
    back = layout.unpack(packed, *ternary.shape)
    if not np.array_equal(back.codes, ternary.codes) or scales_differ(back, ternary)[0].any():
        raise WriteFailed(f"did not survive {tensor.kind}; this is a bug of tritpack", tensor=tensor.output.name)


def _check_written(path: Path, plan: Plan, source: CheckpointFolder | GgufFile) -> None:
    """Read the header of a finished file again. Raises WriteFailed if a tensor is not what was planned, Unreadable if
    the source has changed meanwhile."""
    source.unchanged.check()
    written = GgufFile(path).tensors
    for tensor in plan.tensors:
        info, output = written.get(tensor.output.name), tensor.output
        if info is None or (info.layout, info.shape, info.nbytes) != (tensor.kind, output.shape, output.nbytes):
            raise WriteFailed(f"was not written as {tensor.kind}", path=path, tensor=output.name)

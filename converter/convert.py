"""The one pipeline: a source's plan -> one streaming pass -> a GGUF that is checked before it gets its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tritpack.converter.plan import Plan, PlannedTensor, make_plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import open_source, repository_name
from tritpack.converter.sources.repair import ReadRequest
from tritpack.formats import float_types
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unsupported, UsageError, WriteFailed, locating
from tritpack.formats.files import refuse_existing
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import write_gguf
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.tiling import Tiling
from tritpack.formats.ternary import TernaryTensor, scales_differ
from tritpack.runtime import packers

Progress = Callable[[str, int, int], None]
"""Called with a tensor's name, the tensors done and their number."""


@dataclasses.dataclass
class Conversion:
    """What came of it: the plan, the output, one line for everything a user should know, and by ternary tensor its
    smallest scale that is not zero and its largest."""

    plan: Plan
    path: Path
    warnings: list[str]
    scales: dict[str, tuple[float, float]]


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
    tilings: Mapping[tuple[int, int], Tiling] | None = None,
    tl2_id: int = 39,
    reading: ReadRequest | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a checkpoint (a folder, or ORG/NAME[@REVISION] on the Hub) or a GGUF file to a GGUF file.

    Codes and scales are kept exactly; every packed tensor is decoded again and compared before it counts. Memory is
    bounded by the largest tensor. The arguments are make_plan's. Raises Unreadable, Unsupported, UsageError,
    IntegrityFailed, WriteFailed.
    """
    path = Path(output)
    refuse_existing(path, force=force)  # before any work
    name = name or repository_name(source)
    opened = open_source(source, revision=revision, progress=progress is not None)
    if isinstance(opened, CheckpointFolder) and path.resolve() in {
        (opened.folder / name).resolve() for name in opened.source_files
    }:
        raise UsageError(f"{path}: is a file of the source itself")
    packers.use_c_packers()
    plan = make_plan(
        opened,
        outtype=outtype,
        embedding_type=embedding_type,
        target=target,
        name=name,
        quantize=quantize,
        allow_scale_rounding=allow_scale_rounding,
        allow_wrong_engine=allow_wrong_engine,
        tilings=tilings,
        tl2_id=tl2_id,
        reading=reading,
    )
    result = Conversion(plan, path, list(plan.warnings), {})

    def data() -> Iterator[Iterator[Bytes]]:
        for index, tensor in enumerate(plan.tensors):
            if progress:
                progress(tensor.target.name, index, len(plan.tensors))
            yield _pieces(tensor, plan, result)
            tensor.origin.release()
        if progress:
            progress("", len(plan.tensors), len(plan.tensors))

    targets = [tensor.target for tensor in plan.tensors]
    write_gguf(
        path,
        plan.metadata,
        targets,
        data(),
        force=force,
        check=lambda partial: _check_written(partial, plan),
        types=plan.types,
    )
    return result


def _pieces(tensor: PlannedTensor, plan: Plan, result: Conversion) -> Iterator[Bytes]:
    if not tensor.ternary:
        with locating(tensor=tensor.origin.name):
            if (stored := tensor.origin.stored_as(tensor.kind)) is not None:
                yield stored  # quantised once is enough
                return
            for piece in tensor.origin.pieces():
                yield float_types.encode(tensor.kind, piece)
        return
    ternary = tensor.origin.ternary()
    assert ternary is not None  # the plan has looked
    if not ternary.codes.any():
        result.warnings.append(f"tensor {tensor.origin.name!r} is all zero; is the checkpoint intact?")
    layout, held = plan.fit.layout, plan.fit.stored(tensor.target.name, ternary)
    try:
        packed = layout.pack(held)
    except Unsupported as error:
        raise Unsupported(f"tensor {tensor.origin.name!r}: {error.message}", hint=error.hint) from error
    _check_round_trip(tensor, layout, packed, held)
    largest = float(ternary.scales.max())
    smallest = float(ternary.scales.min(initial=largest, where=ternary.scales > 0))
    result.scales[tensor.target.name] = smallest, largest
    yield packed


def _check_round_trip(tensor: PlannedTensor, layout: Layout, packed: Bytes, ternary: TernaryTensor) -> None:
    back = layout.unpack(packed, *ternary.shape)
    if not np.array_equal(back.codes, ternary.codes) or scales_differ(back, ternary)[0].any():
        raise WriteFailed(f"tensor {tensor.target.name!r} did not survive {tensor.kind}; this is a bug of tritpack")


def _check_written(path: Path, plan: Plan) -> None:
    """Re-read the header of a finished file: every tensor must be what was planned, nothing silently downgraded."""
    written = GgufFile(path).tensors
    for tensor in plan.tensors:
        found = written.get(tensor.target.name)
        if found is None or (found.layout, found.shape, found.nbytes) != (
            tensor.kind,
            tensor.target.shape,
            tensor.target.nbytes,
        ):
            raise WriteFailed(f"{path}: tensor {tensor.target.name!r} was not written as {tensor.kind}")

"""The plan for a GGUF of an architecture that tritpack does not run: only the layout of its ternary tensors changes.

No graph is needed for that: codes and scales are kept, every other tensor is copied byte for byte, and so are the keys.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tritpack.converter.options import ConvertOptions
from tritpack.converter.plan import Plan, PlannedTensor, embedding_type_of, engine_metadata, peak_bytes
from tritpack.converter.sources.repair import reopened
from tritpack.converter.sources.source_model import origin_of_gguf
from tritpack.converter.sources.source_tensors import GgufTensor
from tritpack.converter.targets import engines
from tritpack.converter.targets.engines.verdict import deviations, type_id_of
from tritpack.converter.targets.layout_choice import LayoutChoice
from tritpack.converter.version import VERSION
from tritpack.formats import integrity
from tritpack.formats.arrays import Bytes, Scales
from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, file_size
from tritpack.formats.layouts.catalog import LAYOUTS, TILING_KEY, type_of
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.tiling import Tiled
from tritpack.formats.model_metadata import refuse_adapter, refuse_unread_layouts
from tritpack.formats.names import LAYOUTS as OUTTYPES
from tritpack.formats.ternary import TernaryTensor, coarsest_both, granularity

AUTO = ("tq2_0", "q2_0", "t2")
"""What `auto` takes, the first that holds every tensor: it is other engines that run such a file."""

RENEWED = (TILING_KEY, "tritpack.target", "tritpack.warnings")
"""Keys that an earlier repack wrote about its own output."""


class ForeignTensor(GgufTensor):
    """A tensor of such a file: what its own bytes hold, since a scale beside it stays there."""

    row_nbytes = 0  # so that floats are copied and not encoded again

    def ternary(self) -> TernaryTensor | None:
        layout = self.file.layout_of(self.info)
        if layout is None:
            return None
        return layout.unpack(self._bytes(), self.info.rows, self.info.cols, repair=self.file.options.repair)

    def scales(self) -> Scales:
        layout = self.file.layout_of(self.info)
        assert layout is not None
        return coarsest_both(layout.read_scales(self._bytes(), self.info.rows, self.info.cols))

    def stored_as(self, kind: str) -> Bytes:
        return self._bytes()


def foreign_plan(source: GgufFile, architecture: str, options: ConvertOptions) -> Plan:
    """Decide what becomes of each tensor.

    Raises Unsupported, naming the tensor, for a layout that does not hold one exactly, and for a file without ternary
    tensors; UsageError for options that need a model that tritpack runs.
    """
    refuse_adapter(source)
    refuse_unread_layouts(source)
    _refuse_options(architecture, options)
    file, repairs = reopened(source, options.reading)
    assert isinstance(file, GgufFile)
    tensors = {name: ForeignTensor(file, info) for name, info in file.tensors.items()}
    ternary = {name: tensor for name, tensor in tensors.items() if tensor.may_be_ternary}
    if not ternary:
        reason = f"architecture {architecture!r} cannot be run, and no tensor is ternary in a layout that is read here"
        raise Unsupported(reason, path=file.path, hint="tritpack inspect shows what this file holds")
    choice = _choice(ternary, options)
    warnings = _deviations(file, choice.layout.name, options)
    planned = tuple(_planned(tensor, choice, options) for tensor in tensors.values())
    metadata = {
        **_metadata(file, architecture, choice.layout, options),
        "tritpack.embedding_type": embedding_type_of(planned),
        **engine_metadata(engines.by_name(options.target), warnings, options),
        **repairs,
        **integrity.to_metadata({tensor.output.name: tensor.hashes for tensor in planned}),
    }
    layouts = Counter(tensor.info.layout for tensor in ternary.values())
    held = ", ".join(f"{count} x {layout}" for layout, count in layouts.items())
    return Plan(
        why=f"GGUF of architecture {architecture}, which tritpack repacks and does not run, with {held}",
        architecture=architecture,
        spec=None,
        choice=choice,
        embedding_type=embedding_type_of(planned),
        tensors=planned,
        metadata=metadata,
        unused=(),
        warnings=tuple(warnings),
        types={},
        output_bytes=file_size(metadata, [tensor.output for tensor in planned]),
        peak_bytes=peak_bytes(planned, choice),
    )


def _refuse_options(architecture: str, options: ConvertOptions) -> None:
    """Raise for options that concern the graph, or tensors that are copied here."""
    for option, given in (
        ("--quantize", options.quantize is not None),
        ("--embedding-type", options.embedding_type != "auto"),
        ("--allow-scale-rounding", options.allow_scale_rounding),
    ):
        if given:
            what = "whose ternary tensors get another layout while all else stays"
            raise UsageError(f"{option} is not for a file of architecture {architecture!r}, {what}")


def _deviations(file: GgufFile, layout: str, options: ConvertOptions) -> list[str]:
    """Return why the engine of --for would not run the output, if that is allowed; else raise Unsupported."""
    engine = engines.by_name(options.target)
    if engine.layouts is None:
        return []
    types = ((type_id_of(engine.row, layout), layout),)
    planned = dataclasses.replace(engines.describe(file, None), layouts=(layout,), types=types)
    wrong = [f"{engine.name} will not run this model right: {why}" for why in deviations(engine.row, planned)]
    if wrong and not options.allow_wrong_engine:
        raise Unsupported(wrong[0], hint="--outtype names a layout without a promise that an engine runs it")
    return wrong


def _choice(ternary: Mapping[str, ForeignTensor], options: ConvertOptions) -> LayoutChoice:
    """Return the layout that is asked for, or the first that holds every tensor. Raises Unsupported if none does."""
    scales = {name: tensor.scales() for name, tensor in ternary.items()}

    def misfit(layout: Layout) -> tuple[str, str] | None:
        """Return the first tensor that a layout does not hold exactly, and why."""
        for name, stored in scales.items():
            info = ternary[name].info
            reason = layout.misfit(info.rows, info.cols, (stored.shape[0], stored.shape[1]))
            if reason := reason or (layout.inexact_scale(stored) if layout.half_scales else None):
                return name, reason
        return None

    held = [name for name in OUTTYPES if not isinstance(LAYOUTS[name], Tiled) and misfit(LAYOUTS[name]) is None]
    hint = f"these hold every tensor of the file: {', '.join(held)}"
    wanted = engines.by_name(options.target).layouts or AUTO if options.outtype == "auto" else (options.outtype,)
    first = next((name for name in wanted if name in held), None)
    if first is None:
        if wanted[0] not in OUTTYPES or isinstance(LAYOUTS[wanted[0]], Tiled):
            raise Unsupported(f"--outtype {wanted[0]} is not for models that tritpack does not run", hint=hint)
        tensor, reason = misfit(LAYOUTS[wanted[0]]) or ("", "")
        raise Unsupported(f"{wanted[0]} cannot hold it exactly: {reason}", tensor=tensor, hint=hint)
    blocks = {name: (stored.shape[0], stored.shape[1]) for name, stored in scales.items()}
    units = Counter(granularity((ternary[name].info.rows, ternary[name].info.cols), blocks[name]) for name in blocks)
    return LayoutChoice(LAYOUTS[first], dict(units), blocks, {}, {}, {})


def _planned(tensor: ForeignTensor, choice: LayoutChoice, options: ConvertOptions) -> PlannedTensor:
    info = tensor.info
    if info.name not in choice.blocks:
        return PlannedTensor(TensorPlan(info.name, info.shape, info.type_id, info.nbytes), info.layout, tensor)
    nbytes = choice.layout.nbytes(info.rows, info.cols, choice.blocks[info.name])
    output = TensorPlan(info.name, info.shape, options.type_id(choice.layout.name), nbytes)
    return PlannedTensor(output, choice.layout.name, tensor)


def _metadata(file: GgufFile, architecture: str, layout: Layout, options: ConvertOptions) -> dict[str, Any]:
    """Return the keys of the file as they are, but for those that say how it is stored and where it comes from."""
    metadata = {key: value for key, value in file.encoded_metadata().items() if key not in RENEWED}
    metadata |= {
        "general.name": options.name or file.metadata.get("general.name", architecture),
        "general.file_type": type_of(layout.name).file_type,
        "tritpack.version": VERSION,
        "tritpack.layout": layout.name,
        **origin_of_gguf(file, options.origin),
    }
    return {key: value for key, value in metadata.items() if value is not None}

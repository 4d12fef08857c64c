"""The plan that comes before work: every tensor's place, size and type, and every refusal.

It reads headers alone, except where only the values tell how ternary floats are scaled.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tritpack.converter.model_names import size_label
from tritpack.converter.options import DEFAULTS, ConvertOptions
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.repair import lacks_tilings, reopened
from tritpack.converter.sources.source_model import SourceModel, from_checkpoint, from_gguf
from tritpack.converter.sources.source_tensors import PIECE_BYTES, ConstantTensor, ScaleGrid, SourceTensor
from tritpack.converter.storage.row_reader import RowReader
from tritpack.converter.targets import engines
from tritpack.converter.targets.engines.engine import Engine
from tritpack.converter.targets.layout_choice import ROUNDING_KEY, LayoutChoice, choose_layout
from tritpack.converter.version import VERSION
from tritpack.formats import float_types, integrity, model_metadata
from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.gguf_header import ALIGNMENT_KEY, DEFAULT_ALIGNMENT
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, encode_header, file_size
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.model_spec import TABLES, ModelSpec

MAX_MEMORY = 10**9
"""Bytes that a conversion may take besides the interpreter, unless somebody says otherwise."""
BLOCK_MEMORY = 128 << 20
"""Bytes of blocks that are being worked on at any time."""


@dataclasses.dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output.

    output: its name, shape, type id and size. kind: the name of its layout or float type. source: where it comes from.
    otherwise: the float type of the same size that it gets if a value does not survive `kind`; None if kind is certain.
    """

    output: TensorPlan
    kind: str
    source: SourceTensor
    otherwise: str | None = None

    @property
    def ternary(self) -> bool:
        return self.kind in catalog.LAYOUTS

    @property
    def hashes(self) -> integrity.TensorHashes:
        """What stands for its hashes in the metadata until it is written."""
        return integrity.TensorHashes(integrity.NOT_YET, integrity.NOT_YET if self.ternary else "")

    def row_reader(self, layout: Layout) -> RowReader | None:
        """Return what decodes the tensor so that blocks of it can be packed by themselves; None if only the whole
        tensor can be packed."""
        reader = self.source.row_reader() if self.ternary and layout.row_unit else None
        if reader is None or reader.groups == 1 or self.output.shape[0] // reader.groups % layout.row_unit == 0:
            return reader
        return None  # groups of rows that are not whole units of the layout cannot be packed alone

    def settled(self, changed: bool) -> PlannedTensor:
        """Return it with a type that is certain: the other one if it has changed."""
        kind = self.otherwise if changed and self.otherwise else self.kind
        output = dataclasses.replace(self.output, type_id=catalog.type_of(kind).type_id) if changed else self.output
        return dataclasses.replace(self, output=output, kind=kind, otherwise=None)

    def kept_bytes(self, layout: Layout) -> int:
        """Return how much of the tensor, with what is made of it, has to be in memory at a time; 0 for some blocks."""
        stored = self.source.place.nbytes if self.source.place else 0
        if not self.ternary:
            return 0 if self.source.row_nbytes else stored
        if (reader := self.row_reader(layout)) is not None:
            return stored if reader.looks_first else 0
        return stored + self.output.nbytes + 3 * math.prod(self.output.shape)  # its codes, before and after


@dataclasses.dataclass(frozen=True, repr=False)
class Plan:
    """What `convert` will do.

    why: what was recognised, in one line. architecture: what the output names. spec: of the model; None if it is not
    run here. choice: the layout, and what becomes of the scales. unused: tensors of the source that nothing needs.
    types: GGUF types of metadata, where they are not the usual ones.
    peak_bytes: working memory above the interpreter; the largest tensor bounds it.
    """

    why: str
    architecture: str
    spec: ModelSpec | None
    choice: LayoutChoice
    embedding_type: str
    tensors: tuple[PlannedTensor, ...]
    metadata: dict[str, Any]
    unused: tuple[str, ...]
    warnings: tuple[str, ...]
    types: dict[str, str]
    output_bytes: int
    peak_bytes: int

    def header(self) -> bytes:
        """Return the bytes of the file before its tensors."""
        return encode_header(self.metadata, [tensor.output for tensor in self.tensors], self.types)

    def open_tables(self) -> tuple[str, ...]:
        """Return the tables whose type only the pass over their values can tell."""
        return tuple(tensor.output.name for tensor in self.tensors if tensor.otherwise)

    def settled(self, changed: Collection[str]) -> Plan:
        """Return the plan without open tables: those named have the other type."""
        tensors = tuple(tensor.settled(tensor.output.name in changed) for tensor in self.tensors)
        embedding_type = embedding_type_of(tensors)
        metadata = {**self.metadata, "tritpack.embedding_type": embedding_type}
        return dataclasses.replace(self, tensors=tensors, embedding_type=embedding_type, metadata=metadata)

    def __repr__(self) -> str:
        return f"Plan({self.why!r}, {self.outtype}, {len(self.tensors)} tensors, {self.output_bytes} bytes)"

    @property
    def outtype(self) -> str:
        return self.choice.layout.name

    @property
    def parameters(self) -> int:
        """How many weights the model has."""
        if self.spec is not None:
            return self.spec.parameters()
        return sum(math.prod(tensor.output.shape) for tensor in self.tensors)

    @property
    def type_id(self) -> int:
        """The GGUF type id of the ternary tensors."""
        return next(tensor.output.type_id for tensor in self.tensors if tensor.ternary)

    @property
    def granularity(self) -> dict[str, int]:
        """What one scale covers, in words -> how many ternary tensors have it so."""
        return self.choice.units


def make_plan(source: CheckpointFolder | GgufFile, options: ConvertOptions = DEFAULTS, *, certain: bool = True) -> Plan:
    """Decide everything about a conversion but the hashes of the source and of the tensors, for which the metadata has
    zeros.

    certain: false leaves the type of a table open (`PlannedTensor.otherwise`) where only its values can tell it and the
    file has the same size in both cases. So a table is not read twice.
    Raises Unsupported or Unreadable, naming the tensor or key; UsageError for options that do not fit the source.
    """
    engine = engines.by_name(options.target)
    tilings = options.tilings()
    if options.reading and isinstance(source, GgufFile) and lacks_tilings(source):
        tilings = {}  # they say how the source is to be read
    source, repairs = reopened(source, options.reading)
    model = _source_model(source, options)
    grids = _scale_grids(model, options.embedding_type)
    tables = {name for name in grids if name not in model.spec.linear_names()}
    if not engine.ternary_tables:
        grids = {name: grid for name, grid in grids.items() if name not in tables}
    _refuse_grouped_int8(model, grids)
    choice = choose_layout(
        model.spec,
        model.tensors,
        grids,
        outtype=options.outtype,
        engine=engine,
        allow_scale_rounding=options.allow_scale_rounding,
        tilings=tilings,
    )
    all_shapes = model.spec.tensor_shapes()
    shapes = {name: all_shapes[name] for name in choice.blocks}
    deviations = engine.check(model.spec, choice.layout.name, shapes, allow_wrong=options.allow_wrong_engine)
    plan = _assemble(model, choice, engine, deviations, options, repairs, tables, certain)
    if not certain and len(plan.header()) != len(plan.settled(dict.fromkeys(plan.open_tables())).header()):
        return _assemble(model, choice, engine, deviations, options, repairs, tables, True)
    return plan


def _assemble(
    model: SourceModel,
    choice: LayoutChoice,
    engine: Engine,
    deviations: list[str],
    options: ConvertOptions,
    repairs: Mapping[str, Any],
    tables: Collection[str],
    certain: bool,
) -> Plan:
    """Return the plan that follows from what was decided.

    repairs: metadata about how the source had to be read. tables: those that are ternary in the source.
    """
    tensors = _planned_tensors(model, choice, options, certain)
    spec = dataclasses.replace(model.spec, architecture=engine.architecture(model.spec))
    embedding_type = embedding_type_of(tensors)
    metadata = {
        **_model_metadata(model, spec, choice, options),
        "tritpack.version": VERSION,
        "tritpack.layout": choice.layout.name,
        "tritpack.embedding_type": embedding_type,
        **engine_metadata(engine, deviations, options),
        **_losses(model, choice),
        ALIGNMENT_KEY: None if engine.alignment == DEFAULT_ALIGNMENT else engine.alignment,
        **repairs,
        **integrity.to_metadata({tensor.output.name: tensor.hashes for tensor in tensors}),
    }
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return Plan(
        why=model.why,
        architecture=spec.architecture,
        spec=spec,
        choice=choice,
        embedding_type=embedding_type,
        tensors=tensors,
        metadata=metadata,
        unused=model.unused,
        warnings=(*_source_warnings(model, engine), *_widened(tensors, choice, engine, tables), *deviations),
        types=model.types,
        output_bytes=file_size(metadata, [tensor.output for tensor in tensors], model.types),
        peak_bytes=peak_bytes(tensors, choice),
    )


# -- the source --------------------------------------------------------------------------------------------------------


def _source_model(source: CheckpointFolder | GgufFile, options: ConvertOptions) -> SourceModel:
    if not isinstance(source, GgufFile):
        return from_checkpoint(source, options.quantize, options.name, options.origin)
    if options.quantize is not None:
        raise UsageError(
            f"is a packed file, and --quantize {options.quantize} is for plain float checkpoints", path=source.path
        )
    return from_gguf(source, options.origin)


def _scale_grids(model: SourceModel, embedding_type: str) -> dict[str, ScaleGrid]:
    """Return how the scales tile the linears and, unless an option names their type, the tables that are ternary."""
    grids = {name: model.tensors[name].scale_grid() for name in model.spec.linear_names()}
    if embedding_type != "auto":
        return grids
    for table in TABLES:
        tensor = model.tensors.get(f"{table}.weight")
        if tensor is None or not tensor.may_be_ternary:
            continue
        ternary = tensor.ternary()
        tensor.release()
        if ternary is not None:
            grids[f"{table}.weight"] = ScaleGrid(ternary.scale_blocks, ternary.granularity)
    return grids


def _refuse_grouped_int8(model: SourceModel, grids: Mapping[str, ScaleGrid]) -> None:
    for name in model.spec.linear_names():
        blocks = grids[name].blocks[1]
        if model.spec.int8_activations and blocks > 1:
            raise Unsupported(
                f"has {blocks} scales along its rows, and the model takes int8 activations: no model is made that way, "
                "and no kernel here runs it",
                tensor=model.tensors[name].name,
            )


def _source_warnings(model: SourceModel, engine: Engine) -> tuple[str, ...]:
    warnings = list(model.warnings)
    if model.unused:
        more = f" and {len(model.unused) - 1} more" if len(model.unused) > 1 else ""
        warnings.append(f"unused: tensor {model.unused[0]!r} of the source{more}")
    if not model.spec.tied and model.spec.architecture == "bitnet-b1.58" and engine.name == "tritpack":
        warnings.append("bitnet.cpp ignores a separate output head and will talk nonsense with this file")
    return tuple(warnings)


def _widened(
    tensors: Sequence[PlannedTensor], choice: LayoutChoice, engine: Engine, tables: Collection[str]
) -> Iterator[str]:
    """Yield what it costs that a ternary table becomes floats."""
    for tensor in tensors:
        output = tensor.output
        if output.name not in tables or tensor.ternary:
            continue
        why = f"{choice.layout.name} does not hold it exactly"
        if not engine.ternary_tables:
            why = f"{engine.name} is not known to run ternary tables"
        # By a shape that every layout holds, which this one may not be.
        ternary = math.prod(output.shape) * choice.layout.nbytes(32, 6144) // (32 * 6144)
        yield (
            f"{output.name} is ternary in the source and becomes {tensor.kind}: {why}; it takes {output.nbytes} bytes, "
            f"and would take about {ternary}"
        )


# -- the tensors -------------------------------------------------------------------------------------------------------


def embedding_type_of(tensors: Sequence[PlannedTensor]) -> str:
    """Return the type of the embedding; `none` for a model of another kind, which has no table of that name."""
    return next((tensor.kind for tensor in tensors if tensor.output.name == "token_embd.weight"), "none")


def _planned_tensors(
    model: SourceModel, choice: LayoutChoice, options: ConvertOptions, certain: bool
) -> tuple[PlannedTensor, ...]:
    """Return the tensors of the output in file order. A scale that is a tensor of its own follows its weight."""
    planned = []
    for name, shape in model.spec.tensor_shapes().items():
        source = model.tensors[name]
        if name not in choice.blocks:
            planned.append(_float_tensor(name, shape, source, options.embedding_type, certain))
            continue
        nbytes = choice.layout.nbytes(shape[0], shape[1], choice.blocks[name])
        output = TensorPlan(name, shape, options.type_id(choice.layout.name), nbytes)
        planned.append(PlannedTensor(output, choice.layout.name, source))
        if name in choice.apart:
            beside = name.removesuffix("weight") + "scale"
            scale = ConstantTensor(beside, np.array([choice.apart[name]], np.float32))
            planned.append(PlannedTensor(TensorPlan(beside, (1,), 0, 4), "f32", scale))
    return tuple(planned)


def _float_tensor(
    name: str, shape: tuple[int, ...], source: SourceTensor, embedding_type: str, certain: bool
) -> PlannedTensor:
    is_open = _is_table(name) and not certain and embedding_type == "auto" and source.row_nbytes == 2 * shape[-1]
    if is_open and source.float_type() == "bf16":
        return dataclasses.replace(_float_tensor(name, shape, source, "f16", certain), otherwise="bf16")
    kind = _float_kind(name, shape, source, embedding_type)
    rows = 1 if len(shape) == 1 else shape[0]
    try:
        nbytes = float_types.FLOAT_TYPES[kind].nbytes(rows, shape[-1])
    except Unsupported as error:
        raise Unsupported(error.message, tensor=source.name, hint="choose another --embedding-type") from error
    return PlannedTensor(TensorPlan(name, shape, catalog.type_of(kind).type_id, nbytes), kind, source)


def _is_table(name: str) -> bool:
    return name.removesuffix(".weight") in TABLES


def _float_kind(name: str, shape: tuple[int, ...], source: SourceTensor, embedding_type: str) -> str:
    """Return the float type to write. Matrices that are no tables keep theirs; llama.cpp wants taps as float32."""
    if _is_table(name):
        return resolve_embedding_type(source, embedding_type)
    return "f32" if len(shape) == 1 or name.endswith(".ssm_conv1d.weight") else source.float_type()


def resolve_embedding_type(tensor: SourceTensor, asked: str) -> str:
    """Return the type of a table: `auto` is f16 if every value survives it, else the source's own type."""
    if asked != "auto":
        return asked
    stored = tensor.float_type()
    if stored not in ("bf16", "f32"):
        return stored
    return "f16" if all(float_types.survives("f16", piece) for piece in tensor.pieces()) else stored


def peak_bytes(tensors: Sequence[PlannedTensor], choice: LayoutChoice) -> int:
    """Return how much memory a conversion takes above the interpreter."""
    return BLOCK_MEMORY + 2 * PIECE_BYTES + max(tensor.kept_bytes(choice.layout) for tensor in tensors)


def check_memory(plans: Sequence[Plan], most: int) -> None:
    """Raise Unsupported if one of the conversions cannot do with `most` bytes of memory."""
    for plan in plans:
        largest = max(plan.tensors, key=lambda tensor: tensor.kept_bytes(plan.choice.layout))
        needed = largest.kept_bytes(plan.choice.layout) + min(BLOCK_MEMORY, most // 4) + 2 * PIECE_BYTES
        if needed > most:
            raise Unsupported(
                f"the conversion to {plan.outtype} needs {needed} bytes of memory, --max-memory allows {most}",
                tensor=largest.source.name,
                hint=f"pass --max-memory {-(-needed // 10**6)}M",
            )


# -- the metadata ------------------------------------------------------------------------------------------------------


def _model_metadata(
    model: SourceModel, spec: ModelSpec, choice: LayoutChoice, options: ConvertOptions
) -> dict[str, Any]:
    """Return what the file says about the model. spec: with the architecture that the engine knows it by."""
    name = options.name or model.metadata.get("general.name", spec.architecture)
    return {
        "general.architecture": spec.architecture,
        "general.type": "model",
        "general.name": name,
        "general.size_label": size_label(name, spec.parameters()),
        **model_metadata.to_metadata(spec),
        "general.file_type": catalog.type_of(choice.layout.name).file_type,
        "general.quantization_version": 2,
        **{key: value for key, value in model.metadata.items() if key != "general.name"},
    }


def engine_metadata(engine: Engine, deviations: list[str], options: ConvertOptions) -> dict[str, Any]:
    """Return what the file says about the engine that it is for. deviations: what that gets wrong."""
    record: dict[str, Any] = {} if engine.name == "tritpack" else {"tritpack.target": engine.name}
    if options.allow_wrong_engine and deviations:
        record["tritpack.warnings"] = deviations
    return record


def _losses(model: SourceModel, choice: LayoutChoice) -> dict[str, Any]:
    """Return what the choice of layout records; a loss of an earlier step is not forgotten."""
    record = dict(choice.record)
    if ROUNDING_KEY in model.metadata:
        record[ROUNDING_KEY] = max(record.get(ROUNDING_KEY, 0.0), model.metadata[ROUNDING_KEY])
    return record

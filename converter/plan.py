"""The plan that comes before work: every tensor's place, size and type, and every refusal, from headers; and where only
the values tell how ternary floats are scaled, from those."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.repair import ReadRequest, lacks_tilings, reopened
from tritpack.converter.sources.source_model import Material, of_checkpoint, of_gguf
from tritpack.converter.sources.source_tensors import PIECE_BYTES, CheckpointTensor, Computed, Origin, Tiling
from tritpack.converter.targets.engines import TARGETS, Target, check_target
from tritpack.converter.targets.layout_choice import ROUNDING_KEY, Fit, fit, type_id_of
from tritpack.converter.version import VERSION
from tritpack.formats import float_types, model_metadata
from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, file_size
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.tiling import Tiling as TileSizes
from tritpack.formats.model_spec import TABLES, ModelSpec


@dataclasses.dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output: where it comes from and what it becomes (a layout's or a float type's name)."""

    target: TensorPlan
    kind: str
    origin: Origin

    @property
    def ternary(self) -> bool:
        return self.kind in catalog.LAYOUTS


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `convert` will do. `why`: what was recognised, in a line. fit: the layout, and what becomes of the scales.
    `peak_bytes` is working memory above the interpreter: the largest tensor bounds it."""

    why: str
    spec: ModelSpec
    fit: Fit
    embedding_type: str
    tensors: tuple[PlannedTensor, ...]
    metadata: dict[str, Any]
    unused: tuple[str, ...]
    warnings: tuple[str, ...]
    types: dict[str, str]
    output_bytes: int
    peak_bytes: int

    @property
    def outtype(self) -> str:
        return self.fit.layout.name

    @property
    def granularity(self) -> dict[str, int]:
        """How the scales tile, in tensors each."""
        return self.fit.units


def make_plan(
    source: CheckpointFolder | GgufFile,
    *,
    outtype: str = "auto",
    embedding_type: str = "auto",
    target: str = "tritpack",
    name: str | None = None,
    quantize: str | None = None,
    allow_scale_rounding: bool = False,
    allow_wrong_engine: bool = False,
    tilings: Mapping[tuple[int, int], TileSizes] | None = None,
    tl2_id: int = 39,
    reading: ReadRequest | None = None,
    hashed: bool = True,
) -> Plan:
    """Decide everything about a conversion. Raises Unsupported or Unreadable, naming the tensor or key.

    target: the engine that the file is for, a key of TARGETS. quantize: `absmean` takes a plain float checkpoint for
    masters. allow_scale_rounding: change scales that the layout cannot hold. allow_wrong_engine: write for an engine
    that would run another model. tilings, tl2_id: how TL1 and TL2 are written. reading: how to read a GGUF that needs
    to be told; the tilings are then meant for it, if it lacks some. hashed: false leaves zeros where the source's
    hashes belong, so that a plan reads no more than it must.
    """
    if reading and isinstance(source, GgufFile) and lacks_tilings(source):
        tilings = None
    source, record = reopened(source, reading)
    if isinstance(source, GgufFile):
        if quantize is not None:
            raise UsageError(
                f"--quantize {quantize} is for plain float checkpoints, and {source.path} is a packed file"
            )
        material = of_gguf(source, hashed)
    else:
        material = of_checkpoint(source, quantize, name, hashed)
    engine, spec = TARGETS[target], material.spec
    found = _tilings(material, embedding_type, engine)
    _refuse_grouped_int8(spec, found, material.origins)
    fitted = fit(
        spec,
        material.origins,
        found,
        outtype=outtype,
        target=engine,
        allow_scale_rounding=allow_scale_rounding,
        tiles=tilings or {},
    )
    layout, shapes = fitted.layout, spec.tensor_shapes()
    engine_warnings = check_target(
        engine, spec, layout.name, {name: shapes[name] for name in fitted.blocks}, allow_wrong=allow_wrong_engine
    )
    spec = dataclasses.replace(spec, architecture=engine.architecture(spec))
    planned = []
    for tensor, shape in shapes.items():
        origin = material.origins[tensor]
        if tensor in fitted.blocks:
            nbytes = layout.nbytes(shape[0], shape[1], fitted.blocks[tensor])
            place = TensorPlan(tensor, shape, type_id_of(layout.name, tl2_id), nbytes)
            planned.append(PlannedTensor(place, layout.name, origin))
            if tensor in fitted.apart:
                beside = tensor.removesuffix("weight") + "scale"
                scale = Computed(beside, np.array([fitted.apart[tensor]], np.float32))
                planned.append(PlannedTensor(TensorPlan(beside, (1,), 0, 4), "f32", scale))
            continue
        kind = "f32" if len(shape) == 1 else resolve_embedding_type(origin, embedding_type)
        place = TensorPlan(tensor, shape, catalog.type_of(kind).type_id, _float_bytes(origin, kind, shape))
        planned.append(PlannedTensor(place, kind, origin))
    embedding = next(tensor.kind for tensor in planned if tensor.target.name == "token_embd.weight")
    warnings = (*_warnings(material, engine), *engine_warnings)
    metadata = {
        "general.architecture": spec.architecture,
        "general.type": "model",
        "general.name": name or material.metadata.get("general.name", spec.architecture),
        **model_metadata.to_metadata(spec),
        "general.file_type": catalog.type_of(layout.name).file_type,
        "general.quantization_version": 2,
        **{key: value for key, value in material.metadata.items() if key != "general.name"},
        "tritpack.version": VERSION,
        "tritpack.layout": layout.name,
        "tritpack.embedding_type": embedding,
        **({} if engine.name == "tritpack" else {"tritpack.target": engine.name}),
        **({"tritpack.warnings": engine_warnings} if allow_wrong_engine and engine_warnings else {}),
        **fitted.record,
        **record,
    }
    if ROUNDING_KEY in material.metadata:  # what an earlier step has lost is lost
        metadata[ROUNDING_KEY] = max(metadata[ROUNDING_KEY], material.metadata[ROUNDING_KEY])
    metadata = {key: value for key, value in metadata.items() if value is not None}
    targets = [tensor.target for tensor in planned]
    largest = max(int(np.prod(tensor.target.shape)) for tensor in planned if tensor.ternary)
    return Plan(
        why=material.why,
        spec=spec,
        fit=fitted,
        embedding_type=embedding,
        tensors=tuple(planned),
        metadata=metadata,
        unused=material.unused,
        warnings=warnings,
        types=material.types,
        output_bytes=file_size(metadata, targets, material.types),
        peak_bytes=(4 if set(fitted.units) == {"tensor"} else 12) * largest + 2 * PIECE_BYTES,
    )


def _warnings(material: Material, engine: Target) -> tuple[str, ...]:
    warnings = list(material.warnings)
    if material.unused:
        more = f" and {len(material.unused) - 1} more" if len(material.unused) > 1 else ""
        warnings.append(f"unused: tensor {material.unused[0]!r} of the source{more}")
    if not material.spec.tied and material.spec.architecture == "bitnet-b1.58" and engine.name == "tritpack":
        warnings.append("bitnet.cpp ignores a separate output head and will talk nonsense with this file")
    return tuple(warnings)


def _float_bytes(origin: Origin, kind: str, shape: tuple[int, ...]) -> int:
    try:
        return float_types.FLOAT_TYPES[kind].nbytes(1 if len(shape) == 1 else shape[0], shape[-1])
    except Unsupported as error:
        raise Unsupported(f"tensor {origin.name!r}: {error.message}", hint="choose another --embedding-type") from error


def resolve_embedding_type(origin: Origin, asked: str) -> str:
    """`auto` is f16 if every value survives it, else the source's own type; anything else is what was asked for."""
    if asked != "auto":
        return asked
    own = origin.float_type()
    if own not in ("bf16", "f32"):
        return own
    return "f16" if all(float_types.survives("f16", piece) for piece in origin.pieces()) else own


def _tilings(material: Material, embedding_type: str, engine: Target) -> dict[str, Tiling]:
    """By GGUF name, of every tensor that will be ternary: the linears, and for our own runtime the tables that are."""
    tilings = {name: material.origins[name].tiling() for name in material.spec.linear_names()}
    for table in TABLES:
        origin = material.origins.get(f"{table}.weight")
        # Packed checkpoints and masters keep their tables as floats.
        floats = isinstance(origin, CheckpointTensor) and origin.form not in ("exact", "mlx")
        if origin is None or floats or embedding_type != "auto" or engine.name != "tritpack":
            continue
        found = origin.ternary()
        origin.release()
        if found is not None:
            tilings[f"{table}.weight"] = Tiling(found.scale_blocks, found.granularity)
    return tilings


def _refuse_grouped_int8(spec: ModelSpec, tilings: Mapping[str, Tiling], origins: Mapping[str, Origin]) -> None:
    for name in spec.linear_names():
        if spec.int8_activations and tilings[name].blocks[1] > 1:
            raise Unsupported(
                f"tensor {origins[name].name!r} has {tilings[name].blocks[1]} scales along its rows, and the model "
                "takes int8 activations: no model is made that way, and no kernel here runs it"
            )

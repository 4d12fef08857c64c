"""The plan that comes before work: every tensor's place, size and type, and every refusal, from headers; and where only
the values tell how ternary floats are scaled, from those."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from converter.material import Material, of_checkpoint, of_gguf
from converter.origins import PIECE_BYTES, CheckpointTensor, Origin, Tiling
from converter.sources import CheckpointFolder
from converter.version import VERSION
from formats import float_types
from formats.errors import Unsupported, UsageError
from formats.gguf_file import GgufFile, TensorPlan, file_size
from formats.layouts import catalog
from formats.model_spec import TABLES, ModelSpec

OUTTYPES = ("auto", "i2_s", "t2")


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
    """What `convert` will do. `why`: what was recognised, in a line. granularity: how the scales tile, in tensors each.
    `peak_bytes` is working memory above the interpreter: the largest tensor bounds it."""

    why: str
    spec: ModelSpec
    outtype: str
    embedding_type: str
    granularity: dict[str, int]
    tensors: tuple[PlannedTensor, ...]
    metadata: dict[str, Any]
    unused: tuple[str, ...]
    warnings: tuple[str, ...]
    output_bytes: int
    peak_bytes: int


def make_plan(
    source: CheckpointFolder | GgufFile,
    *,
    outtype: str = "auto",
    embedding_type: str = "auto",
    name: str | None = None,
    quantize: str | None = None,
    hashed: bool = True,
) -> Plan:
    """Decide everything about a conversion. Raises Unsupported or Unreadable, naming the tensor or key.

    quantize: `absmean` takes a plain float checkpoint for masters. hashed: false leaves zeros where the source's hashes
    belong, so that a plan reads no more than it must.
    """
    if outtype not in OUTTYPES:
        raise Unsupported(f"--outtype {outtype} is not supported", hint=f"choose one of: {', '.join(OUTTYPES)}")
    if isinstance(source, GgufFile):
        if quantize is not None:
            raise UsageError(
                f"--quantize {quantize} is for plain float checkpoints, and {source.path} is a packed file"
            )
        material = of_gguf(source, hashed)
    else:
        material = of_checkpoint(source, quantize, name, hashed)
    spec = material.spec
    tilings = _tilings(material, embedding_type)
    blocks = {name: tiling.blocks for name, tiling in tilings.items()}
    _refuse_grouped_int8(spec, blocks, material.origins)
    layout = _choose_layout(outtype, spec, blocks, material.origins)
    planned = []
    for target, shape in spec.tensor_shapes().items():
        origin = material.origins[target]
        if target in blocks:
            kind = layout
            nbytes = catalog.LAYOUTS[kind].nbytes(shape[0], shape[1], blocks[target])
        else:
            kind = "f32" if len(shape) == 1 else resolve_embedding_type(origin, embedding_type)
            nbytes = _float_bytes(origin, kind, shape)
        plan = TensorPlan(target, shape, catalog.type_of(kind).type_id, nbytes)
        planned.append(PlannedTensor(plan, kind, origin))
    embedding = next(tensor.kind for tensor in planned if tensor.target.name == "token_embd.weight")
    kinds = Counter(tiling.unit for tiling in tilings.values())
    metadata = {
        "general.architecture": spec.architecture,
        "general.type": "model",
        "general.name": name or material.metadata.get("general.name", spec.architecture),
        **spec.to_metadata(),
        "general.file_type": catalog.type_of(layout).file_type,
        "general.quantization_version": 2,
        **{key: value for key, value in material.metadata.items() if key != "general.name"},
        "tritpack.version": VERSION,
        "tritpack.layout": layout,
        "tritpack.embedding_type": embedding,
    }
    targets = [tensor.target for tensor in planned]
    largest = max(int(np.prod(tensor.target.shape)) for tensor in planned if tensor.ternary)
    return Plan(
        why=material.why,
        spec=spec,
        outtype=layout,
        embedding_type=embedding,
        granularity=dict(kinds),
        tensors=tuple(planned),
        metadata=metadata,
        unused=material.unused,
        warnings=_warnings(material),
        output_bytes=file_size(metadata, targets),
        peak_bytes=(4 if set(kinds) == {"tensor"} else 12) * largest + 2 * PIECE_BYTES,
    )


def _warnings(material: Material) -> tuple[str, ...]:
    warnings = list(material.warnings)
    if material.unused:
        more = f" and {len(material.unused) - 1} more" if len(material.unused) > 1 else ""
        warnings.append(f"unused: tensor {material.unused[0]!r} of the source{more}")
    if not material.spec.tied and material.spec.architecture == "bitnet-b1.58":
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


def _tilings(material: Material, embedding_type: str) -> dict[str, Tiling]:
    """By GGUF name, of every tensor that will be ternary: the linears, and the tables that are."""
    tilings = {name: material.origins[name].tiling() for name in material.spec.linear_names()}
    for table in TABLES:
        origin = material.origins.get(f"{table}.weight")
        # Packed checkpoints and masters keep their tables as floats.
        floats = isinstance(origin, CheckpointTensor) and origin.form not in ("exact", "mlx")
        if origin is None or floats or embedding_type != "auto":
            continue
        found = origin.ternary()
        origin.release()
        if found is not None:
            tilings[f"{table}.weight"] = Tiling(found.scale_blocks, found.granularity)
    return tilings


def _refuse_grouped_int8(spec: ModelSpec, blocks: dict[str, tuple[int, int]], origins: dict[str, Origin]) -> None:
    for name in spec.linear_names():
        if spec.int8_activations and blocks[name][1] > 1:
            raise Unsupported(
                f"tensor {origins[name].name!r} has {blocks[name][1]} scales along its rows, and the model takes int8 "
                "activations: no model is made that way, and no kernel here runs it"
            )


def _choose_layout(
    outtype: str, spec: ModelSpec, blocks: dict[str, tuple[int, int]], origins: dict[str, Origin]
) -> str:
    """`auto` is i2_s if every ternary tensor fits it exactly, else t2: one layout for the whole model."""
    shapes = spec.tensor_shapes()

    def misfit(layout: str) -> tuple[str, str] | None:
        for name, found in blocks.items():
            rows, cols = shapes[name][0], shapes[name][1]
            if reason := catalog.LAYOUTS[layout].fits(rows, cols, found):
                return f"{origins[name].name!r} ({rows} x {cols})", reason
        return None

    if outtype == "auto":
        return "t2" if misfit("i2_s") else "i2_s"
    if problem := misfit(outtype):
        raise Unsupported(
            f"{outtype} cannot hold tensor {problem[0]}: {problem[1]}", hint="--outtype t2 (or auto) holds it exactly"
        )
    return outtype

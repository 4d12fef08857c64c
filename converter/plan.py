"""The plan that comes before work: from headers alone, every tensor's place, size and type, and every refusal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from converter import vocab
from converter.families import Recognition, recognise
from converter.sources import FLOATS, CheckpointFolder, StoredTensor
from converter.version import VERSION
from formats import float_types
from formats.errors import Unreadable, Unsupported
from formats.gguf_file import TensorPlan, file_size
from formats.layouts import catalog

OUTTYPES = ("auto", "i2_s")
EMBEDDING_TYPES = ("auto", *float_types.FLOAT_TYPES)
PIECE_BYTES = 64 << 20
"""Float scratch that one piece of a tensor may take."""


@dataclasses.dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output: where it comes from and what it becomes (a layout's or a float type's name)."""

    target: TensorPlan
    kind: str
    weight: StoredTensor
    scale: StoredTensor | None = None

    @property
    def ternary(self) -> bool:
        return self.kind in catalog.LAYOUTS


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `convert` will do. `peak_bytes` is working memory above the interpreter: the largest tensor bounds it."""

    recognition: Recognition
    outtype: str
    embedding_type: str
    tensors: tuple[PlannedTensor, ...]
    metadata: dict[str, Any]
    unused: tuple[str, ...]
    output_bytes: int
    peak_bytes: int


def make_plan(
    source: CheckpointFolder,
    *,
    outtype: str = "auto",
    embedding_type: str = "auto",
    name: str | None = None,
    hashed: bool = True,
) -> Plan:
    """Decide everything about a conversion. Raises Unsupported or Unreadable, naming the tensor or key.

    hashed: false leaves zeros where the source's hashes belong, so that a plan reads no more than headers (and the
    embedding, where `auto` has to look whether f16 holds it).
    """
    recognition = recognise(source.config, source.tensors)
    spec, family = recognition.spec, recognition.family
    layout = _layout_name(outtype)
    planned: list[PlannedTensor] = []
    used: set[str] = set()
    linears = set(spec.linear_names())
    chosen = embedding_type
    for target, shape in spec.tensor_shapes().items():
        stored = source.tensors.get(family.source_name(target))
        if stored is None:
            raise Unreadable(f"{source.folder}: tensor {family.source_name(target)!r} is missing")
        scale = source.tensors.get(stored.name + "_scale")
        used |= {stored.name} | ({scale.name} if scale else set())
        if target in linears:
            rows, cols = shape[0], shape[1]
            _check_linear(stored, rows, cols, recognition)
            kind = layout
            if reason := catalog.LAYOUTS[kind].fits(rows, cols):
                raise Unsupported(
                    f"{kind} cannot hold tensor {stored.name!r} ({rows} x {cols}): {reason}",
                    hint="no other layout of this version holds it either",
                )
            nbytes = catalog.LAYOUTS[kind].nbytes(rows, cols)
        else:
            _check_float(stored, shape)
            kind = "f32" if len(shape) == 1 else resolve_embedding_type(stored, embedding_type)
            chosen = kind if target == "token_embd.weight" else chosen
            nbytes = float_types.FLOAT_TYPES[kind].nbytes(1 if len(shape) == 1 else shape[0], shape[-1])
        plan = TensorPlan(target, shape, catalog.type_of(kind).type_id, nbytes)
        planned.append(PlannedTensor(plan, kind, stored, scale if target in linears else None))
    hashes = source.file_hashes if hashed else dict.fromkeys(source.source_files, "0" * 64)
    metadata = {
        **_metadata(recognition, layout, chosen, name or _title(source, recognition)),
        # Not the folder's path: the same checkpoint has to give the same bytes wherever it lies.
        "general.source.format": "safetensors",
        "general.source.sha256": source.sha256 if hashed else "0" * 64,
        "tritpack.source.files": [f"{digest}  {file}" for file, digest in hashes.items()],
        **vocab.read_vocabulary(source.folder, source.config, source.generation_config),
    }
    targets = [tensor.target for tensor in planned]
    largest = max(int(np.prod(tensor.target.shape)) for tensor in planned if tensor.ternary)
    return Plan(
        recognition=recognition,
        outtype=layout,
        embedding_type=chosen,
        tensors=tuple(planned),
        metadata=metadata,
        unused=tuple(sorted(set(source.tensors) - used)),
        output_bytes=file_size(metadata, targets),
        peak_bytes=4 * largest + 2 * PIECE_BYTES,
    )


def resolve_embedding_type(stored: StoredTensor, asked: str) -> str:
    """`auto` is f16 if every value survives it, else the checkpoint's own type; anything else is what was asked for."""
    if asked != "auto":
        return asked
    own = {"BF16": "bf16", "F16": "f16", "F32": "f32"}[stored.dtype]
    if own == "f16":
        return own
    return "f16" if all(float_types.survives("f16", piece) for piece in pieces_f32(stored)) else own


def pieces_f32(stored: StoredTensor) -> Any:
    """The rows of a float tensor in float32 pieces of at most PIECE_BYTES."""
    cols = stored.shape[-1]
    step = max(1, PIECE_BYTES // 4 // cols)
    for first in range(0, stored.rows, step):
        yield stored.rows_f32(first, min(first + step, stored.rows))
        stored.release()


def _layout_name(outtype: str) -> str:
    if outtype not in OUTTYPES:
        raise Unsupported(f"--outtype {outtype} is not supported", hint=f"choose one of: {', '.join(OUTTYPES)}")
    return "i2_s" if outtype == "auto" else outtype


def _check_linear(stored: StoredTensor, rows: int, cols: int, recognition: Recognition) -> None:
    expected = (rows // 4, cols) if recognition.form == "packed" else (rows, cols)
    if recognition.form == "packed" and stored.dtype != "U8":
        raise Unsupported(f"tensor {stored.name!r} is {stored.dtype} in a packed checkpoint, expected U8")
    if recognition.form == "online" and stored.dtype not in FLOATS:
        raise Unsupported(
            f"tensor {stored.name!r} is {stored.dtype} in an online checkpoint, expected {' or '.join(FLOATS)}"
        )
    if recognition.form == "packed" and rows % 4:
        raise Unsupported(f"tensor {stored.name!r} has {rows} output rows, which is not a multiple of 4")
    if stored.shape != expected:
        raise Unreadable(f"tensor {stored.name!r} has shape {list(stored.shape)}, expected {list(expected)}")


def _check_float(stored: StoredTensor, shape: tuple[int, ...]) -> None:
    if stored.shape != shape:
        raise Unreadable(f"tensor {stored.name!r} has shape {list(stored.shape)}, expected {list(shape)}")
    if stored.dtype not in FLOATS:
        raise Unsupported(f"tensor {stored.name!r} is stored as {stored.dtype}, expected {' or '.join(FLOATS)}")


def _title(source: CheckpointFolder, known: Recognition) -> str:
    given = source.config.get("_name_or_path")
    return Path(given).name if isinstance(given, str) and Path(given).name else known.family.name


def _metadata(known: Recognition, layout: str, embedding: str, title: str) -> dict[str, Any]:
    return {
        "general.architecture": known.spec.architecture,
        "general.type": "model",
        "general.name": title,
        **known.spec.to_metadata(),
        "general.file_type": catalog.type_of(layout).file_type,
        "general.quantization_version": 2,
        "tritpack.source.family": known.family.name,
        "tritpack.source.form": known.form,
        "tritpack.version": VERSION,
        "tritpack.activation_quantization": known.family.activation_quantization,
        "tritpack.layout": layout,
        "tritpack.embedding_type": embedding,
    }

"""The proof of an export: the written folder is read as any checkpoint is, and compared with the source."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tritpack.converter.export.storage_choice import (
    BYTES_PER_WEIGHT,
    in_source_order,
    largest_linear,
    prepared,
    written_floats,
)
from tritpack.converter.families.family import Family
from tritpack.converter.pipeline.in_order import in_order, threads_for
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.source_model import SourceModel, from_checkpoint
from tritpack.converter.sources.source_tensors import SourceTensor
from tritpack.converter.storage.storage import Storage
from tritpack.converter.targets.scale_rounding import loss
from tritpack.formats.errors import Unsupported, WriteFailed
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.ternary import TernaryTensor, scales_differ

MASTER_TOLERANCE = {"float32": 5e-7, "float16": 1e-3, "bfloat16": 1e-2}
"""The relative change that a scale may have after master weights of +-scale / p went through absmean in float32."""

DECAY_TOLERANCE = 1e-6
"""The relative change that a decay may have: half a last bit of a logarithm up to 16."""


def prove(folder: Path, model: SourceModel, family: Family, storage: Storage) -> tuple[float, list[str]]:
    """Compare all of a folder with the source.

    Return the largest relative change of a scale, and what to warn of. Raises WriteFailed for what did not
    survive, Unsupported for what the checkpoint's config cannot say.
    """
    reread = from_checkpoint(CheckpointFolder(folder), None, None)
    _compare_specs(reread.spec, model.spec, family, storage)
    worst, warnings = 0.0, []

    def compare(name: str) -> float | None:
        source, back = model.tensors[name], reread.tensors[name]
        before, after = (in_source_order(model, name, _ternary(tensor)) for tensor in (source, back))
        lost = _compare_linear(name, before, after, storage)
        source.release()
        back.release()
        return lost

    linears = model.spec.linear_names()
    threads = threads_for(BYTES_PER_WEIGHT * largest_linear(model))
    for name, lost in zip(linears, in_order(compare, linears, threads)):
        if lost is None:
            warnings.append(f"tensor {name!r} is all zero: stored as {storage.name} it has no scale")
        else:
            worst = max(worst, lost)
    for name, tensor in written_floats(model):
        _compare_floats(name, tensor, reread.tensors[name])
    for key, value in model.metadata.items():
        if key.startswith("tokenizer.") and str(reread.metadata.get(key)) != str(value):
            warnings.append(f"files of a checkpoint cannot say {key} as the source does: read again, it differs")
    return worst, warnings


def _compare_specs(reread: ModelSpec, spec: ModelSpec, family: Family, storage: Storage) -> None:
    for field in dataclasses.fields(ModelSpec):
        value = getattr(spec, field.name)
        same_graph = field.name == "architecture" and family.name == "bitnet"
        warned_of = field.name == "int8_activations" and storage.int8_activations != spec.int8_activations
        if getattr(reread, field.name) != value and not same_graph and not warned_of:
            raise Unsupported(f"a config.json of {family.title} cannot say {field.name} {value!r}")


def _compare_linear(name: str, source: TernaryTensor, back: TernaryTensor, storage: Storage) -> float | None:
    """Return the largest relative change of a scale; None for a tensor that is all zero, of which the storage keeps no
    scale. Raises WriteFailed for what did not survive."""
    expected = prepared(source, storage)
    if not np.array_equal(back.codes, expected.codes):
        raise WriteFailed("its codes did not survive the export; this is a bug of tritpack", tensor=name)
    if not expected.codes.any() and storage.name not in ("packed", "pack_quantized"):
        return None
    rounded = 0.0 if expected is source else loss(source, expected)
    if storage.exact:
        if scales_differ(back, expected)[0].any():
            raise WriteFailed("its scales did not survive the export; this is a bug of tritpack", tensor=name)
        return rounded
    lost = loss(expected, back)
    if lost > MASTER_TOLERANCE[storage.dtype]:
        raise WriteFailed(f"its scale came back {lost:.1e} off; this is a bug of tritpack", tensor=name)
    return max(rounded, lost)


def _compare_floats(name: str, source: SourceTensor, back: SourceTensor) -> None:
    # A decay is written as its logarithm, and not every float32 is the exponential of one.
    tolerance = DECAY_TOLERANCE if name.endswith(".ssm_a") else 0.0
    for piece, reread in zip(source.pieces(), back.pieces(), strict=True):
        if not np.allclose(reread, piece, rtol=tolerance, atol=0):
            raise WriteFailed("did not survive the export; this is a bug of tritpack", tensor=name)
    source.release()
    back.release()


def _ternary(tensor: SourceTensor) -> TernaryTensor:
    ternary = tensor.ternary()
    assert ternary is not None
    return ternary

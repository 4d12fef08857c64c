"""How the linears and floats of a model are stored in an exported checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tritpack.converter.families.family import Family
from tritpack.converter.sources.source_model import SourceModel
from tritpack.converter.sources.source_tensors import SourceTensor
from tritpack.converter.storage import TRANSFORMERS
from tritpack.converter.storage.catalog import STORAGES
from tritpack.converter.storage.storage import Storage, Written, held
from tritpack.converter.targets.scale_rounding import fold
from tritpack.formats.arrays import Scales
from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.model_spec import ROPE_FACTORS
from tritpack.formats.names import DTYPES
from tritpack.formats.ternary import TernaryTensor

BYTES_PER_WEIGHT = 12
"""Of memory for a linear that is written or compared: its codes and floats, and what is computed on the way."""


def choose_kind(
    model: SourceModel, family: Family, to: str, asked: str, allow_wrong: bool, warnings: list[str]
) -> type[Storage]:
    """Return the storage of the linears.

    asked: the argument of --storage. What would be run with other activations than the model's is refused, or with
    allow_wrong added to the warnings; compressed-tensors always keeps them as floats, and differences.py says so.
    Raises UsageError and Unsupported.
    """
    if asked not in ("auto", *TRANSFORMERS):
        raise UsageError(f"--storage {asked} is unknown", hint=f"choose one of: auto, {', '.join(TRANSFORMERS)}")
    if to != "hf" and asked != "auto":
        raise UsageError("--storage is for --to hf")
    if to == "mlx":
        kind = _for_mlx(family, warnings)
    elif to == "compressed-tensors":
        kind = _for_vllm(model)
    else:
        kind = _for_transformers(model, family, asked)
    if family.embedding and kind.name != "master_weights":
        hint = "--to hf --storage master_weights"
        raise Unsupported(f"{family.title} can only be loaded from master weights", hint=hint)
    if family.remote_code:
        warnings.append(f"transformers has no {family.title} of its own: loading this needs {family.remote_code}")
    if kind.int8_activations != model.spec.int8_activations and to != "compressed-tensors":
        takes = {True: "int8 activations", False: "float activations"}
        wrong = (
            f"linears stored as {kind.name} are run with {takes[kind.int8_activations]}, and this model has "
            f"{takes[model.spec.int8_activations]}"
        )
        if not allow_wrong:
            hint = "--allow-wrong-engine writes it nevertheless"
            raise Unsupported(wrong, hint=hint if to == "mlx" else f"--storage auto fits the model; {hint}")
        warnings.append(wrong)
    return kind


def _for_mlx(family: Family, warnings: list[str]) -> type[Storage]:
    if family.name == "bitnet":
        warnings.append("mlx-lm runs BitNet from transformers' packed codes, which is what is written")
        return STORAGES["packed"]
    if "mlx" not in family.checkpoints:
        raise Unsupported(f"{family.title} cannot be exported to MLX: it is not read back from there")
    return STORAGES["mlx"]


def _for_vllm(model: SourceModel) -> type[Storage]:
    if model.spec.projection_norms:
        raise Unsupported(
            "has a norm in front of each projection, which only transformers' BitNet linears have",
            hint="--to hf writes it for these",
        )
    return STORAGES["pack_quantized"]


def _for_transformers(model: SourceModel, family: Family, asked: str) -> type[Storage]:
    if asked != "auto":
        return STORAGES[asked]
    if not model.spec.int8_activations:
        return STORAGES["ternary_floats"]
    return STORAGES["master_weights" if family.embedding else "packed"]


def choose_storage(
    model: SourceModel, kind: type[Written], dtypes: tuple[str, ...], group_size: int | None, allow_rounding: bool
) -> Written:
    """Return the first way of storing the linears that holds all of them exactly, or else the first one.

    dtypes: float types that may be taken, best first. Raises Unsupported with the misfit unless allow_rounding.
    """
    misfits = []
    for dtype in dtypes:
        for storage in kind.candidates(dtype, group_size):
            if (misfit := _first_misfit(model, storage)) is None:
                return storage
            misfits.append(misfit)
    if not allow_rounding:
        hint = "--allow-scale-rounding changes the scales and says by how much"
        wider = "" if dtypes[-1] == "float32" else "--dtype float32 may hold it; "
        smaller = "" if group_size is None else "smaller groups than of --group-size may hold it; "
        misfits[-1].hint = wider + smaller + hint
        raise misfits[-1]
    storage = kind.candidates(dtypes[-1], group_size)[0]
    for name, tensor in linears(model):
        rows, cols = model.spec.tensor_shapes()[name]
        if reason := storage.shape_misfit(rows, cols):
            raise Unsupported(reason, tensor=tensor.name)
    return storage


def choose_float_dtype(model: SourceModel, family: Family, dtypes: tuple[str, ...]) -> str:
    """Return the first dtype that holds every norm and table exactly. Raises Unsupported for the first misfit."""
    misfit = None
    for dtype in dtypes:
        if (misfit := _float_misfit(model, family, dtype)) is None:
            return dtype
    assert misfit is not None
    misfit.hint = "--dtype float32 holds everything"
    raise misfit


def dtypes_of(asked: str) -> tuple[str, ...]:
    """Return the float types that the argument of --dtype allows, best first. Raises UsageError."""
    if asked not in ("auto", *DTYPES):
        raise UsageError(f"--dtype {asked} is unknown", hint=f"choose one of: auto, {', '.join(DTYPES)}")
    return DTYPES if asked == "auto" else (asked,)


def prepared(ternary: TernaryTensor, storage: Written) -> TernaryTensor:
    """Return the tensor with scales that the storage holds exactly; the same object if it has such already.

    Scales that are finer than what can be written are merged.
    """
    blocks = storage.nearest_grid(*ternary.shape, ternary.scale_blocks)
    scales = ternary.scales if blocks == ternary.scale_blocks else fold(ternary, blocks)
    kept = storage.held_scales(scales)
    return ternary if np.array_equal(kept, ternary.scales) else TernaryTensor(ternary.codes, kept)


def in_source_order(model: SourceModel, name: str, ternary: TernaryTensor) -> TernaryTensor:
    """Return the tensor of this GGUF name with its rows and columns as checkpoints have them."""
    rows, columns = model.spec.row_order(name), model.spec.column_order(name)
    ternary = ternary if rows is None else ternary.with_rows(np.argsort(rows))
    return ternary if columns is None else ternary.with_columns(np.argsort(columns))


def largest_linear(model: SourceModel) -> int:
    """Return the number of weights of the largest linear."""
    shapes = model.spec.tensor_shapes()
    return max(math.prod(shapes[name]) for name in model.spec.linear_names())


def linears(model: SourceModel) -> Iterator[tuple[str, SourceTensor]]:
    """Yield the linears by GGUF name, and let go of each afterwards."""
    for name in model.spec.linear_names():
        yield name, model.tensors[name]
        model.tensors[name].release()


def written_floats(model: SourceModel) -> Iterator[tuple[str, SourceTensor]]:
    """Yield the norms and tables by GGUF name. Rotary factors are in config.json."""
    linear_names = set(model.spec.linear_names())
    for name, tensor in model.tensors.items():
        if name not in linear_names and name != ROPE_FACTORS:
            yield name, tensor


def _first_misfit(model: SourceModel, storage: Written) -> Unsupported | None:
    """Return why a storage does not hold every linear exactly, or None."""
    for name, tensor in linears(model):
        rows, cols = model.spec.tensor_shapes()[name]
        if reason := storage.shape_misfit(rows, cols):
            return Unsupported(reason, tensor=tensor.name)
        scales = _scales(model, name, tensor)
        if storage.nearest_grid(rows, cols, (scales.shape[0], scales.shape[1])) != scales.shape:
            has = f"{scales.shape[0]} x {scales.shape[1]} scales"
            return Unsupported(f"has {has}, which linears stored as {storage.name} cannot hold", tensor=tensor.name)
        if reason := storage.scales_misfit(scales):
            return Unsupported(reason, tensor=tensor.name)
    return None


def _scales(model: SourceModel, name: str, tensor: SourceTensor) -> Scales:
    """Return the scales of a linear as checkpoints have its columns: groups of GGUF's order may be torn there."""
    if model.spec.column_order(name) is None:
        return tensor.scales()
    ternary = tensor.ternary()
    assert ternary is not None
    return in_source_order(model, name, ternary).scales


def _float_misfit(model: SourceModel, family: Family, dtype: str) -> Unsupported | None:
    """Return why norms and tables do not survive dtype, or None."""
    for name, tensor in written_floats(model):
        offset = np.float32(family.offset_of(name))
        for piece in tensor.pieces():
            if not np.array_equal(held(piece - offset, dtype) + offset, piece):
                return Unsupported(f"holds values that {dtype} does not", tensor=tensor.name)
        tensor.release()
    return None

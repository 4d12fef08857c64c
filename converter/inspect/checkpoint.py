"""What a checkpoint folder holds, for `tritpack inspect`."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any

from tritpack.converter.inspect.engines import checkpoint_verdicts
from tritpack.converter.inspect.needs import NeedsOptions
from tritpack.converter.inspect.origin import of_checkpoint
from tritpack.converter.inspect.packed_needs import packed_needs, table_parameters
from tritpack.converter.inspect.statistics import figures_of
from tritpack.converter.inspect.summary import SCHEMA, codes_in_all, hyperparameters, summary
from tritpack.converter.inspect.ternarity import FORM_KEY, not_ternary, ternarity_of
from tritpack.converter.inspect.weight_values import TERNARY
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.source_model import SourceModel, from_checkpoint
from tritpack.converter.sources.source_tensors import CheckpointTensor
from tritpack.converter.sources.weight_file import WeightFile
from tritpack.formats.delta_net import GATES
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.safetensors_reader import FLOATS

SCALES = {"mlx": "scales", "pack-quantized": "weight_scale"}
"""Form of storage with a scale per group or row -> the tensor that holds them. If they differ, i2_s does not."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def inspect_checkpoint(folder: CheckpointFolder, name: str, stats: bool, options: NeedsOptions) -> dict[str, Any]:
    """Return what a checkpoint folder holds, under its own names; `gguf_name` is what convert would write.

    name: what commands call it.
    """
    model, problems, damage = _recognised(folder)
    used = {}
    if model is not None:
        used = {t.name: (name, t) for name, t in model.tensors.items() if isinstance(t, CheckpointTensor)}
    rows = []
    for tensor_name, stored in folder.tensors.items():
        row: dict[str, Any] = {
            "name": tensor_name,
            "layout": stored.dtype.lower(),
            "shape": list(stored.shape),
            "file_name": stored.file,
            "nbytes": stored.nbytes,
        }
        if tensor_name in used:
            row["gguf_name"], tensor = used[tensor_name]
            if stats and tensor.may_be_ternary:
                try:
                    if (ternary := tensor.ternary()) is not None:
                        row |= figures_of(row["gguf_name"], ternary, model.spec if model else None)
                except TritpackError as error:
                    damage.append(error.without_path)
                tensor.release()
        rows.append(row)
    spec = model.spec if model else None
    ternary_names = set(spec.linear_names()) if spec else set()
    linears = [tensor for name, tensor in used.values() if name in ternary_names]
    verdict = ternarity_of(folder, model, whole=stats)
    if model is not None and not_ternary(verdict, model):  # headers alone made it look like ternary floats
        model, linears = None, []
        problems.append(f"cannot be converted: {verdict['summary']}")
    ternary_weights = sum(math.prod(tensor.shape) for tensor in linears)
    ternary_bytes = sum(part.nbytes for tensor in linears for part in (tensor.stored, *tensor.parts.values()))
    return {
        "schema": SCHEMA,
        "kind": "weights" if isinstance(folder, WeightFile) else "checkpoint",
        "file": str(folder.folder),
        "nbytes": sum(nbytes for _, nbytes in folder.shard_files),
        "weight_files": folder.weight_files,
        "model_type": folder.config.get("model_type"),
        "recognised": model.why if model else None,
        "architecture": spec.architecture if spec else None,
        "name": folder.origin.name,
        "layouts": dict(collections.Counter(row["layout"] for row in rows)),
        "ternary_layouts": list(dict.fromkeys(tensor.stored.dtype.lower() for tensor in linears)),
        "parameters": spec.parameters() if spec else sum(math.prod(row["shape"]) for row in rows),
        "embedding_parameters": table_parameters(spec) if spec else 0,
        "ternary_weights": ternary_weights,
        "ternary_bits_per_weight": 8 * ternary_bytes / ternary_weights if ternary_weights else None,
        "rotation": str(spec.rotation) if spec and spec.rotation else None,
        "codes": codes_in_all(rows, 0),
        "left_out": model.left_out if model else {},
        "model": hyperparameters(spec) if spec else None,
        "context_length": spec.context_length if spec else None,
        "tokenizer": _tokenizer(folder, spec),
        "ternarity": verdict,
        "metadata": {key: summary(value) for key, value in folder.config.items()},
        "damage": damage,
        "problems": [*damage, *problems],
        "decoded": stats,
        "engines": checkpoint_verdicts(spec, str(model.metadata[FORM_KEY]), name) if spec and model else [],
        "needs": _needs(spec, used, verdict, options) if spec and model else None,
        "origin": of_checkpoint(folder.origin),
        "tensors": rows,
    }


def _needs(
    spec: ModelSpec, used: Mapping[str, tuple[str, CheckpointTensor]], verdict: Mapping[str, Any], options: NeedsOptions
) -> dict[str, Any]:
    """What the file needs that convert makes by itself, about: it chooses by all values, and here some rows are read.

    used: name in the checkpoint -> name in a GGUF, and the tensor. verdict: see ternarity.
    """
    stored, linears = dict(used.values()), set(spec.linear_names())
    units = {
        used[row["name"]][0]: row["granularity"]
        for row in verdict["tensors"] if row["kind"] == TERNARY and row["name"] in used
    }  # fmt: skip
    if any(_scales_differ(stored[name]) for name in spec.linear_names()[:1]):
        units |= {name: unit for name, tensor in stored.items() if (unit := _stored_unit(tensor))}
    usual = collections.Counter(unit for name, unit in units.items() if name in linears).most_common(1)
    blocks = {
        name: _blocks(spec, name, units.get(name, usual[0][0] if usual else "tensor")) for name in {*units, *linears}
    }
    by_group = any(blocks[name] != (1, 1) for name in linears)
    types = {name: tensor.float_type() for name, tensor in stored.items() if name.split(".")[-2] in GATES}
    table = "token_embd.weight"
    if table in units:
        embedding_type = "t2"
    else:
        embedding_type = "f32" if table in stored and stored[table].float_type() == "f32" else "f16"
    outtype = "t2" if by_group else "auto"
    return packed_needs(spec, outtype, embedding_type, blocks=blocks, types=types, options=options)


def _stored_unit(tensor: CheckpointTensor) -> str | None:
    """What one scale covers of a tensor that is stored with its scales, in words."""
    scales = tensor.parts.get(SCALES.get(tensor.storage.recorded, "")) if tensor.storage else None
    if scales is None:
        return None
    groups = scales.shape[-1] if len(scales.shape) == 2 else 1
    return "row" if groups == 1 else f"group {tensor.shape[1] // groups}"


def _blocks(spec: ModelSpec, name: str, unit: str) -> tuple[int, int]:
    """How scales tile a tensor in GGUF, whose order of heads may tear groups. unit: what one covers in the source."""
    rows, cols = spec.tensor_shapes()[name]
    if not unit.startswith("group "):
        return (1 if unit == "tensor" else rows, 1)
    group = int(unit.removeprefix("group "))
    if spec.delta_net and spec.column_order(name) is not None:
        group = math.gcd(group, spec.delta_net.state_size)
    return rows, cols // group


def _scales_differ(tensor: CheckpointTensor) -> bool:
    part = SCALES.get(tensor.storage.recorded) if tensor.storage else None
    if part is None or part not in tensor.parts or tensor.parts[part].dtype not in FLOATS:
        return False
    scales = tensor.parts[part].rows_f32(0, tensor.parts[part].rows)
    return bool(scales.size and scales.min() != scales.max())


def _tokenizer(folder: CheckpointFolder, spec: ModelSpec | None) -> dict[str, Any] | None:
    """The first file of a tokenizer that is there, under the keys that a GGUF has."""
    for name in TOKENIZER_FILES:
        if (folder.folder / name).is_file():
            return {"model": name, "pre": None, "tokens": spec.vocab_size if spec else None}
    return None


def _recognised(folder: CheckpointFolder) -> tuple[SourceModel | None, list[str], list[str]]:
    """The model in a checkpoint folder, or None; then why it cannot be converted, and what is damaged."""
    if isinstance(folder, WeightFile):
        return None, ["a weight file alone: config.json and the tokenizer beside it would say what the model is"], []
    try:
        return from_checkpoint(folder, None, None), [], []
    except Unreadable as error:
        return None, [], [error.without_path]
    except TritpackError as error:
        return None, [f"cannot be converted: {error.without_path}"], []

"""`tritpack inspect`: container, dialect, tensors and statistics of a packed file, or of a checkpoint folder.

It trusts the types and sizes of tensors, and never general.file_type.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.inspect.statistics import figures_of, statistics
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.source_model import SourceModel, from_checkpoint
from tritpack.converter.sources.source_tensors import CheckpointTensor
from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.gguf_reader import GgufFile, ReadOptions
from tritpack.formats.integrity import TENSORS_KEY, TensorHashes, recorded_hashes
from tritpack.formats.model_spec import ModelSpec
from tritpack.runtime import packers

SCHEMA = "tritpack.inspect/1"


def inspect(file: str | Path, *, stats: bool = False) -> dict[str, Any]:
    """Return what `tritpack inspect --json` prints. Raises Unreadable if the file or folder cannot be parsed.

    stats: also decode every ternary tensor (scale, shares, entropy, codes_sha256), and compare each tensor with the
    hashes that the file records. A tensor that cannot be decoded or that differs is damage in the result, and not an
    error. `problems` has the damage, and what readers may stumble over besides.
    """
    if stats:
        packers.use_c_packers()
    if Path(file).is_dir():
        return _checkpoint(CheckpointFolder(file), stats)
    gguf = GgufFile(file, ReadOptions(any_part=True))
    spec = _spec(gguf)
    rows, unknown = _tensor_rows(gguf)
    integrity, damage = _integrity(gguf, spec, rows, stats)
    damage = [*_missing(gguf, spec), *damage]
    weights = [tensor for tensor in gguf.tensors.values() if gguf.layout_of(tensor)]
    ternary_weights = sum(t.rows * t.cols for t in weights)
    return {
        "schema": SCHEMA,
        "kind": "gguf",
        "file": str(file),
        "files": [str(path) for path in gguf.files],
        "nbytes": gguf.size,
        "gguf_version": gguf.version,
        "part": _part(gguf),
        "architecture": gguf.metadata.get("general.architecture"),
        "name": gguf.metadata.get("general.name"),
        "layouts": dict(collections.Counter(tensor.layout for tensor in gguf.tensors.values())),
        "dialects": sorted({t.meaning.dialect for t in weights if t.meaning}),
        "parameters": sum(tensor.rows * tensor.cols for tensor in gguf.tensors.values()),
        "ternary_weights": ternary_weights,
        "ternary_bits_per_weight": 8 * sum(t.nbytes for t in weights) / ternary_weights if ternary_weights else None,
        "model": _hyperparameters(gguf, spec, ternary_weights),
        "metadata": {key: _summary(value) for key, value in gguf.metadata.items()},
        "damage": damage,
        "problems": [*damage, *unknown, *_file_problems(gguf)],
        "integrity": integrity,
        "tensors": rows,
    }


def _hyperparameters(file: GgufFile, spec: ModelSpec | None, ternary_weights: int) -> dict[str, Any] | None:
    """The spec's fields. Nothing implies how activations are quantised where no weights are ternary."""
    if spec is None:
        return None
    known = ternary_weights > 0 or model_metadata.QUANTIZATION_KEY in file.metadata
    return {**dataclasses.asdict(spec), **({} if known else {"int8_activations": None})}


def _part(file: GgufFile) -> dict[str, Any] | None:
    """Which part of a split file this is, the numbers of the parts that do not lie beside it, and why it is not read
    with those that do."""
    if (part := file.part) is None:
        return None
    return {"number": part.number, "count": part.count, "missing": list(part.missing), "problem": part.problem}


def _missing(file: GgufFile, spec: ModelSpec | None) -> list[str]:
    """One sentence for all tensors that the model needs and a whole file does not have."""
    if spec is None or file.part is not None:
        return []
    missing = [name for name in spec.tensor_shapes() if name not in file.tensors]
    if not missing:
        return []
    named = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
    what = "1 tensor is missing" if len(missing) == 1 else f"{len(missing)} tensors are missing"
    return [f"{what}: {named}"]


def _tensor_rows(file: GgufFile) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per tensor, and the types that are not known."""
    rows, unknown = [], []
    for tensor in file.tensors.values():
        row: dict[str, Any] = {
            "name": tensor.name,
            "layout": tensor.layout,
            "type_id": tensor.type_id,
            "shape": list(tensor.shape),
            "file_offset": tensor.file_offset,
            "nbytes": tensor.nbytes,
        }
        if len(file.files) > 1:
            row["file"] = file.path_of(tensor).name
        if tensor.meaning is None:
            unknown.append(f"tensor {tensor.name!r} has the unknown type id {tensor.type_id}")
        rows.append(row)
    return rows, unknown


def _integrity(
    file: GgufFile, spec: ModelSpec | None, rows: Sequence[dict[str, Any]], stats: bool
) -> tuple[dict[str, Any] | None, list[str]]:
    """What is known of the hashes that a file records of its tensors, None if there are none; and the damage. stats:
    compute them, and put the statistics of every tensor into its row."""
    recorded, damage = _recorded(file)
    if stats:
        for row, (name, found) in zip(rows, statistics(file, spec, recorded).items()):
            row |= found.figures | ({} if found.intact is None else {"intact": found.intact})
            damage += [] if found.damage is None else [found.damage]
            if recorded and name not in recorded:
                damage.append(f"tensor {name!r}: {TENSORS_KEY} does not name it")
    if not recorded:
        return None, damage
    differing = [row["name"] for row in rows if not row.get("intact", True)] if stats else None
    return {"recorded": len(recorded), "checked": stats, "differing": differing}, damage


def _recorded(file: GgufFile) -> tuple[dict[str, TensorHashes], list[str]]:
    try:
        return recorded_hashes(file), []
    except Unreadable as error:
        return {}, [error.without_path]


def _spec(file: GgufFile) -> ModelSpec | None:
    try:
        return model_metadata.from_gguf(file)
    except TritpackError:
        return None


def _file_problems(file: GgufFile) -> list[str]:
    """What in the metadata would make some engine produce nonsense from this file."""
    if (part := file.part) is not None:  # what it lacks may be in another part
        of = "" if part.tensors is None else f" of {part.tensors}"
        return [f"{part}; it holds {len(file.tensors)}{of} tensors"]
    problems = []
    arch = file.metadata.get("general.architecture", "")
    try:
        model_metadata.from_gguf(file)
    except TritpackError as error:
        problems.append(error.without_path)
    if str(arch).startswith("bitnet") and f"{arch}.hidden_activation" not in file.metadata:
        problems.append(f"{arch}.hidden_activation is missing: readers have to guess the activation function")
    if "tokenizer.ggml.model" in file.metadata:
        if file.metadata.get("tokenizer.ggml.model") == "gpt2" and "tokenizer.ggml.pre" not in file.metadata:
            problems.append("tokenizer.ggml.pre is missing: readers fall back to a wrong pre-tokenizer")
        if "tokenizer.ggml.eos_token_id" not in file.metadata:
            problems.append("tokenizer.ggml.eos_token_id is missing: generation may never stop")
    else:
        problems.append("the file has no tokenizer")
    claimed = file.metadata.get("general.file_type")
    file_types = {t.meaning.file_type for t in file.tensors.values() if t.meaning and t.meaning.file_type is not None}
    if isinstance(claimed, int) and file_types and claimed not in file_types:
        problems.append(f"general.file_type is {claimed}, but the tensors are those of {sorted(file_types)}")
    return problems


# -- a checkpoint folder -----------------------------------------------------------------------------------------------


def _checkpoint(folder: CheckpointFolder, stats: bool) -> dict[str, Any]:
    """What a checkpoint folder holds, under the names of the checkpoint; `gguf_name` is what convert would write."""
    model, problems, damage = _recognised(folder)
    used = {}
    if model is not None:
        used = {t.name: (name, t) for name, t in model.tensors.items() if isinstance(t, CheckpointTensor)}
    rows = []
    for name, stored in folder.tensors.items():
        row: dict[str, Any] = {
            "name": name,
            "layout": stored.dtype.lower(),
            "shape": list(stored.shape),
            "file_name": stored.file,
            "nbytes": stored.data.nbytes,
        }
        if name in used:
            row["gguf_name"], tensor = used[name]
            if stats and tensor.may_be_ternary:
                try:
                    if (ternary := tensor.ternary()) is not None:
                        row |= figures_of(row["gguf_name"], ternary, model.spec if model else None)
                except TritpackError as error:
                    damage.append(error.without_path)
                tensor.release()
        rows.append(row)
    ternary_names = set(model.spec.linear_names()) if model else set()
    linears = [tensor for name, tensor in used.values() if name in ternary_names]
    ternary_weights = sum(math.prod(tensor.shape) for tensor in linears)
    ternary_bytes = sum(part.data.nbytes for tensor in linears for part in (tensor.stored, *tensor.parts.values()))
    return {
        "schema": SCHEMA,
        "kind": "checkpoint",
        "file": str(folder.folder),
        "nbytes": sum((folder.folder / name).stat().st_size for name in folder.weight_files),
        "weight_files": folder.weight_files,
        "model_type": folder.config.get("model_type"),
        "recognised": model.why if model else None,
        "architecture": model.spec.architecture if model else None,
        "layouts": dict(collections.Counter(row["layout"] for row in rows)),
        "ternary_weights": ternary_weights,
        "ternary_bits_per_weight": 8 * ternary_bytes / ternary_weights if ternary_weights else None,
        "model": dataclasses.asdict(model.spec) if model else None,
        "metadata": {key: _summary(value) for key, value in folder.config.items()},
        "damage": damage,
        "problems": [*damage, *problems],
        "tensors": rows,
    }


def _recognised(folder: CheckpointFolder) -> tuple[SourceModel | None, list[str], list[str]]:
    """The model in a checkpoint folder, or None; then why it cannot be converted, and what is damaged."""
    try:
        return from_checkpoint(folder, None, None), [], []
    except Unreadable as error:
        return None, [], [error.without_path]
    except TritpackError as error:
        return None, [f"cannot be converted: {error.without_path}"], []


def _summary(value: Any) -> Any:
    """A value of the metadata for people and JSON; a long array is its length and its first elements."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, list(value)[:6]))}}}"
    if isinstance(value, (np.ndarray, Sequence)) and not isinstance(value, str):
        first = [_summary(item.item() if isinstance(item, np.generic) else item) for item in value[:6]]
        return first if len(value) <= 6 else {"length": len(value), "first": first}
    return value

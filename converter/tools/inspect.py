"""`tritpack inspect`: container, dialect, tensors and statistics of a packed file.

It trusts the types and sizes of tensors, and never general.file_type.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.ternary import TernaryTensor, entropy_bits
from tritpack.runtime import packers

SCHEMA = "tritpack.inspect/1"


def inspect(file: str | Path, *, stats: bool = False) -> dict[str, Any]:
    """Return what `tritpack inspect --json` prints. Raises Unreadable if the file cannot be parsed.

    stats: also decode every ternary tensor (scale, shares, entropy, codes_sha256). A tensor that cannot be decoded is a
    problem in the result, and not an error.
    """
    if stats:
        packers.use_c_packers()
    gguf = GgufFile(file)
    spec = _spec(gguf)
    tensors, problems = _tensor_rows(gguf, spec, stats)
    weights = [t for t in gguf.tensors.values() if t.layout not in FLOAT_TYPES and len(t.shape) > 1]
    ternary_weights = sum(t.rows * t.cols for t in weights)
    return {
        "schema": SCHEMA,
        "file": str(file),
        "nbytes": gguf.size,
        "gguf_version": gguf.version,
        "architecture": gguf.metadata.get("general.architecture"),
        "name": gguf.metadata.get("general.name"),
        "layouts": dict(collections.Counter(tensor.layout for tensor in gguf.tensors.values())),
        "dialects": sorted({t.meaning.dialect for t in weights if t.meaning}),
        "parameters": sum(tensor.rows * tensor.cols for tensor in gguf.tensors.values()),
        "ternary_weights": ternary_weights,
        "ternary_bits_per_weight": 8 * sum(t.nbytes for t in weights) / ternary_weights if ternary_weights else None,
        "model": dataclasses.asdict(spec) if spec else None,
        "metadata": {key: _summary(value) for key, value in gguf.metadata.items()},
        "problems": [*problems, *_file_problems(gguf)],
        "tensors": tensors,
    }


def _tensor_rows(file: GgufFile, spec: ModelSpec | None, stats: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per tensor, and the problems of tensors."""
    rows, problems = [], []
    for tensor in file.tensors.values():
        row: dict[str, Any] = {
            "name": tensor.name,
            "layout": tensor.layout,
            "type_id": tensor.type_id,
            "shape": list(tensor.shape),
            "file_offset": tensor.file_offset,
            "nbytes": tensor.nbytes,
        }
        if tensor.meaning is None:
            problems.append(f"tensor {tensor.name!r} has the unknown type id {tensor.type_id}")
        if stats and file.layout_of(tensor):
            try:
                row |= _statistics(file, tensor, spec)
            except Unreadable as error:
                problems.append(error.without_path)
        rows.append(row)
    return rows, problems


def _statistics(file: GgufFile, tensor: TensorInfo, spec: ModelSpec | None) -> dict[str, Any]:
    ternary = file.ternary(tensor)
    assert ternary is not None
    counts = ternary.counts()
    shares = [count / ternary.codes.size for count in counts]
    return {
        **_scales(ternary, ""),
        "granularity": ternary.granularity,
        **dict(zip(("minus", "zero", "plus"), shares)),
        "counts": list(counts),
        "entropy_bits": entropy_bits(counts),
        "codes_sha256": ternary.codes_sha256(),
        **_as_in_transformers(tensor, ternary, spec),
    }


def _scales(ternary: TernaryTensor, suffix: str) -> dict[str, Any]:
    """`scale`, or `scales` as rows of blocks: each is the multiplier of its block of the matrix."""
    if ternary.scales.size == 1:
        return {f"scale{suffix}": float(ternary.scales.item())}
    return {f"scales{suffix}": ternary.scales.tolist()}


def _as_in_transformers(tensor: TensorInfo, ternary: TernaryTensor, spec: ModelSpec | None) -> dict[str, Any]:
    """The figures in the row order of a checkpoint, for tensors whose rows GGUF stores in another order."""
    order = spec.row_order(tensor.name) if spec else None
    if order is None or len(order) != tensor.rows:
        return {}
    back = ternary.with_rows(np.argsort(order))
    scales = {} if back.scales.size == 1 else _scales(back, "_hf")
    return {"codes_sha256_hf": back.codes_sha256(), **scales}


def _spec(file: GgufFile) -> ModelSpec | None:
    try:
        return model_metadata.from_gguf(file)
    except TritpackError:
        return None


def _file_problems(file: GgufFile) -> list[str]:
    """What in the metadata would make some engine produce nonsense from this file."""
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


def _summary(value: Any) -> Any:
    """A value of the metadata for people and JSON; a long array is its length and its first elements."""
    if isinstance(value, (np.ndarray, Sequence)) and not isinstance(value, str):
        first = [_summary(item.item() if isinstance(item, np.generic) else item) for item in value[:6]]
        return first if len(value) <= 6 else {"length": len(value), "first": first}
    return value

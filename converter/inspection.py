"""What a packed file really is: container, dialect, tensors, statistics. Trusts tensor types, never file_type."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from formats.errors import TritpackError, Unreadable
from formats.float_types import FLOAT_TYPES
from formats.gguf_file import GgufFile, TensorInfo
from formats.model_spec import ModelSpec
from formats.ternary import entropy_bits

SCHEMA = "tritpack.inspect/1"


def inspect(path: str | Path, *, stats: bool = False) -> dict[str, Any]:
    """Everything `tritpack inspect --json` prints. Raises Unreadable if the file cannot be parsed.

    stats: also decode every ternary tensor (scale, shares, entropy, codes_sha256); what cannot be decoded is a problem.
    """
    file = GgufFile(path)
    problems: list[str] = []
    tensors = []
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
        if stats and tensor.meaning and tensor.meaning.layout:
            try:
                row |= _statistics(file, tensor)
            except Unreadable as error:
                problems.append(f"tensor {tensor.name!r}: {error.message}")
        tensors.append(row)
    weights = [t for t in file.tensors.values() if t.layout not in FLOAT_TYPES]
    ternary_weights = sum(t.rows * t.cols for t in weights)
    problems += _file_problems(file)
    return {
        "schema": SCHEMA,
        "file": str(path),
        "nbytes": file.size,
        "gguf_version": file.version,
        "architecture": file.metadata.get("general.architecture"),
        "name": file.metadata.get("general.name"),
        "layouts": dict(collections.Counter(tensor.layout for tensor in file.tensors.values())),
        "dialects": sorted({t.meaning.dialect for t in weights if t.meaning}),
        "parameters": sum(tensor.rows * tensor.cols for tensor in file.tensors.values()),
        "ternary_weights": ternary_weights,
        "ternary_bits_per_weight": 8 * sum(t.nbytes for t in weights) / ternary_weights if ternary_weights else None,
        "model": _model(file),
        "metadata": {key: _summary(value) for key, value in file.metadata.items()},
        "problems": problems,
        "tensors": tensors,
    }


def _statistics(file: GgufFile, tensor: TensorInfo) -> dict[str, Any]:
    assert tensor.meaning is not None and tensor.meaning.layout is not None
    ternary = tensor.meaning.layout.unpack(file.bytes_of(tensor), tensor.rows, tensor.cols)
    counts = ternary.counts()
    shares = [count / ternary.codes.size for count in counts]
    scales: dict[str, Any] = (
        {"scale": float(ternary.scales.item())} if ternary.scales.size == 1 else {"scales": ternary.scales.tolist()}
    )
    return {
        **scales,
        "granularity": ternary.granularity,
        **dict(zip(("minus", "zero", "plus"), shares)),
        "counts": list(counts),
        "entropy_bits": entropy_bits(counts),
        "codes_sha256": ternary.codes_sha256(),
    }


def _model(file: GgufFile) -> dict[str, Any] | None:
    try:
        spec = ModelSpec.from_metadata(file.metadata, file.tensors)
    except TritpackError:
        return None
    return dict(vars(spec))


def _file_problems(file: GgufFile) -> list[str]:
    """What would make this file talk nonsense in some engine, as far as the metadata tells."""
    problems = []
    arch = file.metadata.get("general.architecture", "")
    try:
        ModelSpec.from_metadata(file.metadata, file.tensors)
    except TritpackError as error:
        problems.append(error.message)
    if str(arch).startswith("bitnet") and f"{arch}.hidden_activation" not in file.metadata:
        problems.append(f"{arch}.hidden_activation is missing: readers must guess the activation function")
    if "tokenizer.ggml.model" in file.metadata:
        if file.metadata.get("tokenizer.ggml.model") == "gpt2" and "tokenizer.ggml.pre" not in file.metadata:
            problems.append("tokenizer.ggml.pre is missing: readers fall back to a wrong pre-tokenizer")
        if "tokenizer.ggml.eos_token_id" not in file.metadata:
            problems.append("tokenizer.ggml.eos_token_id is missing: generation may never stop")
    else:
        problems.append("there is no tokenizer in the file")
    claimed = file.metadata.get("general.file_type")
    held = {t.meaning.file_type for t in file.tensors.values() if t.meaning and t.meaning.file_type is not None}
    if isinstance(claimed, int) and held and claimed not in held:
        problems.append(f"general.file_type is {claimed}, the tensors are those of {sorted(held)}")
    return problems


def _summary(value: Any) -> Any:
    """Metadata for people and JSON: long arrays by their length and first elements."""
    if isinstance(value, (np.ndarray, Sequence)) and not isinstance(value, str):
        first = [_summary(item.item() if isinstance(item, np.generic) else item) for item in value[:6]]
        return first if len(value) <= 6 else {"length": len(value), "first": first}
    return value

"""Whether the first values of a model that no family claims are ternary: its name alone does not say so."""

from __future__ import annotations

import numpy as np

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.formats import float_types
from tritpack.formats.arrays import F32
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import HYBRID
from tritpack.formats.names import PLAIN_FLOATS
from tritpack.formats.safetensors_reader import FLOATS

ROWS = 8
"""Rows that are read."""
GROUPS = (128, 64, 32, 16)
"""Weights per scale that are tried, where they divide a row."""


def checkpoint_is_ternary(source: CheckpointFolder) -> bool | None:
    """Return whether the first rows of the first layer's feed-forward gate are ternary; None if it is not there, or
    stored as neither floats nor MLX's 2-bit codes, or of an impossible shape.

    The latter count as ternary if each bias is minus its scale, so that the codes mean -1, 0, 1 (and 2, which a reader
    refuses).
    """
    end = "layers.0.mlp.gate_proj.weight"
    tensor = next((tensor for name, tensor in source.tensors.items() if name.endswith(end)), None)
    if tensor is None or len(tensor.shape) != 2 or 0 in tensor.shape:
        return None
    rows = min(ROWS, tensor.rows)
    if tensor.dtype in FLOATS:
        return is_ternary(tensor.rows_f32(0, rows))
    stem = tensor.name.removesuffix("weight")
    scales, biases = (source.tensors.get(stem + part) for part in ("scales", "biases"))
    if tensor.dtype != "U32" or scales is None or biases is None or {scales.dtype, biases.dtype} - set(FLOATS):
        return None
    if scales.shape != biases.shape or len(scales.shape) != 2 or scales.rows < rows:
        return None
    return np.array_equal(scales.rows_f32(0, rows), -biases.rows_f32(0, rows))


def gguf_is_ternary(file: GgufFile) -> bool | None:
    """Return whether the first layer's feed-forward gate is stored in a ternary layout, or its first rows as floats
    that are ternary; None if it is not there, or stored as something else."""
    info = file.tensors.get("blk.0.ffn_gate.weight")
    if info is None or 0 in info.shape:
        return None
    if file.layout_of(info) is not None:
        return True
    if info.layout not in float_types.FLOAT_TYPES:
        return None
    rows, width = min(ROWS, info.rows), info.nbytes // info.rows
    return is_ternary(float_types.decode(info.layout, file.bytes_of(info)[: rows * width], rows, info.cols))


def is_float_master(file: GgufFile) -> bool:
    """Return whether a file holds its ternary matrices as plain floats, as the vendor's folded master does."""
    info = file.tensors.get("blk.0.ffn_gate.weight")
    architecture = file.metadata.get("general.architecture")
    is_hybrid = isinstance(architecture, str) and architecture == HYBRID
    return is_hybrid and info is not None and info.layout in PLAIN_FLOATS and gguf_is_ternary(file) is True


def is_ternary(values: F32) -> bool:
    """Return whether all non-zeros of each group of neighbours in a row have one magnitude. values: (rows, cols)."""
    cols = values.shape[1]
    group = next((size for size in GROUPS if cols % size == 0), cols)
    pieces = np.abs(values).reshape(len(values), -1, group)
    return bool(((pieces == 0) | (pieces == pieces.max(-1, keepdims=True))).all())

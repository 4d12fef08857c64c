"""A HybridSpec from the keys and tensors of a GGUF file."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hadamard import rotation_of_file
from tritpack.formats.hybrid_spec import HybridSpec
from tritpack.formats.model_spec import shortest_float

ARCHITECTURE = "qwen35"


def hybrid_from_gguf(file: GgufFile) -> HybridSpec:
    """Return the spec of a GGUF file of this architecture, whose tensors are checked against it.

    Layers for predicting further tokens (`nextn_predict_layers`) are not counted and not run. Raises Unsupported for
    another architecture or contract of rotation, Unreadable for keys or tensors that are missing or impossible.
    """
    if (architecture := file.metadata.get("general.architecture")) != ARCHITECTURE:
        raise Unsupported(f"architecture {architecture!r} is not {ARCHITECTURE}, the Qwen3.5 hybrid", path=file.path)
    integer = functools.partial(_integer, file)
    layers = integer("block_count") - integer("nextn_predict_layers", 0)
    if not 0 < layers <= len(file.tensors):
        raise Unreadable(f"{layers} layers cannot be in {len(file.tensors)} tensors", path=file.path)
    if integer("attention.key_length") != integer("attention.value_length"):
        raise Unsupported("attention.key_length and value_length differ, which no graph here has", path=file.path)
    if integer("ssm.inner_size") != integer("ssm.time_step_rank") * integer("ssm.state_size"):
        raise Unsupported("ssm.inner_size is not time_step_rank times state_size", path=file.path)
    spec = HybridSpec(
        vocab_size=file.tensors["token_embd.weight"].rows if "token_embd.weight" in file.tensors else 0,
        hidden_size=integer("embedding_length"),
        intermediate_size=integer("feed_forward_length"),
        layers=layers,
        heads=integer("attention.head_count"),
        kv_heads=integer("attention.head_count_kv"),
        head_dim=integer("attention.key_length"),
        rotary_dim=integer("rope.dimension_count"),
        key_heads=integer("ssm.group_count"),
        value_heads=integer("ssm.time_step_rank"),
        state_size=integer("ssm.state_size"),
        conv_taps=integer("ssm.conv_kernel"),
        recurrent=_recurrent(file, integer("full_attention_interval", 4), layers),
        rope_theta=_number(file, "rope.freq_base"),
        norm_eps=_number(file, "attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in file.tensors,
        rotation=rotation_of_file(file),
    )
    _check_tensors(file, spec)
    return spec


def _check_tensors(file: GgufFile, spec: HybridSpec) -> None:
    """Raise Unreadable for a tensor that is missing or has another shape."""
    for name, shape in spec.tensor_shapes().items():
        if name not in file.tensors:
            raise Unreadable("is missing", path=file.path, tensor=name)
        if file.tensors[name].shape != shape:
            found = list(file.tensors[name].shape)
            raise Unreadable(f"has shape {found}, expected {list(shape)}", path=file.path, tensor=name)


def _integer(file: GgufFile, key: str, default: int | None = None) -> int:
    value = file.metadata.get(f"{ARCHITECTURE}.{key}", default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Unreadable(f"metadata key {ARCHITECTURE}.{key} is {value!r}, expected an integer", path=file.path)
    return value


def _number(file: GgufFile, key: str) -> float:
    value = file.metadata.get(f"{ARCHITECTURE}.{key}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Unreadable(f"metadata key {ARCHITECTURE}.{key} is {value!r}, expected a number", path=file.path)
    return shortest_float(value)


def _recurrent(file: GgufFile, interval: int, layers: int) -> tuple[bool, ...]:
    """Return for each layer whether it is a recurrence: as a list says, else all but every `interval`-th."""
    listed: Any = file.metadata.get(f"{ARCHITECTURE}.attention.recurrent_layers")
    if listed is None:
        return tuple(interval == 0 or (layer + 1) % interval != 0 for layer in range(layers))
    flags = np.zeros(()) if isinstance(listed, (str, int, float)) else np.asarray(listed)
    if flags.ndim != 1 or len(flags) < layers or flags.dtype.kind not in "biu":
        message = f"metadata key {ARCHITECTURE}.attention.recurrent_layers is not one flag per layer"
        raise Unreadable(message, path=file.path)
    return tuple(bool(flag) for flag in flags[:layers])

"""The keys of a GGUF file that only a Qwen3.5 hybrid (`qwen35`) has, to and from the fields of a ModelSpec."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tritpack.formats.delta_net import GATES, DeltaNet, at_intervals
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile

if TYPE_CHECKING:
    from tritpack.formats.model_spec import ModelSpec

INTERVAL = 4
"""Every so many-th layer attends where no key says which."""


def layer_count(file: GgufFile) -> int:
    """Return how many layers a file has without those that predict further tokens, which are not run.

    Raises Unreadable if one of these is there and holds nothing for that: it is a layer of the model.
    """
    further = _integer(file, "nextn_predict_layers", 0)
    layers = _integer(file, "block_count") - further
    for layer in range(layers, layers + min(further, len(file.tensors))):
        names = [name for name in file.tensors if name.startswith(f"blk.{layer}.")]
        if names and not any(name.startswith(f"blk.{layer}.nextn.") for name in names):
            key = f"{file.metadata.get('general.architecture')}.nextn_predict_layers"
            what = f"says that layer {layer} predicts further tokens, and no tensor blk.{layer}.nextn.* is there"
            raise Unreadable(f"metadata key {key} {what}")
    return layers


def from_keys(file: GgufFile, layers: int) -> dict[str, Any]:
    """Return the fields of a ModelSpec that only a hybrid has. layers: see layer_count.

    Raises Unsupported for what no graph here has or another contract of rotation, Unreadable for keys that are missing
    or impossible.
    """
    integer = functools.partial(_integer, file)
    if integer("attention.key_length") != integer("attention.value_length"):
        raise Unsupported("attention.key_length and value_length differ, which no graph here has")
    if integer("ssm.inner_size") != integer("ssm.time_step_rank") * integer("ssm.state_size"):
        raise Unsupported("ssm.inner_size is not time_step_rank times state_size")
    recurrent = _recurrent(file, integer("full_attention_interval", INTERVAL), layers)
    net = DeltaNet(
        key_heads=integer("ssm.group_count"),
        value_heads=integer("ssm.time_step_rank"),
        state_size=integer("ssm.state_size"),
        conv_taps=integer("ssm.conv_kernel"),
        recurrent=recurrent,
        ternary_gates=_has_ternary_gates(file, recurrent),
    )
    return {
        "head_dim": integer("attention.key_length"),
        "rotary_dim": integer("rope.dimension_count"),
        "rope_sections": _sections(file),
        "delta_net": net,
        "sub_norms": False,
        "qk_norms": True,
    }


def to_keys(spec: ModelSpec) -> dict[str, Any]:
    """Return the keys of a hybrid without its architecture's name, as llama.cpp's converter writes them, except for
    those of its rotation."""
    net = spec.delta_net
    if net is None:
        return {}
    pairs: dict[str, Any] = {
        "rope.dimension_count": spec.rope_width,
        "ssm.conv_kernel": net.conv_taps,
        "ssm.state_size": net.state_size,
        "ssm.group_count": net.key_heads,
        "ssm.time_step_rank": net.value_heads,
        "ssm.inner_size": net.value_width,
    }
    if spec.rope_sections:
        pairs["rope.dimension_sections"] = np.array(spec.rope_sections, np.int32)
    if net.interval is not None:
        pairs["full_attention_interval"] = net.interval
    else:
        pairs["attention.recurrent_layers"] = np.array(net.recurrent, np.bool_)
    return pairs


def _integer(file: GgufFile, key: str, default: int | None = None) -> int:
    key = f"{file.metadata.get('general.architecture')}.{key}"
    value = file.metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Unreadable(f"metadata key {key} is {value!r}, expected an integer")
    return value


def _recurrent(file: GgufFile, interval: int, layers: int) -> tuple[bool, ...]:
    """Return for each layer whether it is a recurrence: as a list says, else all but every `interval`-th."""
    flags = _numbers(file, "attention.recurrent_layers")
    if flags is None:
        return at_intervals(interval, layers)
    if len(flags) < layers:
        raise Unreadable(f"metadata key attention.recurrent_layers has {len(flags)} flags for {layers} layers")
    return tuple(bool(flag) for flag in flags[:layers])


def _sections(file: GgufFile) -> tuple[int, ...]:
    sections = _numbers(file, "rope.dimension_sections")
    return () if sections is None else tuple(int(section) for section in sections)


def _numbers(file: GgufFile, key: str) -> Sequence[Any] | None:
    """Return the whole numbers or flags of a key; None if it is not there."""
    key = f"{file.metadata.get('general.architecture')}.{key}"
    if (listed := file.metadata.get(key)) is None:
        return None
    numbers = np.zeros(()) if isinstance(listed, (str, int, float)) else np.asarray(listed)
    if numbers.ndim != 1 or numbers.dtype.kind not in "biu":
        raise Unreadable(f"metadata key {key} is not a list of whole numbers or flags")
    return list(numbers)


def _has_ternary_gates(file: GgufFile, recurrent: tuple[bool, ...]) -> bool:
    """Return whether the first layer that recurs has its gates in a ternary layout."""
    first = recurrent.index(True) if True in recurrent else 0
    gates = [file.tensors.get(f"blk.{first}.{gate}.weight") for gate in GATES]
    return all(info is not None and file.layout_of(info) is not None for info in gates)

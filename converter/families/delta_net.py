"""The keys of config.json that only a Qwen3.5 hybrid has, as transformers' Qwen3_5TextConfig reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritpack.converter.families.keys import Keys, as_size
from tritpack.formats.delta_net import DeltaNet, at_intervals
from tritpack.formats.errors import Unreadable, Unsupported

KINDS = {"linear_attention": True, "full_attention": False}
"""Kinds of layers -> whether they recur."""
SECTIONS = (11, 11, 10)
"""Pairs by time, height and width where no key says so."""
INTERVAL = 4
"""Every so many-th layer attends where no key says which."""


def hybrid_fields(keys: Keys, layers: int, head_dim: int) -> dict[str, Any]:
    """Return the fields of a ModelSpec that only a hybrid has. Raises Unreadable, Unsupported for another graph."""
    if keys.get("attn_output_gate") is False:
        raise Unsupported("config.json: attn_output_gate is false, and attention of a hybrid has a gate here")
    size = keys.size("linear_key_head_dim")
    if keys.size("linear_value_head_dim") != size:
        raise Unsupported("config.json: linear_key_head_dim and linear_value_head_dim differ, which no graph here has")
    rotary_dim = _rotary_dim(keys, head_dim)
    return {
        "rotary_dim": rotary_dim,
        "rope_sections": _sections(keys, rotary_dim // 2),
        "delta_net": DeltaNet(
            key_heads=keys.size("linear_num_key_heads"),
            value_heads=keys.size("linear_num_value_heads"),
            state_size=size,
            conv_taps=keys.size("linear_conv_kernel_dim"),
            recurrent=_recurrent(keys, layers),
        ),
    }


def _rotary_dim(keys: Keys, head_dim: int) -> int:
    """Return how many values of a head RoPE turns."""
    factor = _rope(keys).get("partial_rotary_factor")
    factor = keys.need("partial_rotary_factor") if factor is None else factor
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor <= 1:
        raise Unreadable(f"config.json: partial_rotary_factor is {str(factor)[:40]}, expected a number up to 1")
    return int(head_dim * factor)


def _rope(keys: Keys) -> Mapping[str, Any]:
    """Return the object of rotary parameters, by its older name or the newer."""
    return keys.mapping("rope_scaling") or keys.mapping("rope_parameters")


def _sections(keys: Keys, pairs: int) -> tuple[int, ...]:
    """Return the pairs that turn by time, height and width, and a fourth number that llama.cpp asks for."""
    sections = _rope(keys).get("mrope_section")
    if sections is None:  # what the class then takes, where it says something of so many pairs
        return (*SECTIONS, 0) if sum(SECTIONS) == pairs else ()
    if not isinstance(sections, list) or not 0 < len(sections) <= 4:
        raise Unreadable(f"config.json: mrope_section is {str(sections)[:40]}, expected a list of sizes")
    sizes = [0 if value == 0 else as_size("mrope_section", value) for value in sections]
    return (*sizes, *(0,) * (4 - len(sizes)))


def _recurrent(keys: Keys, layers: int) -> tuple[bool, ...]:
    """Return which layers recur."""
    kinds = keys.get("layer_types")
    if kinds is None:
        interval = INTERVAL if keys.get("full_attention_interval") is None else keys.size("full_attention_interval")
        return at_intervals(interval, layers)
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise Unreadable(f"config.json: layer_types does not name the kind of each of {layers} layers")
    if other := [kind for kind in kinds if kind not in KINDS]:
        raise Unsupported(f"config.json: layer_types has {str(other[0])[:40]!r}, expected {' or '.join(KINDS)}")
    return tuple(KINDS[kind] for kind in kinds)

"""The rotary embedding that a config.json describes: `rope_parameters` (transformers 5), where Gemma keeps one object
for each kind of layer, or `rope_theta`, `rope_scaling` and `rope_local_base_freq` (4.x)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tritpack.converter.families.keys import Keys, as_number, as_size
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.rope import (
    RopeScaling,
    float32_tuple,
    llama3_factors,
    longrope_attention_factor,
    yarn_attention_factor,
)


@dataclasses.dataclass(frozen=True)
class Rotary:
    """The rotary parameters of a model.

    theta, scaling: of layers that see everything. local_theta: of layers with a sliding window. context_length: the
    number of positions.
    """

    theta: float
    scaling: RopeScaling | None
    local_theta: float | None
    context_length: int


def rotary(keys: Keys, head_dim: int, *, by_layer_kind: bool, may_be_partial: bool = False) -> Rotary:
    """Read the rotary embedding.

    by_layer_kind: the class has separate parameters for layers with a sliding window. may_be_partial: a part of each
    head may be turned, which delta_net.py reads. Raises Unreadable, Unsupported.
    """
    full, local = _parameters(keys, by_layer_kind)
    parameters = _Parameters(keys, full)
    base = full.get("rope_theta")
    theta = as_number("rope_theta", keys.rotary_base("rope_theta") if base is None else base)
    base = local.get("rope_theta")
    if base is None:
        base = keys.rotary_base("rope_local_base_freq")
    if local.get("rope_type", "default") != "default":
        raise Unsupported(f"rope scaling of type {local['rope_type']!r} in sliding layers is not supported")
    for partial in (full.get("partial_rotary_factor"), keys.get("partial_rotary_factor")):
        if partial is not None and partial != 1 and not may_be_partial:
            raise Unsupported("config.json: partial_rotary_factor is not 1; partial rotary embedding is not supported")
    scaling, context = _scaling(parameters, theta, head_dim)
    return Rotary(theta, scaling, None if base is None else as_number("rope_local_base_freq", base), context)


def _parameters(keys: Keys, by_layer_kind: bool) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the objects for layers that see everything and for those with a window. As in transformers, rope_scaling
    counts where both keys are there."""
    old, new = keys.mapping("rope_scaling"), keys.mapping("rope_parameters")
    objects = {
        key for key, value in [*old.items(), *(() if by_layer_kind else new.items())] if isinstance(value, Mapping)
    }
    if any(key.endswith("_attention") for key in objects):
        raise Unsupported("config.json: rotary parameters by kind of layer are not supported in this architecture")
    if not by_layer_kind:
        return old or new, {}
    if new and (old or "full_attention" not in new):
        raise Unsupported(
            "config.json: expected rope_parameters with full_attention and sliding_attention, and no rope_scaling"
        )
    kinds = [new.get(kind) or {} for kind in ("full_attention", "sliding_attention")] if new else [old, {}]
    if not all(isinstance(kind, Mapping) for kind in kinds):
        raise Unreadable("config.json: rope_parameters holds no object for a kind of layer")
    return kinds[0], kinds[1]


class _Parameters:
    """The numbers of one kind of layer."""

    def __init__(self, keys: Keys, values: Mapping[str, Any]) -> None:
        self.values = values
        self.context_length = keys.size("max_position_embeddings")
        # transformers 5 takes the top-level key first.
        original = keys.get("original_max_position_embeddings")
        self._original = values.get("original_max_position_embeddings") if original is None else original

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        return default if value is None and default is not None else as_number(f"rope {key}", value)

    def original_context(self) -> int:
        value = self.context_length if self._original is None else self._original
        return max(2, as_size("original_max_position_embeddings", value))

    def growth(self) -> float:
        """Return by which factor the context was extended."""
        if self.values.get("factor") is not None:
            return self.number("factor")
        return self.context_length / self.original_context()


def _scaling(rope: _Parameters, theta: float, head_dim: int) -> tuple[RopeScaling | None, int]:
    kind = rope.values.get("rope_type") or rope.values.get("type") or "default"
    if kind == "default":
        return None, rope.context_length
    if kind == "linear":
        factor = rope.number("factor")
        return (None if factor == 1.0 else RopeScaling("linear", factor)), rope.context_length
    if kind == "llama3":
        factors = llama3_factors(
            theta,
            head_dim,
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_context=rope.original_context(),
        )
        return RopeScaling("factors", frequency_factors=factors), rope.context_length
    if kind == "yarn":
        return _yarn(rope), rope.context_length
    if kind in ("longrope", "su"):
        return _longrope(rope)
    raise Unsupported(
        f"rope scaling of type {kind!r} is not supported", hint="supported: linear, llama3, yarn, longrope"
    )


def _yarn(rope: _Parameters) -> RopeScaling:
    if rope.values.get("truncate") is False:
        raise Unsupported("rope scaling yarn without truncate is not supported")
    factor = rope.growth()
    attention = yarn_attention_factor(factor)
    if rope.values.get("mscale") and rope.values.get("mscale_all_dim"):
        both = (yarn_attention_factor(factor, rope.number(key)) for key in ("mscale", "mscale_all_dim"))
        attention = next(both) / next(both)
    return RopeScaling(
        "yarn",
        factor,
        rope.original_context(),
        rope.number("beta_fast", 32.0),
        rope.number("beta_slow", 1.0),
        as_number("rope attention_factor", rope.number("attention_factor", attention)),
    )


def _longrope(rope: _Parameters) -> tuple[RopeScaling, int]:
    """Return the scaling and the context length.

    Short and long contexts have different factors, and a cache cannot be turned from one to the other. So the short
    ones are taken, and the context ends where the long ones would begin.
    """
    factors = {}
    for key in ("short_factor", "long_factor"):
        values = rope.values.get(key)
        if not isinstance(values, list):
            raise Unreadable(f"config.json: rope {key} is not a list of numbers")
        factors[key] = float32_tuple([as_number(f"rope {key}", value) for value in values])
    original = rope.original_context()
    attention = rope.number("attention_factor", longrope_attention_factor(rope.growth(), original))
    same = factors["short_factor"] == factors["long_factor"]
    context = rope.context_length if same else min(rope.context_length, original)
    return (
        RopeScaling(
            "factors",
            attention_factor=as_number("rope attention_factor", attention),
            frequency_factors=factors["short_factor"],
        ),
        context,
    )

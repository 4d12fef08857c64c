"""config.json -> ModelSpec, as the classes of transformers 4 and 5 (and MiniCPM's own) read it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from converter.families import Family
from formats.errors import Unreadable, Unsupported
from formats.model_spec import OPTIONAL_NORMS, ModelSpec, shortest_float
from formats.rope import (
    RopeScaling,
    float32_tuple,
    llama3_factors,
    longrope_attention_factor,
    yarn_attention_factor,
)

UNSUPPORTED_SWITCHES = (
    "attention_bias", "mlp_bias", "qkv_bias", "use_bias", "use_bidirectional_attention", "attn_logit_softcapping",
    "final_logit_softcapping", "use_parallel_residual", "parallel_attn", "use_sliding_window", "sparse_config",
)  # fmt: skip
"""Keys of config.json that change the graph in ways we do not run, when they are set."""


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the text model: those of `text_config` inside a bigger model's config, over the rest."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, Mapping) else dict(config)


def model_spec(
    config: Mapping[str, Any],
    family: Family,
    names: Mapping[str, str],
    tensor_names: Collection[str],
    *,
    int8: bool,
    projection_norm_eps: float | None,
    pooling: Mapping[str, Any] | None,
) -> ModelSpec:
    """The spec of a recognised checkpoint. names: GGUF name in a layer -> checkpoint name (which norms there are).

    Raises Unreadable for keys that are missing or impossible, Unsupported for what the graph does not have."""
    keys = _Keys(config, family.config_defaults)
    for switch in UNSUPPORTED_SWITCHES:
        # Falcon3's configs carry parallel_attn though their class, Llama, has no such thing.
        if config.get(switch) and not (switch == "parallel_attn" and family.name == "llama"):
            raise Unsupported(f"config.json: {switch} is {config[switch]!r}, which no graph here runs")
    heads, hidden, layers = keys.need("num_attention_heads"), keys.need("hidden_size"), keys.need("num_hidden_layers")
    head_dim = keys.get("head_dim")
    if head_dim is None:
        if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1 or hidden % heads:
            raise Unreadable(f"config.json: hidden_size {hidden!r} is not a multiple of num_attention_heads {heads!r}")
        head_dim = hidden // heads
    if isinstance(layers, int) and layers > len(tensor_names):  # before anything is made for each of them
        raise Unreadable(f"config.json: num_hidden_layers is {layers}, but there are {len(tensor_names)} tensors")
    rope = _rope(keys, head_dim)
    sliding = _sliding_layers(keys, family, layers)
    scalings: dict[str, Any] = {f: shortest_float(keys.formula(text)) for f, text in family.formulas.items()}
    pooled = _pooling(family, pooling)
    switches: dict[str, Any] = {switch: f"{group[0]}.weight" in names for switch, group in OPTIONAL_NORMS.items()}
    return ModelSpec(
        architecture=family.architecture,
        vocab_size=keys.need("vocab_size"),
        hidden_size=hidden,
        intermediate_size=keys.need("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=keys.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        context_length=rope.context_length,
        rope_theta=rope.theta,
        norm_eps=keys.number("rms_norm_eps"),
        activation=keys.get("hidden_activation") or keys.need("hidden_act"),
        tied=bool(keys.get("tie_word_embeddings")) or pooled != "none",
        **switches,
        projection_norm_eps=shortest_float(projection_norm_eps or 1e-6),
        int8_activations=int8,
        **scalings,
        rope_scaling=rope.scaling,
        local_rope_theta=rope.local_theta if sliding else None,
        sliding_window=keys.need("sliding_window") if sliding else 0,
        sliding_layers=sliding,
        pooling=pooled,
    )


class _Keys:
    """config.json behind the family's defaults; a null counts as missing."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._config, self._defaults = config, defaults

    def get(self, key: str) -> Any:
        value = self._config.get(key)
        return self._defaults.get(key) if value is None else value

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise Unreadable(f"config.json has no {key!r}")
        return value

    def number(self, key: str) -> float:
        return _number(key, self.need(key))

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.get(key) or {}
        if not isinstance(value, Mapping):
            raise Unreadable(f"config.json: {key} is {value!r}, expected an object")
        return value

    def formula(self, text: str) -> float:
        """Arithmetic over the keys: `scale_depth / num_hidden_layers ** 0.5`."""

        def value(node: ast.expr) -> float:
            if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
                return float(node.value)
            if isinstance(node, ast.Name):
                return _number(node.id, self.need(node.id))
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
                return -value(node.operand)
            if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
                return float(_OPERATORS[type(node.op)](value(node.left), value(node.right)))
            raise ValueError(f"no formula: {text}")

        try:
            return value(ast.parse(text, mode="eval").body)
        except (ZeroDivisionError, OverflowError) as error:
            raise Unreadable(f"config.json: {text} has no value: {error}") from error


_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise Unreadable(f"config.json: {key} is {value!r}, expected a positive number")
    return shortest_float(value)


class _Rope:
    """theta, scaling and context of the rotary embedding: `rope_parameters` (transformers 5), where Gemma keeps one
    object a kind of layer, or `rope_theta` and `rope_scaling` (4.x)."""

    def __init__(self, keys: _Keys) -> None:
        given = {**keys.mapping("rope_scaling"), **keys.mapping("rope_parameters")}
        local = given.get("sliding_attention") or {}
        full = given.get("full_attention", given)
        if not isinstance(full, Mapping) or not isinstance(local, Mapping):
            raise Unreadable("config.json: rope_parameters makes no sense")
        self.parameters: Mapping[str, Any] = full
        self.theta = self.number("rope_theta") if full.get("rope_theta") is not None else keys.number("rope_theta")
        base = local.get("rope_theta", keys.get("rope_local_base_freq"))
        self.local_theta = None if base is None else _number("rope_local_base_freq", base)
        self.context_length = keys.need("max_position_embeddings")
        self.scaling: RopeScaling | None = None
        if local.get("rope_type", "default") != "default":
            raise Unsupported(f"rope scaling of type {local['rope_type']!r} in sliding layers is not supported")
        if full.get("partial_rotary_factor", keys.get("partial_rotary_factor") or 1.0) != 1.0:
            raise Unsupported("config.json: partial_rotary_factor is not 1; heads that turn in part are not supported")

    def number(self, key: str, default: float | None = None) -> float:
        value = self.parameters.get(key)
        if value is None and default is not None:
            return default
        return _number(f"rope {key}", value)

    def original_context(self) -> int:
        value = self.parameters.get("original_max_position_embeddings", self.context_length)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise Unreadable(f"config.json: original_max_position_embeddings is {value!r}, expected a positive integer")
        return value


def _rope(keys: _Keys, head_dim: Any) -> _Rope:
    rope = _Rope(keys)
    kind = rope.parameters.get("rope_type", rope.parameters.get("type", "default"))
    if kind in (None, "default"):
        return rope
    if not isinstance(head_dim, int) or not 2 <= head_dim < 1 << 16:
        raise Unreadable(f"config.json: head_dim is {head_dim!r}, expected a positive even integer")
    if kind == "linear":
        factor = rope.number("factor")
        rope.scaling = None if factor == 1.0 else RopeScaling("linear", factor)
    elif kind == "llama3":
        factors = llama3_factors(
            rope.theta,
            head_dim,
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_context=rope.original_context(),
        )
        rope.scaling = RopeScaling("factors", frequency_factors=factors)
    elif kind == "yarn":
        rope.scaling = _yarn(rope)
    elif kind in ("longrope", "su"):
        rope.scaling = _longrope(rope, head_dim)
    else:
        raise Unsupported(
            f"rope scaling of type {kind!r} is not supported", hint="supported: linear, llama3, yarn, longrope"
        )
    return rope


def _yarn(rope: _Rope) -> RopeScaling:
    if rope.parameters.get("mscale_all_dim") or rope.parameters.get("truncate") is False:
        raise Unsupported("rope scaling yarn with mscale_all_dim, or without truncate, is not supported")
    original = rope.original_context()
    factor = rope.number("factor", rope.context_length / original)
    return RopeScaling(
        "yarn",
        factor,
        original,
        rope.number("beta_fast", 32.0),
        rope.number("beta_slow", 1.0),
        shortest_float(rope.number("attention_factor", yarn_attention_factor(factor))),
    )


def _longrope(rope: _Rope, head_dim: int) -> RopeScaling:
    """Short and long contexts have factors of their own. We take the short ones; where the long ones differ, the
    context ends where the short ones do, since a cache cannot turn from one to the other."""
    short, long = rope.parameters.get("short_factor"), rope.parameters.get("long_factor")
    for key, value in (("short_factor", short), ("long_factor", long)):
        if not isinstance(value, list) or not all(isinstance(each, (int, float)) for each in value):
            raise Unreadable(f"config.json: rope {key} is no list of numbers")
    original = rope.original_context()
    factor = rope.number("factor", rope.context_length / original)
    attention = rope.number("attention_factor", longrope_attention_factor(factor, original))
    if short != long:
        rope.context_length = min(rope.context_length, original)
    return RopeScaling(
        "factors", attention_factor=shortest_float(attention), frequency_factors=float32_tuple(short or [])
    )


def _sliding_layers(keys: _Keys, family: Family, layers: Any) -> tuple[bool, ...]:
    if not family.sliding_pattern or not isinstance(layers, int) or keys.get("sliding_window") is None:
        return ()
    types = keys.get("layer_types")
    if types is None:
        pattern = keys.get("sliding_window_pattern") or keys.get("_sliding_window_pattern") or family.sliding_pattern
        if not isinstance(pattern, int) or pattern < 1:
            raise Unreadable(f"config.json: sliding_window_pattern is {pattern!r}, expected a positive integer")
        return _slide([(layer + 1) % pattern != 0 for layer in range(layers)])
    if not isinstance(types, list) or len(types) != layers or set(types) - {"sliding_attention", "full_attention"}:
        raise Unreadable(f"config.json: layer_types does not say sliding or full attention for each of {layers} layers")
    return _slide([kind == "sliding_attention" for kind in types])


def _slide(layers: list[bool]) -> tuple[bool, ...]:
    return tuple(layers) if any(layers) else ()


def _pooling(family: Family, given: Mapping[str, Any] | None) -> str:
    """As sentence-transformers' N_Pooling/config.json says; without one, what the family is made for."""
    if not given:
        return family.embedding.get("pooling", "none")
    modes = [key.removeprefix("pooling_mode_") for key, on in given.items() if key.startswith("pooling_mode_") and on]
    modes += [given["pooling_mode"]] if "pooling_mode" in given else []
    names = {"lasttoken": "last", "mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
    if len(modes) != 1 or modes[0] not in names:
        raise Unsupported(
            f"pooling by {' and '.join(map(str, modes)) or 'nothing'} is not supported (config of the pooling module)"
        )
    return names[modes[0]]

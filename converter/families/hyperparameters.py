"""config.json -> ModelSpec, as the classes of transformers 4 and 5 (and MiniCPM's own) read it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tritpack.converter.families.delta_net import hybrid_fields
from tritpack.converter.families.family import Family
from tritpack.converter.families.keys import Keys
from tritpack.converter.families.rotary import rotary
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.model_spec import OPTIONAL_NORMS, ModelSpec, shortest_float

UNSUPPORTED_SWITCHES = (
    "attention_bias", "mlp_bias", "qkv_bias", "use_bias", "use_bidirectional_attention", "attn_logit_softcapping",
    "final_logit_softcapping", "use_parallel_residual", "parallel_attn", "use_sliding_window", "sparse_config",
)  # fmt: skip
"""Keys of config.json that change the graph in ways we do not run, when they are set."""


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the text model: in a bigger model's config, those of `text_config` over the others."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, Mapping) else dict(config)


def model_spec(
    config: Mapping[str, Any],
    family: Family,
    names: Mapping[str, str],
    tensor_names: Collection[str],
    *,
    int8: bool,
    projection_norm_eps: float,
    pooling: Mapping[str, Any] | None,
) -> ModelSpec:
    """Return the spec of a recognised checkpoint.

    names: GGUF name in a layer -> checkpoint name; they say which norms there are. int8: linears take int8 activations.
    Raises Unreadable for keys that are missing or impossible, Unsupported for what no graph here has.
    """
    keys = Keys(config, _defaults(config, family))
    _refuse_switches(config, family)
    heads, hidden, layers = keys.size("num_attention_heads"), keys.size("hidden_size"), keys.size("num_hidden_layers")
    if keys.get("head_dim") is None and hidden % heads:
        raise Unreadable(f"config.json: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    head_dim = hidden // heads if keys.get("head_dim") is None else keys.size("head_dim", 1 << 14)
    if layers > len(tensor_names):  # before anything is made for each of them
        raise Unreadable(f"config.json: num_hidden_layers is {layers}, but there are {len(tensor_names)} tensors")
    rope = rotary(keys, head_dim, by_layer_kind=bool(family.sliding_pattern), may_be_partial=family.delta_net)
    if family.delta_net and rope.scaling:
        raise Unsupported(f"config.json: rope scaling of type {rope.scaling.kind!r} is not supported in a hybrid")
    sliding = () if family.delta_net else _sliding_layers(keys, family, layers)
    pooled = _pooling(family, pooling)
    scalings: dict[str, Any] = {field: shortest_float(_value(keys, text)) for field, text in family.formulas.items()}
    switches: dict[str, Any] = {switch: f"{group[0]}.weight" in names for switch, group in OPTIONAL_NORMS.items()}
    if family.delta_net:  # here post_attention_norm is the norm before the feed-forward block
        switches |= {"post_norms": False, **hybrid_fields(keys, layers, head_dim)}
    return ModelSpec(
        architecture=family.architecture,
        vocab_size=keys.size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=keys.size("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=heads if keys.get("num_key_value_heads") is None else keys.size("num_key_value_heads"),
        head_dim=head_dim,
        context_length=rope.context_length,
        rope_theta=rope.theta,
        norm_eps=keys.number("rms_norm_eps"),
        activation=keys.need(family.activation_key),
        tied=keys.boolean("tie_word_embeddings") or pooled != "none",
        **switches,
        projection_norm_eps=projection_norm_eps,
        int8_activations=int8,
        **scalings,
        rope_scaling=rope.scaling,
        local_rope_theta=rope.local_theta if sliding else None,
        sliding_window=keys.size("sliding_window") if sliding else 0,
        sliding_layers=sliding,
        pooling=pooled,
    )


def _defaults(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Return the defaults of the family's class for keys that config.json does not have.

    If config.json names another class, the default activation of that class is not known.
    """
    is_own_class = config.get("model_type") in (None, *family.model_types[:1])
    knows_activation = is_own_class or family.activation_key != "hidden_act"
    return {key: value for key, value in family.config_defaults.items() if knows_activation or key != "hidden_act"}


def _refuse_switches(config: Mapping[str, Any], family: Family) -> None:
    for switch in UNSUPPORTED_SWITCHES:
        if config.get(switch) and switch not in family.unread_switches:
            raise Unsupported(f"config.json: {switch} is {config[switch]!r}, which no graph here runs")
    if config.get("is_causal") is False:
        raise Unsupported("config.json: is_causal is false, and every graph here is causal")


_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip


def _value(keys: Keys, formula: str) -> float:
    """Return the value of arithmetic over keys of config.json, such as `scale_depth / num_hidden_layers ** 0.5`."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return float(node.value)
        if isinstance(node, ast.Name):
            return keys.number(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return float(_OPERATORS[type(node.op)](value(node.left), value(node.right)))
        raise ValueError(f"not a formula: {formula}")

    try:
        return value(ast.parse(formula, mode="eval").body)
    except ArithmeticError as error:
        raise Unreadable(f"config.json: {formula} has no value: {error}") from error


def _sliding_layers(keys: Keys, family: Family, layers: int) -> tuple[bool, ...]:
    """Return which layers have a sliding window; () if none has."""
    types = keys.get("layer_types")
    if not family.sliding_pattern:
        if isinstance(types, list) and any(kind != "full_attention" for kind in types):
            raise Unsupported(f"config.json: layer_types asks for layers that {family.title} does not have here")
        return ()
    if types is None:
        pattern = family.sliding_pattern
        if keys.get("sliding_window_pattern") is not None:
            pattern = keys.size("sliding_window_pattern")
        slide = [(layer + 1) % pattern != 0 for layer in range(layers)]
    elif not isinstance(types, list) or len(types) != layers:
        raise Unreadable(f"config.json: layer_types does not name the kind of each of {layers} layers")
    else:
        if other := [kind for kind in types if kind not in ("sliding_attention", "full_attention")]:
            raise Unsupported(
                f"config.json: layer_types has {other[0]!r}, expected sliding_attention or full_attention"
            )
        slide = [kind == "sliding_attention" for kind in types]
    return tuple(slide) if any(slide) else ()


def _pooling(family: Family, pooling: Mapping[str, Any] | None) -> str:
    """Return the pooling that sentence-transformers' N_Pooling/config.json names; without one, the family's."""
    if not pooling:
        return family.embedding.get("pooling", "none")
    modes: list[Any] = [
        key.removeprefix("pooling_mode_")
        for key, on in pooling.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    modes += [pooling["pooling_mode"]] if "pooling_mode" in pooling else []
    names = {"lasttoken": "last", "mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in names:
        asked = " and ".join(map(str, modes)) or "nothing"
        raise Unsupported(f"pooling by {asked} is not supported (the pooling module's config.json)")
    return names[modes[0]]

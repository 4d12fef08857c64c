"""Reads config.json as a ModelSpec, as transformers 5 and 4 and MiniCPM's own code do. It is the oracle's own reading.

A config that asks for activations, masks or rotary embedding that runtime/reference.py does not compute is refused.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.model_spec import ModelSpec, shortest_float
from tritpack.formats.rope import (
    RopeScaling,
    float32_tuple,
    llama3_factors,
    longrope_attention_factor,
    yarn_attention_factor,
)

Config = dict[str, Any]
MAX_HEAD_DIM = 1 << 14

LLAMA: Config = {
    "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}  # fmt: skip
DEFAULTS: dict[str, Config] = {
    "llama": LLAMA,
    "bitnet": {**LLAMA, "hidden_act": "relu2", "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "num_key_value_heads": 5},
    "qwen3": {**LLAMA, "max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
    "gemma3_text": {
        "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "num_key_value_heads": 4, "head_dim": 256,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 6, "tie_word_embeddings": True,
    },
    "minicpm": {**LLAMA, "scale_emb": 1, "scale_depth": 1, "dim_model_base": 1, "tie_word_embeddings": True},
}  # fmt: skip
"""By model_type: the values of its configuration class that config.json may leave out."""


def read_spec(config: Config, architecture: str, **decided: Any) -> ModelSpec:
    """The ModelSpec of a config. decided: the fields that follow from the tensors and not from the config."""
    _refuse_unknown_switches(config, architecture)
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_dim, kv_heads = config.get("head_dim"), config.get("num_key_value_heads")
    if head_dim is None:
        if hidden % heads:
            raise Unreadable(f"hidden_size {hidden} is not a multiple of {heads} attention heads")
        head_dim = hidden // heads
    # Checked before a frequency is computed for each pair.
    if not isinstance(head_dim, int) or not 0 < head_dim <= MAX_HEAD_DIM:
        raise Unreadable(f"head_dim is {head_dim!r}, expected at most {MAX_HEAD_DIM}")
    fields: dict[str, Any] = {
        "vocab_size": config["vocab_size"],
        "hidden_size": hidden,
        "intermediate_size": config["intermediate_size"],
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": heads if kv_heads is None else kv_heads,
        "head_dim": head_dim,
        "norm_eps": number(config, "rms_norm_eps"),
        "sub_norms": architecture in ("bitnet-b1.58", "bitnet"),
        "qk_norms": architecture in ("qwen3", "gemma3"),
    }
    rotary = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if architecture == "gemma3":
        rotary = {**_layer_kind(config, "full_attention"), **(config.get("rope_scaling") or {})}
        fields |= _gemma3(config)
    else:
        fields["activation"] = config["hidden_act"]
    if architecture == "minicpm":
        fields |= _minicpm(config)
    return ModelSpec(architecture, **fields, **_rotary(config, rotary, head_dim), **decided)


def number(config: Config, key: str, default: float | None = None) -> float:
    """A number of the config as float32 holds it. Raises Unreadable if it is not a number."""
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unreadable(f"{key} is {value!r}, expected a number")
    return shortest_float(value)


def _refuse_unknown_switches(config: Config, architecture: str) -> None:
    rotary = config.get("partial_rotary_factor", 1.0)
    kinds = {"full_attention", "sliding_attention"} if architecture == "gemma3" else {"full_attention"}
    others = sorted(set(config.get("layer_types") or ()) - kinds)
    for switch, wanted in {
        "attention_bias": config.get("attention_bias"),
        "mlp_bias": config.get("mlp_bias"),
        f"partial_rotary_factor {rotary!r}": rotary not in (None, 1),
        f"attention of kind {', '.join(others)}": others,
        "use_sliding_window": config.get("use_sliding_window"),
        "use_bidirectional_attention": config.get("use_bidirectional_attention"),
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
        "sparse_config": config.get("sparse_config"),
        "is_causal false": config.get("is_causal") is False,
    }.items():
        if wanted:
            raise Unsupported(f"config.json asks for {switch}, which cannot be run")


# -- architectures with more than Llama has ----------------------------------------------------------------------------


def _gemma3(config: Config) -> dict[str, Any]:
    layers, kinds = config["num_hidden_layers"], config.get("layer_types")
    if kinds is None:
        pattern = config["sliding_window_pattern"]
        sliding = tuple((layer + 1) % pattern != 0 for layer in range(layers))
    else:
        sliding = tuple(kind == "sliding_attention" for kind in kinds)
    fields = {
        "activation": config["hidden_activation"],
        "post_norms": True,
        "embedding_scale": shortest_float(math.sqrt(config["hidden_size"])),
        "attention_scale": shortest_float(config["query_pre_attn_scalar"] ** -0.5),
    }
    if not any(sliding):
        return fields
    local = _layer_kind(config, "sliding_attention")
    if _kind(local) != "default":
        raise Unsupported(f"rope scaling {_kind(local)!r} of the layers that slide cannot be run")
    return fields | {
        "sliding_layers": sliding,
        "sliding_window": config["sliding_window"],
        "local_rope_theta": number(local, "rope_theta", number(config, "rope_local_base_freq")),
    }


def _minicpm(config: Config) -> dict[str, Any]:
    return {
        "embedding_scale": number(config, "scale_emb"),
        "residual_scale": shortest_float(config["scale_depth"] / math.sqrt(config["num_hidden_layers"])),
        "logit_scale": shortest_float(config["dim_model_base"] / config["hidden_size"]),
    }


# -- rotary embedding --------------------------------------------------------------------------------------------------


def _layer_kind(config: Config, kind: str) -> Config:
    """Gemma's rotary parameters of one kind of layer, as transformers 5 stores them; {} in older configs."""
    return (config.get("rope_parameters") or {}).get(kind) or {}


def _kind(rotary: Config) -> Any:
    return rotary.get("rope_type") or rotary.get("type") or "default"


def _rotary(config: Config, rotary: Config, head_dim: int) -> dict[str, Any]:
    """rope_theta, rope_scaling and context_length. rotary: 4.x calls it rope_scaling, 5 rope_parameters."""
    if any(isinstance(value, dict) for value in rotary.values()):
        raise Unsupported("rope_parameters by kind of layer cannot be run in this architecture")
    theta, context = number(rotary, "rope_theta", config["rope_theta"]), config["max_position_embeddings"]
    key = "original_max_position_embeddings"
    original = max(2, config.get(key) or rotary.get(key) or context)  # LongRoPE divides by its logarithm
    kind, scaling = _kind(rotary), None
    if kind == "linear":
        factor = number(rotary, "factor")
        scaling = None if factor == 1 else RopeScaling("linear", factor)
    elif kind == "llama3":
        with np.errstate(all="ignore"):  # RopeScaling refuses what is infinite
            factors = llama3_factors(
                theta,
                head_dim,
                factor=rotary["factor"],
                low_freq_factor=rotary["low_freq_factor"],
                high_freq_factor=rotary["high_freq_factor"],
                original_context=original,
            )
        scaling = RopeScaling("factors", frequency_factors=factors)
    elif kind == "yarn":
        scaling = _yarn(rotary, context, original)
    elif kind in ("longrope", "su"):  # its first name, which older configs of MiniCPM and Phi have
        short, long = float32_tuple(rotary["short_factor"]), float32_tuple(rotary["long_factor"])
        longer = number(rotary, "factor", context / original)
        attention = number(rotary, "attention_factor", longrope_attention_factor(longer, original))
        scaling = RopeScaling("factors", attention_factor=attention, frequency_factors=short)
        if short != long:  # which of them turns a position depends on the length of the whole text
            context = min(context, original)
    elif kind != "default":
        raise Unsupported(f"rope scaling {kind!r} cannot be run")
    return {"rope_theta": theta, "rope_scaling": scaling, "context_length": context}


def _yarn(rotary: Config, context: int, original: int) -> RopeScaling:
    if rotary.get("truncate") is False:
        raise Unsupported("rope scaling 'yarn' with truncate false cannot be run")
    factor = number(rotary, "factor", context / original)
    attention = yarn_attention_factor(factor)
    if rotary.get("mscale") and rotary.get("mscale_all_dim"):
        above, below = (1 + (attention - 1) * rotary[key] for key in ("mscale", "mscale_all_dim"))
        attention = above / below
    return RopeScaling(
        "yarn",
        factor,
        original,
        # transformers takes its default for 0, too
        number(rotary, "beta_fast") if rotary.get("beta_fast") else 32.0,
        number(rotary, "beta_slow") if rotary.get("beta_slow") else 1.0,
        number(rotary, "attention_factor", attention),
    )

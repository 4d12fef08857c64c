"""ModelSpec -> config.json, the reverse of converter/families/hyperparameters.py, which reads it again in the proof."""

from __future__ import annotations

from typing import Any

from tritpack.converter.families import family as catalog
from tritpack.converter.families.family import Family
from tritpack.formats.errors import Unsupported
from tritpack.formats.model_spec import ModelSpec


def family_of(spec: ModelSpec) -> Family:
    """Return the family in whose names a model is written. Raises Unsupported if there is none."""
    if spec.architecture in ("bitnet", "bitnet-b1.58"):
        return catalog.family("bitnet")  # transformers' class, whatever the activation
    name = f"bitnet_embedding_{spec.architecture}" if spec.is_embedding_model else spec.architecture
    if name not in {family.name for family in catalog.families() if family.transformers_class}:
        raise Unsupported(f"embedding models of architecture {spec.architecture} cannot be exported")
    if spec.is_embedding_model and not spec.projection_norms:
        raise Unsupported("embedding models without norms before their projections cannot be exported")
    return catalog.family(name)


def config_of(spec: ModelSpec, family: Family, dtype: str) -> dict[str, Any]:
    """Return config.json without its quantization_config and token ids. dtype: the value of torch_dtype."""
    config: dict[str, Any] = {
        "architectures": [family.transformers_class],
        "model_type": family.model_types[0],
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        family.activation_key: spec.activation,
        "max_position_embeddings": spec.context_length,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    if scaling := _rope_scaling(spec):
        config["rope_scaling"] = scaling
    if family.sliding_pattern:
        kinds = {True: "sliding_attention", False: "full_attention"}
        config["layer_types"] = [kinds[slides] for slides in spec.sliding_layers or (False,) * spec.layers]
        config["sliding_window"] = spec.sliding_window or 4096
        config["rope_local_base_freq"] = spec.local_rope_theta or 10000.0
        scale = spec.attention_scale or spec.head_dim**-0.5
        config["query_pre_attn_scalar"] = _nearly_whole(scale**-2)
    if "scale_emb" in family.config_keys:
        config["scale_emb"] = _nearly_whole(spec.embedding_scale)
        config["scale_depth"] = _short(spec.residual_scale * spec.layers**0.5)
        config["dim_model_base"] = _nearly_whole(spec.logit_scale * spec.hidden_size)
    return config


def _rope_scaling(spec: ModelSpec) -> dict[str, Any] | None:
    scaling = spec.rope_scaling
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    if scaling.kind == "yarn":
        return {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_context,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "attention_factor": scaling.attention_factor,
        }
    # Llama 3's and longrope's factors are both divisors of each frequency, and longrope is the one that lists them.
    factors = list(scaling.frequency_factors)
    return {
        "rope_type": "longrope",
        "factor": 1.0,
        "attention_factor": scaling.attention_factor,
        "original_max_position_embeddings": spec.context_length,
        "short_factor": factors,
        "long_factor": factors,
    }


def _nearly_whole(value: float) -> float | int:
    return round(value) if abs(value - round(value)) < 1e-4 * value else _short(value)


def _short(value: float) -> float:
    """Round to six digits, without the noise of float arithmetic; the proof refuses if it matters."""
    return float(f"{value:.6g}")

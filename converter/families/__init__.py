"""What each checkpoint family is: data in the YAML files here. Adding one is adding a file and its test."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any, Literal

import yaml

from formats.errors import Unreadable, Unsupported
from formats.model_spec import ModelSpec, shortest_float

Form = Literal["packed", "online"]


@dataclasses.dataclass(frozen=True)
class Family:
    """One YAML file. `globals` and `layer` map GGUF names to checkpoint names."""

    name: str
    title: str
    recognised_by: str
    quant_method: str
    signature: str
    architecture: str
    activation_quantization: str
    config_defaults: Mapping[str, Any]
    globals: Mapping[str, str]
    layer_prefix: str
    layer: Mapping[str, str]

    def source_name(self, name: str) -> str:
        """The checkpoint's name of a GGUF tensor."""
        if name in self.globals:
            return self.globals[name]
        _, layer, part = name.split(".", 2)
        return self.layer_prefix.format(layer=layer) + self.layer[part]


@dataclasses.dataclass(frozen=True)
class Recognition:
    """What a checkpoint is: its family, how its linears are stored, and whether a stored scale multiplies."""

    family: Family
    form: Form
    scale_multiplies: bool
    spec: ModelSpec
    why: str


@functools.cache
def families() -> tuple[Family, ...]:
    """Every supported family, by file name."""
    files = [entry for entry in resources.files(__package__).iterdir() if entry.name.endswith(".yaml")]
    return tuple(Family(**yaml.safe_load(entry.read_text("utf-8"))) for entry in sorted(files, key=lambda e: e.name))


def recognise(config: Mapping[str, Any], tensor_names: Collection[str]) -> Recognition:
    """Decide what a checkpoint is from its config and tensor names, in the order of decision 1.

    Raises Unsupported with the reason for what we do not read, Unreadable for a config that contradicts itself.
    """
    quantization = config.get("quantization_config")
    if not isinstance(quantization, Mapping):
        raise Unsupported(
            "config.json has no quantization_config, so nothing says that this model is ternary",
            hint=f"supported: {', '.join(family.title for family in families())}",
        )
    method = quantization.get("quant_method")
    family = next((f for f in families() if f.quant_method == method and f.signature in tensor_names), None)
    if family is None:
        raise Unsupported(
            f"quant_method {method!r} with architecture {config.get('architectures')} is not a family we read",
            hint=f"supported: {', '.join(family.title for family in families())}",
        )
    if quantization.get("use_rms_norm"):
        raise Unsupported("quantization_config.use_rms_norm (a norm inside every linear) is not supported yet")
    linear_class = quantization.get("linear_class", "bitlinear")
    mode = quantization.get("quantization_mode", "offline")
    if linear_class not in ("bitlinear", "autobitlinear"):
        raise Unsupported(f"quantization_config.linear_class {linear_class!r} is unknown")
    if mode not in ("offline", "online"):
        raise Unsupported(f"quantization_config.quantization_mode {mode!r} is unknown")
    multiplies = linear_class == "autobitlinear"
    form: Form = "online" if multiplies and mode == "online" else "packed"
    stored = "float masters, absmean" if form == "online" else "packed uint8"
    direction = "" if form == "online" else f", weight_scale {'multiplies' if multiplies else 'divides'}"
    why = f"{family.title}: {stored}{direction} (quant_method {method}, linear_class {linear_class}, mode {mode})"
    return Recognition(family, form, multiplies, _spec(config, family, tensor_names), why)


def _spec(config: Mapping[str, Any], family: Family, tensor_names: Collection[str]) -> ModelSpec:
    # A config saved by transformers 5 has rope_parameters, one saved by 4.x has rope_theta and rope_scaling.
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(config.get(key) or {}, Mapping):
            raise Unreadable(f"config.json: {key} is {config[key]!r}, expected an object")
    rope = {**config, **(config.get("rope_parameters") or {})}
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise Unsupported(f"rope scaling of type {kind!r} is not supported for {family.title}")
    if config.get("attention_bias"):
        raise Unsupported("attention_bias is true; biased projections are not supported")

    def need(key: str, source: Mapping[str, Any] = config) -> Any:
        value = source.get(key)
        if value is None:
            value = family.config_defaults.get(key)
        if value is None:
            raise Unreadable(f"config.json has no {key!r}")
        return value

    def number(key: str, source: Mapping[str, Any] = config) -> float:
        value = need(key, source)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise Unreadable(f"config.json: {key} is {value!r}, expected a positive number")
        return shortest_float(value)

    heads, hidden = need("num_attention_heads"), need("hidden_size")
    head_dim = config.get("head_dim")
    if head_dim is None:
        if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1 or hidden % heads:
            raise Unreadable(f"config.json: hidden_size {hidden!r} is not a multiple of num_attention_heads {heads!r}")
        head_dim = hidden // heads
    layers = need("num_hidden_layers")
    if isinstance(layers, int) and layers > len(tensor_names):  # before anything is made for each of them
        raise Unreadable(f"config.json: num_hidden_layers is {layers}, but there are {len(tensor_names)} tensors")
    untied = family.globals["output.weight"] in tensor_names and not need("tie_word_embeddings")
    return ModelSpec(
        architecture=family.architecture,
        vocab_size=need("vocab_size"),
        hidden_size=hidden,
        intermediate_size=need("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        context_length=need("max_position_embeddings"),
        rope_theta=number("rope_theta", rope),
        norm_eps=number("rms_norm_eps"),
        activation=need("hidden_act"),
        tied=not untied,
        sub_norms=True,
    )

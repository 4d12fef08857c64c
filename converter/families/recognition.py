"""What a checkpoint is: from its tensor names and values rather than from `model_type`, in the order of decision of
formats/README.md; and in one line why."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from tritpack.converter.families.family import Family, Form, families, refusals
from tritpack.converter.families.hyperparameters import model_spec, text_config
from tritpack.converter.families.keys import as_number
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.model_spec import ACTIVATION_QUANTIZATION, LINEARS, ModelSpec

Dtypes = Mapping[str, str]
"""Tensor name -> dtype in safetensors' spelling."""


@dataclasses.dataclass(frozen=True)
class Recognition:
    """A checkpoint's family, how its linears are stored, whether a stored scale multiplies, and where tensors lie.

    prefix: what layer names begin with. names: GGUF name in a layer -> checkpoint name in a layer.
    scales_are_told: a quantization_config says how stored scales are meant.
    """

    family: Family
    form: Form
    scale_multiplies: bool
    spec: ModelSpec
    why: str
    prefix: str
    names: Mapping[str, str]
    scales_are_told: bool

    def source_name(self, name: str) -> str:
        """The checkpoint's name of a GGUF tensor."""
        return dataclasses.replace(self.family, layer=self.names).source_name(name, self.prefix)


def recognise(
    config: Mapping[str, Any],
    dtypes: Dtypes,
    *,
    quantize: str | None = None,
    pooling: Mapping[str, Any] | None = None,
    notes: str = "",
) -> Recognition:
    """Decide what a checkpoint is from its config and headers.

    quantize: `absmean` takes plain floats for masters. pooling: sentence-transformers' pooling config.
    notes: free text of the weight files' headers.
    Raises Unsupported with the reason for what we do not read, Unreadable for a config that contradicts itself.
    """
    text = text_config(config)
    refuse_by_name(text, dtypes, notes)
    prefix = _prefix(dtypes)
    layer0 = {name.removeprefix(f"{prefix}layers.0.") for name in dtypes if name.startswith(f"{prefix}layers.0.")}
    family = _family(text, layer0)
    quantization = _quantization(text)
    names = dict(family.layer)
    form, multiplies, told_by = _form(family, quantization, quantize)
    if form == "mlx" and form not in family.checkpoints:
        raise Unsupported(f"MLX 2-bit weights of {family.title} are not supported: no graph here runs their scales")
    eps = 1e-6
    if form in ("packed", "online") and quantization and quantization.get("use_rms_norm"):
        for linear in LINEARS:
            names[f"{linear}_norm_in.weight"] = names[f"{linear}.weight"].replace(".weight", ".rms_norm.weight")
        given = quantization.get("rms_norm_eps")
        eps = eps if given is None else as_number("quantization_config.rms_norm_eps", given)
        told_by += ", use_rms_norm"
    embedding = bool(family.embedding or pooling)
    _check_not_converted(family, prefix, names, form, quantization, dtypes, embedding=embedding)
    int8 = ACTIVATION_QUANTIZATION[family.activations(form)]
    spec = model_spec(text, family, names, dtypes, int8=int8, projection_norm_eps=eps, pooling=pooling)
    activations = "int8 activations" if int8 else "float activations"
    why = f"{family.title} ({told_by}), as {family.checkpoints.get(form, family.title)}; {activations}"
    told = quantization is not None and form in ("packed", "online")
    return Recognition(family, form, multiplies, spec, why, prefix, names, told)


def _family(config: Mapping[str, Any], layer0: Collection[str]) -> Family:
    """The first family, by rank, whose names are there; model_type may not speak against it."""
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise Unreadable(f"config.json: model_type is {kind!r}, expected a text")
    named = set(layer0)
    for family in families():
        by_config = kind == family.model_types[0] or all(config.get(key) for key in family.config_keys)
        if not named.issuperset(family.has) or named & set(family.lacks) or not by_config:
            continue
        if kind is not None and kind not in family.model_types:
            # granite or cohere, say, give the same names another graph.
            raise Unsupported(
                f"model_type {kind!r} names its tensors as {family.title} does, but need not compute the same",
                hint=f"with these names: {', '.join(family.model_types)}",
            )
        return family
    raise Unsupported(
        f"layer 0 of architecture {config.get('architectures')} ({', '.join(sorted(named)[:4])}, ...) is that of "
        "no family we read",
        hint="tritpack families lists what is supported and how it is recognised",
    )


def refuse_by_name(config: Mapping[str, Any], tensor_names: Collection[str], notes: str = "") -> None:
    """Raises Unsupported with the reason for a model that refused.yaml names."""
    everything = json.dumps(config, default=str) + notes
    for refusal in refusals():
        key = next((key for key in refusal.config_keys if config.get(key)), None)
        key = key or next((word for word in refusal.words if word in everything), None)
        piece = next((piece for piece in refusal.tensors for name in tensor_names if piece in name), None)
        kind = config.get("model_type")
        if key or piece or kind in refusal.model_types:
            told = f"config key {key!r}" if key else f"tensors named {piece!r}" if piece else f"model_type {kind!r}"
            raise Unsupported(f"{refusal.name} cannot be run ({told}): {refusal.reason}")


def _prefix(dtypes: Dtypes) -> str:
    """What stands before `layers.0.`: `model.`, nothing, or what a bigger model around it is called."""
    found = {name[: name.index("layers.0.")] for name in dtypes if re.match(r"(?:[\w.]+\.)?layers\.0\.", name)}
    if not found:
        raise Unsupported(
            "no tensor is named like a layer (layers.0. ...), so this is no decoder that we read",
            hint="tritpack families lists what is supported and how it is recognised",
        )
    return min(found, key=len)


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What config.json says of quantisation; mlx-lm calls it `quantization`, and writes both keys."""
    given = config.get("quantization_config") or config.get("quantization")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise Unreadable(f"config.json: quantization_config is {given!r}, expected an object")
    return given


def _form(family: Family, quantization: Mapping[str, Any] | None, quantize: str | None) -> tuple[Form, bool, str]:
    """(form, whether a stored scale multiplies, the evidence)."""
    if quantization is None:
        if quantize == "absmean" and family.floats == "exact":
            return "absmean", True, "no quantization_config, plain floats taken for masters by --quantize absmean"
        if family.floats == "absmean":
            _no_quantize(quantize, "its masters are quantised by absmean anyway")
            return "online", True, "tensor names, float masters, absmean"
        return "exact", True, "no quantization_config, ternary floats"
    _no_quantize(quantize, "its config.json has a quantization_config")
    if "quant_method" not in quantization and "group_size" in quantization:
        bits = quantization.get("bits")
        if quantization.get("mode", "affine") != "affine":
            raise Unsupported(
                f"MLX weights of mode {quantization['mode']!r} are not read (quantization.mode in config.json)"
            )
        if bits != 2:
            raise Unsupported(f"MLX weights of {bits} bits are not ternary (quantization.bits in config.json)")
        return "mlx", True, f"quantization bits 2, group_size {quantization['group_size']}"
    method = quantization.get("quant_method")
    if method != "bitnet":
        raise Unsupported(
            f"quantization_config.quant_method {method!r} is not a ternary format we read", hint="supported: bitnet"
        )
    linear_class = quantization.get("linear_class", "bitlinear")
    mode = quantization.get("quantization_mode", "offline")
    if linear_class not in ("bitlinear", "autobitlinear"):
        raise Unsupported(f"quantization_config.linear_class {linear_class!r} is unknown")
    if mode not in ("offline", "online"):
        raise Unsupported(f"quantization_config.quantization_mode {mode!r} is unknown")
    multiplies = linear_class == "autobitlinear"
    told = f"quant_method bitnet, linear_class {linear_class}, mode {mode}"
    if multiplies and mode == "online":
        return "online", True, f"{told}: float masters, absmean"
    return "packed", multiplies, f"{told}: weight_scale {'multiplies' if multiplies else 'divides'}"


def _no_quantize(quantize: str | None, because: str) -> None:
    if quantize is not None:
        raise Unsupported(
            f"--quantize {quantize} is for plain float checkpoints, and this is none: {because}",
            hint="leave --quantize out: the codes and scales of this checkpoint are kept as they are",
        )


def _check_not_converted(
    family: Family,
    prefix: str,
    names: Mapping[str, str],
    form: Form,
    quantization: Mapping[str, Any] | None,
    dtypes: Dtypes,
    *,
    embedding: bool,
) -> None:
    """modules_to_not_convert as transformers reads it: a module matched from its start, or as a suffix, stays float."""
    listed = (quantization or {}).get("modules_to_not_convert")
    if form not in ("packed", "online") or listed is None:
        return
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise Unreadable(f"quantization_config.modules_to_not_convert is {listed!r}, expected a list of names")

    # Patterns as people write them; anything wilder could keep the matcher busy for ever.
    if wild := [entry for entry in listed if not re.fullmatch(r"(?:[\w-]|\\?\.\*?|\*)+", entry) or "**" in entry]:
        raise Unsupported(
            f"quantization_config.modules_to_not_convert holds {wild[0][:60]!r}, which is not read as a pattern"
        )

    def spared(module: str) -> bool:
        boundary = r"(?:(?<=\.)|(?=\.|$))"
        return any(re.match(f"(?:{entry.lstrip('*')}){boundary}", module) or module.endswith(entry) for entry in listed)

    layers = {int(m[1]) for name in dtypes if (m := re.match(rf"{re.escape(prefix)}layers\.(\d+)\.", name))}
    for layer in sorted(layers):
        for linear in LINEARS:
            module = f"{prefix}layers.{layer}.{names[f'{linear}.weight']}".removesuffix(".weight")
            if spared(module):
                raise Unsupported(
                    f"quantization_config.modules_to_not_convert spares {module!r}: a model with float linears "
                    "among its ternary ones is not supported"
                )
    head = family.source_name("output.weight", prefix).removesuffix(".weight")
    if not embedding and not spared(head):  # also a tied one: transformers then quantises the embedding for it
        raise Unsupported(
            "quantization_config.modules_to_not_convert does not name lm_head, so its output head is quantised as "
            "well, which is not supported"
        )

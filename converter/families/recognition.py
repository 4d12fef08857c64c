"""What a checkpoint is, decided from its tensor names and values rather than from `model_type`, and why in one line.

The order of decision is that of formats/README.md, "What a checkpoint is".
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tritpack.converter.families.family import Family, Refusal, families, refusals
from tritpack.converter.families.hyperparameters import model_spec, text_config
from tritpack.converter.families.keys import as_number
from tritpack.converter.storage.catalog import recognise_storage
from tritpack.converter.storage.mlx import Mlx
from tritpack.converter.storage.storage import Declaration, Storage
from tritpack.converter.storage.ternary_floats import ALREADY, TernaryFloats
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.model_spec import ACTIVATION_QUANTIZATION, ALL_LINEARS, LINEARS, ModelSpec

MOST_STARS = 2
"""In an entry of modules_to_not_convert: time is the length of a name to the power of their number."""
Dtypes = Mapping[str, str]
"""Tensor name -> dtype in safetensors' spelling."""


@dataclasses.dataclass(frozen=True)
class Recognition:
    """A checkpoint's family, how its linears are stored, its hyperparameters, and where its tensors are.

    why: what was recognised, in one line. prefix: what layer names begin with.
    names: GGUF name in a layer -> checkpoint name in a layer.
    scales_are_declared: a quantization_config says how a stored weight_scale is meant. rounds_activations: whether the
    loaders of the tool that made it round activations, and we do not. norms_are_factors: the family's norm_offset was
    added already.
    """

    family: Family
    storage: Storage
    spec: ModelSpec
    why: str
    prefix: str
    names: Mapping[str, str]
    scales_are_declared: bool
    rounds_activations: bool = False
    norms_are_factors: bool = False

    def norm_offset(self, name: str) -> float:
        """Return what is added to the stored values of a GGUF tensor."""
        return 0.0 if self.norms_are_factors else self.family.offset_of(name)

    def source_name(self, name: str) -> str:
        """Return the checkpoint's name of a GGUF tensor."""
        return dataclasses.replace(self.family, layer=self.names).source_name(name, self.prefix)


def recognise(
    config: Mapping[str, Any],
    dtypes: Dtypes,
    *,
    quantize: str | None = None,
    pooling: Mapping[str, Any] | None = None,
    notes: str = "",
    is_ternary: Callable[[], bool | None] = lambda: None,
) -> Recognition:
    """Decide what a checkpoint is from its config and headers.

    quantize: `absmean` takes plain floats for master weights. pooling: sentence-transformers' pooling config.
    notes: free text of the weight files' headers. is_ternary: see refuse_by_name.
    Raises Unsupported with the reason for what is not read, Unreadable for a config that contradicts itself.
    """
    text = text_config(config)
    whole = config.get("model_type")  # of a bigger model around this one, which tells a rotated basis
    refuse_by_name(text, dtypes, f"{notes}{whole}", is_ternary)
    prefix = _prefix(dtypes)
    first = f"{prefix}layers.0."
    layer0 = {name.removeprefix(first).removesuffix("_packed") for name in dtypes if name.startswith(first)}
    family = _family(text, layer0)
    quantization = _quantization(text)
    storage, evidence = recognise_storage(Declaration(quantization, family.floats, quantize))
    if isinstance(storage, Mlx) and storage.key not in family.checkpoints:
        raise Unsupported(f"MLX 2-bit weights of {family.title} are not supported: no graph here runs their scales")
    is_bitnet = quantization is not None and "quant_method" in quantization and not isinstance(storage, TernaryFloats)
    bitnet = quantization if quantization is not None and is_bitnet else {}
    names, eps = _names_with_norms(family, bitnet)
    for name in (f"{linear}.weight" for linear in ALL_LINEARS if f"{linear}.weight" in names):
        names[name] = names[name].removesuffix("weight") + storage.weight_part
    if bitnet:
        _check_not_converted(bitnet, family, prefix, names, dtypes, embedding=bool(family.embedding or pooling))
    int8 = ACTIVATION_QUANTIZATION[family.activations(storage_takes_int8=storage.int8_activations)]
    spec = model_spec(text, family, names, dtypes, int8=int8, projection_norm_eps=eps, pooling=pooling)
    evidence += ", use_rms_norm" if bitnet.get("use_rms_norm") else ""
    activations = "int8 activations" if int8 else "float activations"
    why = f"{family.title} ({evidence}), stored like {family.checkpoints.get(storage.key, family.title)}; {activations}"
    edgerazor = quantization is not None and quantization.get("quant_method") == "edgerazor"
    rounds = edgerazor and quantization is not None and quantization.get("activation_bits") == 8
    return Recognition(
        family, storage, spec, why, prefix, names, scales_are_declared=bool(bitnet), rounds_activations=rounds
    )


def _names_with_norms(family: Family, bitnet: Mapping[str, Any]) -> tuple[dict[str, str], float]:
    """Return the names in a layer, with the norms that `use_rms_norm` puts before linears, and their epsilon."""
    names, eps = dict(family.layer), 1e-6
    if bitnet.get("use_rms_norm"):
        for linear in LINEARS:
            names[f"{linear}_norm_in.weight"] = names[f"{linear}.weight"].replace(".weight", ".rms_norm.weight")
        if (configured := bitnet.get("rms_norm_eps")) is not None:
            eps = as_number("quantization_config.rms_norm_eps", configured)
    return names, eps


def _family(config: Mapping[str, Any], layer0: Collection[str]) -> Family:
    """Return the first family, by rank, whose names are there. Raises Unsupported if model_type contradicts it."""
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise Unreadable(f"config.json: model_type is {kind!r}, expected a text")
    in_layer0 = set(layer0)
    for family in families():
        by_config = kind == family.model_types[0] or all(config.get(key) for key in family.config_keys)
        if not in_layer0.issuperset(family.has) or in_layer0 & set(family.lacks) or not by_config:
            continue
        if kind is not None and kind not in family.model_types:
            # granite or cohere, say, give the same names another graph.
            raise Unsupported(
                f"model_type {kind!r} uses the tensor names of {family.title}, but may compute something else",
                hint=f"model_type accepted with these names: {', '.join(family.model_types)}",
            )
        return family
    raise Unsupported(
        f"layer 0 of architecture {config.get('architectures')} ({', '.join(sorted(in_layer0)[:4])}, ...) does not "
        "match any family that is read here",
        hint="tritpack families lists what is supported and how it is recognised",
    )


def refuse_by_name(
    config: Mapping[str, Any],
    tensor_names: Collection[str],
    notes: str = "",
    is_ternary: Callable[[], bool | None] = lambda: None,
) -> None:
    """Raise Unsupported with the reason for a model that refused.yaml names.

    is_ternary: reads some weights and returns whether they are ternary, or None if that is not known. It is called only
    for a model whose refusal depends on it.
    """
    everything = json.dumps(config, default=str) + notes
    for refusal in refusals():
        is_read = config.get("model_type") in refusal.not_for
        told = None if is_read else _evidence(refusal, config, tensor_names, everything)
        if told and (refusal.ternary is None or refusal.ternary == is_ternary()):
            raise Unsupported(f"{refusal.name} cannot be run ({told}): {refusal.reason}")


def _evidence(
    refusal: Refusal, config: Mapping[str, Any], tensor_names: Collection[str], everything: str
) -> str | None:
    """Return in words what shows that a refusal is meant, or None. everything: where its words are looked for."""
    if key := next((key for key in refusal.config_keys if config.get(key)), None):
        return f"config key {key!r}"
    if word := next((word for word in refusal.words if word in everything), None):
        return f"its metadata say {word!r}"
    if piece := next((piece for piece in refusal.tensors for name in tensor_names if piece in name), None):
        return f"tensors named {piece!r}"
    kind = config.get("model_type")
    return f"model_type {kind!r}" if kind in refusal.model_types else None


def _prefix(dtypes: Dtypes) -> str:
    """Return what precedes `layers.0.`: `model.`, nothing, or the name of a bigger model around it."""
    names = [name for name in dtypes if not any(family.kind_left_out(name) for family in families())]
    prefixes = {name[: name.index("layers.0.")] for name in names if re.match(r"(?:[\w.]+\.)?layers\.0\.", name)}
    if not prefixes:
        raise Unsupported(
            "no tensor is named like a layer (layers.0. ...), so this is not a decoder that is read here",
            hint="tritpack families lists what is supported and how it is recognised",
        )
    return min(prefixes, key=len)


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what config.json says about quantisation. mlx-lm calls it `quantization`, and writes both keys."""
    quantization = config.get("quantization_config") or config.get("quantization")
    if quantization is not None and not isinstance(quantization, Mapping):
        raise Unreadable(f"config.json: quantization_config is {quantization!r}, expected an object")
    if quantization is not None and quantization.get("quant_method") == "edgerazor":
        return {ALREADY: config.get(ALREADY), **quantization}  # its export writes that beside the object
    return quantization


def _check_not_converted(
    bitnet: Mapping[str, Any],
    family: Family,
    prefix: str,
    names: Mapping[str, str],
    dtypes: Dtypes,
    *,
    embedding: bool,
) -> None:
    """Raise Unsupported if modules_to_not_convert spares a linear, or does not spare the head."""
    spared = _spared_modules(bitnet.get("modules_to_not_convert"))
    if spared is None:
        return
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
    if not embedding and not spared(head):  # even a tied head: transformers then quantises the embedding for it
        raise Unsupported(
            "quantization_config.modules_to_not_convert does not name lm_head, so its output head is quantised as "
            "well, which is not supported"
        )


def _spared_modules(listed: Any) -> Callable[[str], bool] | None:
    """Return whether a module stays float, as transformers reads modules_to_not_convert; None where nothing is listed.

    An entry matches a module from its start, or as a suffix. Raises Unreadable for what is not a list of names, and
    Unsupported for patterns that are not read.
    """
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise Unreadable(f"quantization_config.modules_to_not_convert is {listed!r}, expected a list of names")
    # Patterns as people write them; anything wilder, or with more stars, could keep the matcher busy for ever.
    legal = re.compile(r"(?:[\w*-]|\\?\.)+")
    if wild := [e for e in listed if not legal.fullmatch(e) or "**" in e or e.count("*") > MOST_STARS]:
        raise Unsupported(
            f"quantization_config.modules_to_not_convert holds {wild[0][:60]!r}, which is not read as a pattern"
        )
    patterns = [re.compile(rf"(?:{entry.lstrip('*')})(?:(?<=\.)|(?=\.|$))") for entry in listed]

    def spared(module: str) -> bool:
        return any(pattern.match(module) for pattern in patterns) or module.endswith(tuple(listed))

    return spared

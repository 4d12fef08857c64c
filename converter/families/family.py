"""Checkpoint families: one YAML file here per family, read into a Family.

A family is a skeleton: tensor names, norms, scalings, defaults. How its linears are stored (packed, master weights,
ternary floats, MLX) is independent of it; converter/storage decides that. README.md here explains every key.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

import yaml

from tritpack.formats.errors import Unsupported

REFUSED = "refused.yaml"
INHERITED = ("globals", "norm_offset", "sliding_pattern", "activation_key", "formulas", "tokenizer")
"""Keys that a family with `like` takes over as they are; `layer` and `config_defaults` are merged."""


@dataclasses.dataclass(frozen=True)
class Family:
    """One YAML file.

    globals, layer: GGUF name -> checkpoint name, outside and inside the layers.
    has, lacks: names in layer 0 that tell the family from the others. rank: families are asked in ascending order.
    model_types: the values of config.json's model_type that may come with these names, the family's own first.
    config_keys: keys that config.json must have as well, unless model_type is the family's own.
    checkpoints: key of a storage -> repositories that store their linears so.
    floats: what plain floats without a quantization_config are.
    ternary_activations: how linears stored as ternary floats or MLX take their activations; all others take int8.
    norm_offset: the factor of a norm is this plus the stored value (not for norms of projections and plain_norms).
    delta_net: most of its layers are Gated DeltaNet. left_out: patterns of the names of tensors that are no part of the
    text model -> what they are, in words.
    sliding_pattern: every n-th layer sees the whole context, the others a window; 0: all see everything.
    activation_key: the key of config.json that names the activation function.
    formulas: ModelSpec field -> arithmetic over config.json.
    unread_switches: keys of config.json that would mean another graph, and that the family's class does not read.
    transformers_class: the class that an exported config.json names; "" if the family is never exported under its name.
    remote_code: whose code has to be trusted to load an export, where transformers has no such class.
    embedding: for embedding models, `pooling` and `append` (the token added to every text).
    """

    name: str
    title: str
    rank: int
    architecture: str
    model_types: tuple[str, ...]
    has: tuple[str, ...]
    lacks: tuple[str, ...]
    floats: Literal["ternary_floats", "master_weights"]
    ternary_activations: str
    checkpoints: Mapping[str, str]
    config_defaults: Mapping[str, Any]
    globals: Mapping[str, str]
    layer: Mapping[str, str]
    tokenizer: str
    config_keys: tuple[str, ...] = ()
    norm_offset: float = 0.0
    plain_norms: tuple[str, ...] = ()
    delta_net: bool = False
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sliding_pattern: int = 0
    activation_key: str = "hidden_act"
    unread_switches: tuple[str, ...] = ()
    transformers_class: str = ""
    remote_code: str = ""
    formulas: Mapping[str, str] = dataclasses.field(default_factory=dict)
    embedding: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def source_name(self, name: str, prefix: str = "model.") -> str:
        """Return the checkpoint's name of a GGUF tensor. prefix: what the checkpoint's layer names begin with.

        Raises Unsupported for a tensor that this family does not have.
        """
        if name in self.globals:
            # transformers keeps the head of a bigger model beside it, mlx-lm with the text model.
            outer = "" if prefix == "model.language_model." else prefix.removesuffix("model.")
            return self.globals[name].format(prefix=prefix, outer=outer)
        _, layer, part = name.split(".", 2)
        if part not in self.layer:
            raise Unsupported(f"has no place in a checkpoint of {self.title}", tensor=name)
        return f"{prefix}layers.{layer}.{self.layer[part]}"

    def offset_of(self, name: str) -> float:
        """Return what is added to the stored values of a GGUF tensor: norm_offset for a norm that has it."""
        part = name.split(".", 2)[-1] if name.startswith("blk.") else name
        is_norm = part.endswith("norm.weight") and part not in self.plain_norms
        return self.norm_offset if is_norm else 0.0

    def kind_left_out(self, name: str) -> str | None:
        """Return what a tensor of the checkpoint is a part of that is left out, in words; None for the others."""
        return next((kind for pattern, kind in self.left_out.items() if re.fullmatch(pattern, name)), None)

    def activations(self, *, storage_takes_int8: bool) -> str:
        """Return `int8-per-token` or `none`: how the inputs of linears are quantised, in a storage that does or doesn't
        imply int8 (Storage.int8_activations)."""
        return "int8-per-token" if storage_takes_int8 else self.ternary_activations

    def recognised_by(self) -> str:
        """Return the evidence in words."""
        keys = f" and config keys {', '.join(self.config_keys)}" if self.config_keys else ""
        without = f", without {', '.join(map(_short, self.lacks))}" if self.lacks else ""
        return f"tensors {', '.join(map(_short, self.has))}{without}{keys}"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A kind of model that is refused by name.

    Any one of these tells it: a model type, a key of config.json, a word in config.json or in the headers of the weight
    files, a piece of a tensor name. ternary: whether its weights have to be ternary; None if that does not matter.
    not_for: model types that are read although they have such tensors.
    """

    name: str
    reason: str
    model_types: tuple[str, ...] = ()
    config_keys: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    ternary: bool | None = None
    not_for: tuple[str, ...] = ()


@functools.cache
def families() -> tuple[Family, ...]:
    """Return every supported family, in the order of decision."""
    documents = {entry.name: yaml.safe_load(entry.read_text("utf-8")) for entry in _files() if entry.name != REFUSED}
    complete = [Family(**_complete(document, documents)) for document in documents.values()]
    return tuple(sorted(complete, key=lambda family: family.rank))


@functools.cache
def refusals() -> tuple[Refusal, ...]:
    """Return everything that is refused by name; the first match counts."""
    [entry] = (entry for entry in _files() if entry.name == REFUSED)
    return tuple(Refusal(**_tuples(document)) for document in yaml.safe_load(entry.read_text("utf-8")))


def family(name: str) -> Family:
    """Return the family of that name."""
    return next(family for family in families() if family.name == name)


def _files() -> list[Any]:
    return [entry for entry in resources.files(__package__).iterdir() if entry.name.endswith(".yaml")]


def _complete(document: dict[str, Any], documents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a family's document with what it inherits from the family that `like` names."""
    completed = dict(document)
    if parent := completed.pop("like", None):
        base = _complete(documents[f"{parent}.yaml"], documents)
        for key in ("layer", "config_defaults"):
            completed[key] = {**base[key], **completed.get(key, {})}
        completed = {**{key: base[key] for key in INHERITED if key in base}, **completed}
    return _tuples(completed)


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def _short(name: str) -> str:
    return name.removesuffix(".weight")

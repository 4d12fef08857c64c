"""What each checkpoint family is: data in the YAML files here. Adding one is adding a file and its test.

A family is a skeleton: tensor names, norms, scalings, defaults. How its linears are stored (packed, masters, ternary
floats, MLX) is the checkpoint's own matter, decided in recognition.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

import yaml

Form = Literal["packed", "online", "exact", "absmean", "mlx"]
FORMS: dict[Form, str] = {
    "packed": "packed uint8 codes and a weight_scale",
    "online": "float masters, absmean once",
    "exact": "floats that are ternary already: codes and scales recovered from the values",
    "absmean": "plain floats: refused without --quantize absmean",
    "mlx": "MLX 2-bit: uint32 codes, scales and biases a group",
}
"""How linears are stored, in the words of `tritpack families`."""
REFUSED = "refused.yaml"


@dataclasses.dataclass(frozen=True)
class Family:
    """One YAML file. `globals` and `layer` map GGUF names to checkpoint names.

    has, lacks: names in layer 0 that tell the family. model_types: those that may come with them, its own first.
    config_keys: keys of config.json that must be there as well, unless model_type is the family's own.
    floats: what floats without a quantization_config are, `absmean` masters or `exact` ternary values.
    ternary_activations: how exact ternary floats take their activations; all other forms take int8 per token.
    norm_offset: the factor of a norm is this plus what is stored (not of the projection norms).
    sliding_pattern: every how many layers one sees everything; 0: all do.
    formulas: ModelSpec field -> arithmetic over config.json.
    """

    name: str
    title: str
    rank: int
    architecture: str
    model_types: tuple[str, ...]
    has: tuple[str, ...]
    lacks: tuple[str, ...]
    floats: Literal["exact", "absmean"]
    ternary_activations: str
    checkpoints: Mapping[Form, str]
    config_defaults: Mapping[str, Any]
    globals: Mapping[str, str]
    layer: Mapping[str, str]
    tokenizer: str
    config_keys: tuple[str, ...] = ()
    norm_offset: float = 0.0
    sliding_pattern: int = 0
    activation_key: str = "hidden_act"
    formulas: Mapping[str, str] = dataclasses.field(default_factory=dict)
    embedding: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def source_name(self, name: str, prefix: str = "model.") -> str:
        """The checkpoint's name of a GGUF tensor; prefix is what its layer names begin with."""
        if name in self.globals:
            return self.globals[name].format(prefix=prefix, outer=prefix.removesuffix("model."))
        _, layer, part = name.split(".", 2)
        return f"{prefix}layers.{layer}.{self.layer[part]}"

    def activations(self, form: Form) -> str:
        """`int8-per-token` or `none`: how what enters the linears of such a checkpoint is quantised."""
        return self.ternary_activations if form in ("exact", "mlx") else "int8-per-token"

    def recognised_by(self) -> str:
        """The evidence, in words."""
        keys = f" and config keys {', '.join(self.config_keys)}" if self.config_keys else ""
        without = f", without {', '.join(map(_short, self.lacks))}" if self.lacks else ""
        return f"tensors {', '.join(map(_short, self.has))}{without}{keys}"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What is refused by name: any model type, config key, word in config or file headers, or piece of a tensor name
    that tells it."""

    name: str
    reason: str
    model_types: tuple[str, ...] = ()
    config_keys: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()


@functools.cache
def families() -> tuple[Family, ...]:
    """Every supported family, in the order of decision."""
    documents = {entry.name: yaml.safe_load(entry.read_text("utf-8")) for entry in _files() if entry.name != REFUSED}
    made = [Family(**_complete(document, documents)) for document in documents.values()]
    return tuple(sorted(made, key=lambda family: family.rank))


@functools.cache
def refusals() -> tuple[Refusal, ...]:
    """Everything refused by name, first match first."""
    [entry] = (entry for entry in _files() if entry.name == REFUSED)
    return tuple(Refusal(**_tuples(document)) for document in yaml.safe_load(entry.read_text("utf-8")))


def family(name: str) -> Family:
    """The family of that name."""
    return next(each for each in families() if each.name == name)


def _files() -> list[Any]:
    return [entry for entry in resources.files(__package__).iterdir() if entry.name.endswith(".yaml")]


def _complete(document: dict[str, Any], documents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A family's document with what it inherits: `like` names the one that it begins with."""
    own = dict(document)
    if parent := own.pop("like", None):
        base = _complete(documents[f"{parent}.yaml"], documents)
        for key in ("layer", "config_defaults"):
            own[key] = {**base[key], **own.get(key, {})}
        inherited = ("globals", "norm_offset", "sliding_pattern", "activation_key", "formulas", "tokenizer")
        own = {**{key: base[key] for key in inherited if key in base}, **own}
    return _tuples(own)


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def _short(name: str) -> str:
    return name.removesuffix(".weight")

"""Reads the config of a Qwen3.5 hybrid as a ModelSpec, and the rotation of a pack: the oracle's own reading.

Configs are transformers' Qwen3_5TextConfig, flat or nested, and those of mlx-vlm's packs of schema 1 and 2, whose own
Python is never run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.tensors import F32, Tensor
from tritpack.formats.delta_net import DeltaNet
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.hadamard import Rotation
from tritpack.formats.inputs import read_input
from tritpack.formats.model_spec import ModelSpec, shortest_float

PACK = "prism_hadamard_qwen35"
MODEL_TYPES = ("qwen3_5", "qwen3_5_text", PACK)
KEYS = "prism.hadamard."
CONSTANTS = {
    "version": (1,), "transform": ("normalized-sylvester-walsh-hadamard",), "axis": ("input-last-dimension",),
    "sign_mode": ("explicit", "identity"),
}  # fmt: skip
Config = Mapping[str, Any]


class DenseRotation(Rotation):
    """A rotation by its definition: products with H as a matrix, in float64, and no butterflies."""

    def forward(self, x: F32) -> F32:
        return self._turned(x * self._signs(x))

    def inverse(self, z: F32) -> F32:
        plain: F32 = self._turned(z) * self._signs(z)
        return plain

    def _turned(self, x: F32) -> F32:
        blocks = x.reshape(-1, self.block).astype(np.float64) @ hadamard_matrix(self.block)
        return blocks.reshape(x.shape).astype(np.float32)

    def _signs(self, x: F32) -> F32 | np.float32:
        return self.signs[x.shape[-1]] if self.signs else np.float32(1)


@functools.cache
def hadamard_matrix(block: int) -> npt.NDArray[np.float64]:
    """Return the symmetric matrix H, float64 (block, block), by its recursion [[H, H], [H, -H]] / sqrt(2)."""
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), matrix) / np.sqrt(2.0)
    return matrix


def is_hybrid(folder: Path) -> bool:
    """Whether the config of a checkpoint folder says that it is a Qwen3.5 hybrid; False if it cannot be read."""
    try:
        config = json.loads(read_input(folder / "config.json"))
        inner = config.get("text_config") or {}
        return config.get("model_type") in MODEL_TYPES or inner.get("model_type") in MODEL_TYPES
    except (Unreadable, OSError, ValueError, AttributeError):
        return False


def read_hybrid_spec(config: Config, *, tied: bool, ternary_gates: bool, rotation: Rotation | None) -> ModelSpec:
    """Return the spec of the text model. config: with the keys of `text_config` in place of the outer ones.

    tied, ternary_gates, rotation: what follows from the tensors.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if config.get("hidden_act", "silu") != "silu" or config.get("attention_bias"):
        raise Unsupported("it has another activation than Qwen3.5, or a bias")
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise Unsupported(f"rope scaling {rope.get('rope_type')!r} cannot be run in a hybrid")
    if config["linear_key_head_dim"] != config["linear_value_head_dim"]:
        raise Unsupported("its linear keys and values have heads of different widths")
    if config.get("attn_output_gate") is False:
        raise Unsupported("its attention has no output gate, which no graph here has")
    layers, every = config["num_hidden_layers"], config.get("full_attention_interval", 4)
    kinds = config.get("layer_types") or [
        "linear_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)
    ]
    if other := set(kinds) - {"linear_attention", "full_attention"}:
        raise Unsupported(f"layers of kind {sorted(other)[0]!r} cannot be run in a hybrid")
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 0.25))
    return ModelSpec(
        architecture="qwen35",
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        layers=layers,
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        context_length=config["max_position_embeddings"],
        rope_theta=shortest_float(rope.get("rope_theta") or config["rope_theta"]),
        norm_eps=shortest_float(config["rms_norm_eps"]),
        activation="silu",
        tied=tied,
        sub_norms=False,
        qk_norms=True,
        int8_activations=False,
        rotary_dim=int(config["head_dim"] * share),
        rope_sections=_sections(rope.get("mrope_section") or ()),
        delta_net=DeltaNet(
            key_heads=config["linear_num_key_heads"],
            value_heads=config["linear_num_value_heads"],
            state_size=config["linear_key_head_dim"],
            conv_taps=config["linear_conv_kernel_dim"],
            recurrent=tuple(kind == "linear_attention" for kind in kinds),
            ternary_gates=ternary_gates,
        ),
        rotation=rotation,
    )


def _sections(listed: Any) -> tuple[int, ...]:
    """The shares of the rotary pairs as GGUF has them: four numbers, of which a model of images uses three."""
    sections = tuple(int(section) for section in listed)
    return (*sections, *[0] * (4 - len(sections))) if sections else ()


def read_rotation(
    folder: Path, config: Config, tensors: Mapping[str, Tensor], modules: Mapping[str, str]
) -> Rotation | None:
    """Return the rotation of a pack; None if nothing says that there is one. What hadamard.json, `modules` of
    config.json and the tensors `.signs` say of it has to agree.

    modules: the checkpoint's module of each matrix by GGUF name. Raises Unsupported for another contract, Unreadable
    for one that contradicts itself.
    """
    said = config.get("hadamard_config")
    marked = (folder / "hadamard.json").exists() or any(name.endswith(".signs") for name in tensors)
    if said is None and not marked:
        return None
    if Path(str(said)).name != said:
        raise Unreadable(f"config.json: hadamard_config is {said!r}, expected the name of a file beside it")
    keys = {key.removeprefix(KEYS): value for key, value in json.loads(read_input(folder / said)).items()}
    for key, known in CONSTANTS.items():
        if keys.get(key) not in known:
            raise Unsupported(f"{said}: {KEYS}{key} is {keys.get(key)!r}, known is {' or '.join(map(str, known))}")
    gguf_names = {f"{module}.weight": f"{name}.weight" for name, module in modules.items()}
    weights, tables = (
        frozenset(gguf_names[name] for name in keys.get(key, ())) for key in ("weight_names", "inverse_weight_names")
    )
    block, signs = keys["block_size"], _signs(keys)
    stated = {str(module["path"]): module["block"] for module in config.get("modules", ())}
    for name, module in modules.items():
        own = stated.get(module.removeprefix("language_model."), 0)
        turned = f"{name}.weight" in weights | tables
        if own != (right := block if turned else 0):
            raise Unreadable(f"config.json: modules has block {own} for it, {said} has {right}", tensor=module)
        if turned and signs:
            _check_signs(module, tensors, signs)
    return DenseRotation(block, signs, weights, tables, bool(keys.get("gdn_v_grouped", False)))


def _signs(keys: Mapping[str, Any]) -> dict[int, F32]:
    if keys["sign_mode"] == "identity":
        return {}
    widths = [int(width) for width in keys["sign_widths"]]
    values = np.array(keys["sign_values"], np.float32)
    if len(values) != sum(widths) or not (np.abs(values) == 1).all():
        raise Unreadable(f"{KEYS}sign_values are not {sum(widths)} values of 1 and -1")
    return dict(zip(widths, np.split(values, np.cumsum(widths)[:-1])))


def _check_signs(module: str, tensors: Mapping[str, Tensor], signs: Mapping[int, F32]) -> None:
    stored = tensors.get(f"{module}.signs")
    if stored is None:
        raise Unreadable("the checkpoint does not have it", tensor=f"{module}.signs")
    if not np.array_equal(stored.floats(), signs.get(stored.shape[0], np.zeros(0, np.float32))):
        raise Unreadable(f"it is not what {KEYS}sign_values has for its width", tensor=stored.name)

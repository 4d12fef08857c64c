"""A checkpoint folder of a Qwen3.5 hybrid, read by code of its own and fed to runtime/hybrid_reference.py.

Rotated weights are taken back to the plain basis here: L H diag(s) is multiplied out in float64 with H as a matrix, so
that no transform is left and a mistake in that of formats/hadamard.py cannot hide. Floats are transformers' (`model.`
or `model.language_model.`), packs are mlx-vlm's of schema 2, whose own Python is never run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.tensors import F32, Tensor, open_tensors
from tritpack.formats.delta_net import DeltaNet
from tritpack.formats.errors import Unreadable, Unsupported, locating
from tritpack.formats.inputs import read_input
from tritpack.formats.model_spec import ModelSpec
from tritpack.runtime import hybrid_reference

NAMES = {
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_qkv": "linear_attn.in_proj_qkv", "attn_gate": "linear_attn.in_proj_z", "ssm_out": "linear_attn.out_proj",
    "ssm_beta": "linear_attn.in_proj_b", "ssm_alpha": "linear_attn.in_proj_a", "ssm_conv1d": "linear_attn.conv1d",
    "ssm_norm": "linear_attn.norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
"""Name in a layer of a GGUF file -> in a layer of the checkpoint, both without `.weight`."""
OFFSET_NORMS = ("attn_norm", "post_attention_norm", "attn_q_norm", "attn_k_norm", "output_norm")
"""Norms that transformers stores as their factor less one."""
PACK = "prism_hadamard_qwen35"


class HybridOracle:
    """A checkpoint as transformers and mlx-vlm understand it: `spec`, weights in the plain basis, and logits.

    Raises Unreadable for a checkpoint that is missing or makes no sense, Unsupported for one of another kind.
    """

    def __init__(self, folder: Path) -> None:
        try:
            config = json.loads(read_input(folder / "config.json"))
            self._tensors, _ = open_tensors(folder)
            self._is_pack = config.get("model_type") == PACK
            if self._is_pack and (config["schema_version"], config["gdn_activation_layout"]) != (2, "grouped"):
                raise Unsupported("the pack is of another schema than 2 with grouped heads", path=folder)
            modules = config.get("modules", []) if self._is_pack else []
            self._blocks = {str(module["path"]): int(module["block"]) for module in modules}
            inner = {**config, **config.get("text_config", {})}
            self._prefix, self._head = _places(self._tensors)
            with locating(path=folder):
                self.spec = _spec(inner, tied=self._head is None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise Unreadable(f"the checkpoint makes no sense: {type(error).__name__}: {error}", path=folder) from error

    def logits(self, tokens: Sequence[int]) -> F32:
        """Return the logits of one sequence, float32 (tokens, vocab)."""
        return hybrid_reference.forward(self.spec, self, tokens)

    def rows(self, name: str, rows: npt.NDArray[np.int64]) -> F32:
        return self.array(name)[rows]

    def array(self, name: str) -> F32:
        part = name.removesuffix(".weight").rpartition(".")[2]
        if name.endswith("ssm_a"):
            log = self._floats(self._layer(name) + "linear_attn.A_log").astype(np.float64)
            return (-np.exp(log)).astype(np.float32)
        if name.endswith("ssm_dt.bias"):
            return self._floats(self._layer(name) + "linear_attn.dt_bias")
        if part == "ssm_conv1d":  # (channels, 1, taps), in a pack (channels, taps, 1)
            values = self._floats(self._layer(name) + "linear_attn.conv1d.weight")
            return values.reshape(len(values), -1)
        if part in OFFSET_NORMS:
            values = self._floats(self._module(name) + ".weight")
            return values if self._is_pack else np.float32(1) + values
        return self._matrix(self._module(name))

    def _layer(self, name: str) -> str:
        return f"{self._prefix}layers.{name.split('.')[1]}."

    def _module(self, name: str) -> str:
        """Return the module of a GGUF tensor."""
        stem = name.removesuffix(".weight")
        if stem == "output" and self._head is not None:
            return self._head
        tables = {"token_embd": "embed_tokens", "output_norm": "norm"}
        return self._prefix + tables[stem] if stem in tables else self._layer(name) + NAMES[stem.split(".")[2]]

    def _floats(self, name: str) -> F32:
        if name not in self._tensors:
            raise Unreadable("the checkpoint does not have it", tensor=name)
        return self._tensors[name].floats()

    def _matrix(self, module: str) -> F32:
        """Return a matrix in the plain basis, float32 (rows, cols)."""
        if f"{module}.scales" not in self._tensors:
            return self._floats(f"{module}.weight")
        values = self._unpacked(module)
        block = self._blocks.get(module.removeprefix("language_model."), 0)
        if block == 0:
            return values
        rotated = values.reshape(-1, block).astype(np.float64) @ hadamard_matrix(block)  # one product, not one per row
        return (rotated.reshape(values.shape) * self._floats(f"{module}.signs")).astype(np.float32)

    def _unpacked(self, module: str) -> F32:
        """Return a matrix of MLX's 2-bit codes, sixteen to a word from the low bits up: code times scale plus bias."""
        words = self._tensors[f"{module}.weight"].array()
        codes = (words[:, :, None] >> np.arange(0, 32, 2, dtype=np.uint32)) & 3
        if (codes == 3).any():
            raise Unsupported(f"{(codes == 3).sum()} codes are 3, so it is not ternary", tensor=f"{module}.weight")
        scales, biases = self._floats(f"{module}.scales"), self._floats(f"{module}.biases")
        grouped = codes.reshape(*scales.shape, -1).astype(np.float32)
        return (grouped * scales[..., None] + biases[..., None]).reshape(len(words), -1)


def hadamard_matrix(block: int) -> npt.NDArray[np.float64]:
    """Return the symmetric matrix H, float64 (block, block), by its recursion [[H, H], [H, -H]] / sqrt(2)."""
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), matrix) / np.sqrt(2.0)
    return matrix


def _places(tensors: Mapping[str, Tensor]) -> tuple[str, str | None]:
    """Return what precedes `layers.`, and the module of the head; None for a head that is the embedding."""
    [table] = [name for name in tensors if name.endswith("embed_tokens.weight") and not name.startswith("mtp.")]
    head = next((name for name in tensors if name.endswith("lm_head.weight")), None)
    return table.removesuffix("embed_tokens.weight"), head.removesuffix(".weight") if head else None


def _spec(config: Mapping[str, Any], *, tied: bool) -> ModelSpec:
    """Return the spec of config.json's text model, as transformers' Qwen3_5TextConfig reads it."""
    rope = config["rope_parameters"]
    if config["hidden_act"] != "silu" or rope.get("rope_type", "default") != "default" or config.get("attention_bias"):
        raise Unsupported("it has another activation, rope or bias than Qwen3.5")
    if config["linear_key_head_dim"] != config["linear_value_head_dim"]:
        raise Unsupported("its linear keys and values have heads of different widths")
    layers, every = config["num_hidden_layers"], config.get("full_attention_interval", 4)
    kinds = config.get("layer_types") or [
        "linear_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)
    ]
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
        rope_theta=float(rope["rope_theta"]),
        norm_eps=float(config["rms_norm_eps"]),
        activation="silu",
        tied=tied,
        sub_norms=False,
        qk_norms=True,
        int8_activations=False,
        rotary_dim=int(config["head_dim"] * rope["partial_rotary_factor"]),
        rope_sections=(*rope["mrope_section"], 0)[:4] if "mrope_section" in rope else (),
        delta_net=DeltaNet(
            key_heads=config["linear_num_key_heads"],
            value_heads=config["linear_num_value_heads"],
            state_size=config["linear_key_head_dim"],
            conv_taps=config["linear_conv_kernel_dim"],
            recurrent=tuple(kind == "linear_attention" for kind in kinds),
        ),
    )

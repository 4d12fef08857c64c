"""Small Qwen3.5 hybrids with random weights: plain arrays, and GGUF files of them in every basis and order of heads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats.delta_net import DeltaNet
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.hadamard import HEAD, LINEARS, TABLE, Rotation
from tritpack.formats.layouts.catalog import LAYOUTS, type_of
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.ternary import TernaryTensor

F32 = npt.NDArray[np.float32]
SPEC = ModelSpec(
    "qwen35", vocab_size=48, hidden_size=32, intermediate_size=48, layers=4, heads=4, kv_heads=2, head_dim=16,
    context_length=512, rope_theta=1e7, norm_eps=1e-6, activation="silu", tied=False, sub_norms=False, qk_norms=True,
    int8_activations=False, rotary_dim=4, rope_sections=(1, 1, 0, 0),
    delta_net=DeltaNet(key_heads=2, value_heads=6, state_size=8, conv_taps=4, recurrent=(True, True, True, False)),
)  # fmt: skip


class Arrays:
    """Random weights of a spec in the plain basis and transformers' order of heads."""

    def __init__(self, spec: ModelSpec = SPEC, seed: int = 0) -> None:
        self.spec = spec
        rng = np.random.default_rng(seed)
        self.values: dict[str, F32] = {}
        for name, shape in spec.tensor_shapes().items():
            value = rng.standard_normal(shape).astype(np.float32)
            if len(shape) == 2 and "conv1d" not in name:
                value /= np.float32(np.sqrt(shape[1]))
            if name.endswith("norm.weight"):
                value = np.float32(1) + np.float32(0.1) * value
            self.values[name] = -np.abs(value) if name.endswith("ssm_a") else value

    def array(self, name: str) -> F32:
        return self.values[name]

    def rows(self, name: str, rows: npt.NDArray[np.int64]) -> F32:
        return self.values[name][rows]


def rotation_for(spec: ModelSpec, block: int, *, signed: bool = True, grouped: bool = True) -> Rotation:
    """A rotation of all that may be rotated."""
    kinds = [name for name in spec.tensor_shapes() if name.split(".")[2:3] and name.split(".")[2] in LINEARS]
    rng = np.random.default_rng(block)
    widths = {spec.tensor_shapes()[name][1] for name in kinds}
    signs = {width: rng.choice(np.array([-1, 1], np.float32), width) for width in sorted(widths)} if signed else {}
    weights = frozenset(kinds) | (frozenset() if spec.tied else {HEAD})
    return Rotation(block, signs, weights, frozenset({TABLE}), grouped)


def write_hybrid(path: Path, arrays: Arrays, rotation: Rotation | None = None, **changed: Any) -> Path:
    """Write a GGUF file of float32 tensors as the vendor's converter orders them. changed: further or other keys."""
    stored = {name: _as_gguf(arrays.spec, name, values, rotation) for name, values in arrays.values.items()}
    plans = [TensorPlan(name, values.shape, 0, values.nbytes) for name, values in stored.items()]
    pieces = ([np.ascontiguousarray(values).reshape(-1).view(np.uint8)] for values in stored.values())
    write_gguf(path, {**_keys(arrays.spec), **_contract(rotation), **changed}, plans, pieces)
    return path


def write_ternary_hybrid(path: Path, spec: ModelSpec, layout: str = "pq2_0", seed: int = 0) -> Path:
    """Write a GGUF file of random codes with a scale per 128 weights, in the basis that spec.rotation says, as they are
    in the file; gates and vectors are float32."""
    rng = np.random.default_rng(seed)
    linears = {*spec.linear_names(), TABLE, HEAD}
    plans, pieces = [], []
    for name, values in Arrays(spec, seed).values.items():
        if name in linears:
            rows, cols = values.shape
            scales = rng.uniform(0.02, 0.1, (rows, cols // 128)).astype(np.float16).astype(np.float32)
            tensor = TernaryTensor(rng.integers(-1, 2, (rows, cols)).astype(np.int8), scales)
            type_id, data = type_of(layout).type_id, LAYOUTS[layout].pack(tensor)
        else:
            type_id, data = 0, np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        plans.append(TensorPlan(name, values.shape, type_id, data.size))
        pieces.append([data])
    write_gguf(path, {**_keys(spec), **_contract(spec.rotation)}, plans, pieces)
    return path


def _as_gguf(spec: ModelSpec, name: str, values: F32, rotation: Rotation | None) -> F32:
    """A tensor with value heads in the order of the file, then folded into its basis: L = (W diag(s)) H."""
    assert spec.delta_net is not None
    part, heads, keys = name.split(".", 2)[-1], spec.delta_net.value_heads, spec.delta_net.key_heads
    places = [k * (heads // keys) + j for j in range(heads // keys) for k in range(keys)]
    if part in ("attn_qkv.weight", "ssm_conv1d.weight"):
        first = 2 * spec.delta_net.key_width
        tail = values[first:].reshape(heads, -1)[places].reshape(values[first:].shape)
        values = np.concatenate([values[:first], tail])
    elif part in ("attn_gate.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_a", "ssm_dt.bias"):
        values = values.reshape(heads, -1)[places].reshape(values.shape)
    elif part == "ssm_out.weight" and not (rotation and rotation.grouped_heads):
        values = values.reshape(len(values), heads, -1)[:, places].reshape(values.shape)
    if rotation is None or name not in rotation.weights | rotation.tables:
        return values
    block = rotation.block
    matrix = np.array([[(-1) ** bin(i & j).count("1") for j in range(block)] for i in range(block)]) / np.sqrt(block)
    signed = values.astype(np.float64) * (rotation.signs[values.shape[1]] if rotation.signs else 1)
    return (signed.reshape(-1, block) @ matrix).reshape(values.shape).astype(np.float32)


def _keys(spec: ModelSpec) -> dict[str, Any]:
    net = spec.delta_net
    assert net is not None
    sizes = {
        "block_count": spec.layers, "context_length": 512, "embedding_length": spec.hidden_size,
        "feed_forward_length": spec.intermediate_size, "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads, "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim, "rope.dimension_count": spec.rotary_dim,
        "ssm.conv_kernel": net.conv_taps, "ssm.state_size": net.state_size, "ssm.group_count": net.key_heads,
        "ssm.time_step_rank": net.value_heads, "ssm.inner_size": net.value_width, "full_attention_interval": 4,
        "rope.freq_base": spec.rope_theta, "attention.layer_norm_rms_epsilon": spec.norm_eps,
        "rope.dimension_sections": np.array(spec.rope_sections, np.int32),
    }  # fmt: skip
    return {"general.architecture": "qwen35", **{f"qwen35.{key}": value for key, value in sizes.items()}}


def _contract(rotation: Rotation | None) -> dict[str, Any]:
    if rotation is None:
        return {}
    keys: dict[str, Any] = {
        "version": 1, "block_size": rotation.block, "transform": "normalized-sylvester-walsh-hadamard",
        "axis": "input-last-dimension", "sign_mode": "explicit" if rotation.signs else "identity",
        "weight_names": sorted(rotation.weights), "inverse_weight_names": sorted(rotation.tables),
        "gdn_v_grouped": rotation.grouped_heads,
    }  # fmt: skip
    if rotation.signs:
        keys["sign_widths"] = np.array(list(rotation.signs), np.int32)
        keys["sign_values"] = np.concatenate(list(rotation.signs.values())).astype(np.int32)
    return {f"prism.hadamard.{key}": value for key, value in keys.items()}


TERNARY = dataclasses.replace(
    SPEC, vocab_size=64, hidden_size=128, intermediate_size=256, heads=2, kv_heads=1, head_dim=64, rotary_dim=16,
    rope_sections=(4, 2, 2, 0), delta_net=DeltaNet(2, 6, 128, 4, (True, True, True, False)),
)  # fmt: skip
"""One whose matrices have groups of 128, with inputs of three widths."""
ROTATED = dataclasses.replace(TERNARY, rotation=rotation_for(TERNARY, 64))
TIED = dataclasses.replace(SPEC, tied=True)
"""The same with the embedding as its head."""

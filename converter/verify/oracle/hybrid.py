"""A checkpoint folder of a Qwen3.5 hybrid, read by code of its own and fed to runtime/hybrid_reference.py.

What is rotated is multiplied by a dense matrix (DenseRotation), so that a mistake in the transform of
formats/hadamard.py cannot hide. Floats are transformers' (`model.`
or `model.language_model.`), packs are mlx-vlm's of schema 1 and 2 and MLX's plain 2 bits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.verify.oracle import codes
from tritpack.converter.verify.oracle.codes import Coded
from tritpack.converter.verify.oracle.hybrid_config import PACK, is_hybrid, read_hybrid_spec, read_rotation
from tritpack.converter.verify.oracle.hybrid_outputs import HybridOutputs
from tritpack.converter.verify.oracle.oracle import DAMAGE, Oracle
from tritpack.converter.verify.oracle.rounding import EXACTLY, StoredTypes
from tritpack.converter.verify.oracle.tensors import F32, Rows, Tensor, open_tensors
from tritpack.formats.errors import Unreadable, Unsupported, locating
from tritpack.formats.inputs import read_input

NAMES = {
    "attn_norm.weight": "input_layernorm.weight", "post_attention_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight", "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight", "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight", "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_qkv.weight": "linear_attn.in_proj_qkv.weight", "attn_gate.weight": "linear_attn.in_proj_z.weight",
    "ssm_out.weight": "linear_attn.out_proj.weight", "ssm_beta.weight": "linear_attn.in_proj_b.weight",
    "ssm_alpha.weight": "linear_attn.in_proj_a.weight", "ssm_conv1d.weight": "linear_attn.conv1d.weight",
    "ssm_norm.weight": "linear_attn.norm.weight", "ssm_a": "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias",
    "ffn_gate.weight": "mlp.gate_proj.weight", "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}  # fmt: skip
"""Name in a layer of a GGUF file -> in a layer of the checkpoint."""
OFFSET_NORMS = ("attn_norm", "post_attention_norm", "attn_q_norm", "attn_k_norm", "output_norm")
"""Norms that transformers stores as their factor less one."""


class HybridOracle(HybridOutputs):
    """An Oracle of a hybrid's checkpoint folder. Raises Unreadable and Unsupported."""

    quantizes_floats = False

    def __init__(self, folder: Path, stored: StoredTypes = EXACTLY) -> None:
        self._stored = stored
        try:
            with locating(path=folder):
                self.config: dict[str, Any] = dict(json.loads(read_input(folder / "config.json")))
                self._tensors, _ = open_tensors(folder)
                self._read(folder)
        except DAMAGE as error:
            raise Unreadable(f"the checkpoint makes no sense: {type(error).__name__}: {error}", path=folder) from error

    def _read(self, folder: Path) -> None:
        if self.config.get("model_type") == PACK:
            schema, heads = self.config["schema_version"], self.config["gdn_activation_layout"]
            if schema not in (1, 2) or heads != "grouped":
                raise Unsupported("the pack is of another schema than 1 or 2 with grouped heads")
        bits = (self.config.get("quantization") or self.config.get("quantization_config") or {}).get("bits", 2)
        if bits != 2:
            raise Unsupported(f"it is quantised to {bits} bits, so it is not ternary")
        inner = {**self.config, **(self.config.get("text_config") or {})}
        [table] = [name for name in self._tensors if name.endswith("embed_tokens.weight") and "mtp." not in name]
        prefix = table.removesuffix("embed_tokens.weight")
        head = next((name for name in self._tensors if name.endswith("lm_head.weight")), None)
        names = {"token_embd.weight": table, "output_norm.weight": f"{prefix}norm.weight"}
        names |= {} if head is None else {"output.weight": head}
        layers = inner["num_hidden_layers"]
        if not isinstance(layers, int) or not 0 < layers <= len(self._tensors):
            raise Unreadable(f"{layers!r} layers cannot be in {len(self._tensors)} tensors")
        for layer in range(layers):
            names |= {f"blk.{layer}.{ours}": f"{prefix}layers.{layer}.{own}" for ours, own in NAMES.items()}
        self._names = {ours.removesuffix(".weight"): own for ours, own in names.items()}
        matrices = {
            ours: own.removesuffix(".weight")
            for ours, own in self._names.items()
            if own.endswith(".weight") and own in self._tensors and len(self._tensors[own].shape) == 2
        }
        self.rotation = read_rotation(folder, self.config, self._tensors, matrices)
        gates = [t for name, t in self._tensors.items() if name.endswith(("in_proj_a.weight", "in_proj_b.weight"))]
        # mlx-lm and mlx-vlm add 1 to the norms where they turn the axes of the convolutions, (channels, 1, taps), and
        # store them so.
        turned = (t.shape[-1] == 1 for name, t in self._tensors.items() if name.endswith("conv1d.weight"))
        self._norms_are_factors = next(turned, False)
        ternary_gates = bool(gates) and all(self._looks_ternary(gate) for gate in gates)
        self.spec = read_hybrid_spec(inner, tied=head is None, ternary_gates=ternary_gates, rotation=self.rotation)
        self._check_tensors()

    def _looks_ternary(self, tensor: Tensor) -> bool:
        return tensor.kind == "U32" or codes.looks_ternary(tensor)

    def _check_tensors(self) -> None:
        """Check that every tensor is there, in its shape, and that the matrices are of a kind that is read here."""
        read = set()
        for gguf_name, shape in self.spec.tensor_shapes().items():
            name = self._names[gguf_name.removesuffix(".weight")]
            if name not in self._tensors:
                raise Unreadable("the checkpoint does not have it", tensor=name)
            tensor = self._tensors[name]
            packed = tensor.kind == "U32"
            expected = (shape[0], shape[1] // 16) if packed and len(shape) == 2 else shape
            found = tuple(size for size in tensor.shape if size != 1) if "conv1d" in name else tensor.shape
            if found != expected:
                raise Unreadable(f"it is {tensor.kind} {list(tensor.shape)}, expected {list(shape)}", tensor=name)
            module = name.removesuffix(".weight")
            if packed:
                self._check_groups(module, shape)
            read |= {name, *(f"{module}.{part}" for part in ("scales", "biases", "signs"))}
        self.unused = sorted(set(self._tensors) - read)

    def _check_groups(self, module: str, shape: tuple[int, ...]) -> None:
        """Check that packed codes have scales and biases beside them, of groups that tile the matrix."""
        for part in ("scales", "biases"):
            if (groups := self._tensors.get(f"{module}.{part}")) is None:
                raise Unreadable("the checkpoint does not have it", tensor=f"{module}.{part}")
            if len(groups.shape) != 2 or groups.shape[0] != shape[0] or shape[-1] % max(groups.shape[1], 1):
                raise Unreadable(f"it is {list(groups.shape)}, not groups of {list(shape)}", tensor=groups.name)

    # -- what the source holds, exactly --------------------------------------------------------------------------------

    def norm(self, name: str) -> F32 | None:
        if name not in self._names or self._names[name] not in self._tensors:
            return None
        values = self._tensors[self._names[name]].floats()
        if name.endswith("ssm_a"):
            return (-np.exp(values.astype(np.float64))).astype(np.float32)
        adds_one = not self._norms_are_factors and name.rpartition(".")[2] in OFFSET_NORMS
        return np.float32(1) + values if adds_one else values

    def _linear(self, name: str) -> Coded:
        if (coded := self._coded(name, slice(None))) is None:
            raise Unsupported("it is not ternary, though others of the checkpoint are", tensor=self._names[name])
        return coded

    def linear_rows(self, name: str) -> None:
        return None

    def table_codes(self, name: str) -> Coded | None:
        return self._coded(name, slice(None))

    def _coded(self, name: str, rows: Rows) -> Coded | None:
        """Codes and scales of a matrix; of floats that are ternary already all rows, of others None."""
        tensor = self._tensors[self._names[name]]
        return self._mlx(tensor, rows) if tensor.kind == "U32" else codes.recovered(tensor)

    def _rows(self, name: str, rows: Rows) -> F32:
        tensor = self._tensors[self._names[name]]
        if tensor.kind == "U32":
            found, scales = self._mlx(tensor, rows)
            return found.astype(np.float32) * np.repeat(scales, found.shape[1] // scales.shape[1], axis=1)
        values = tensor.floats(rows)  # of a convolution (channels, 1, taps) or, in a pack, (channels, taps, 1)
        return values.reshape(len(values), -1)


def open_folder(folder: Path, stored: StoredTypes = EXACTLY, *, quantize: str | None = None) -> Oracle:
    """Return the oracle of a checkpoint folder of either kind. quantize: see Oracle."""
    return HybridOracle(folder, stored) if is_hybrid(folder) else Oracle(folder, stored, quantize=quantize)

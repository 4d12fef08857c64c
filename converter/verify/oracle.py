"""The second opinion: a Microsoft BitNet checkpoint folder read by short code of its own, fed to runtime/reference.py.

Imports neither families, ternarize, layouts nor the C library, so that a mistake in any of them cannot hide here. It
knows only what transformers does with `config.json` and safetensors, and stops with Unsupported where it does not.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from formats.errors import Unreadable, Unsupported
from formats.model_spec import ModelSpec, shortest_float
from runtime import reference

F32 = npt.NDArray[np.float32]
HEAD_ROWS = 8192
MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
}


class Oracle:
    """A checkpoint folder as transformers understands it: `spec`, weights on demand, and logits.

    rounded: given a GGUF name (`token_embd` or `output`) and float32 rows, what the file's type makes of them; the
    oracle then computes with those values, so that an asked-for rounding is no deviation.
    Raises Unreadable for a checkpoint that is missing or makes no sense, Unsupported for one of another kind.
    """

    def __init__(self, folder: Path, rounded: Callable[[str, F32], F32] = lambda name, rows: rows) -> None:
        self._rounded = rounded
        try:
            self.config: dict[str, Any] = dict(json.loads((folder / "config.json").read_text("utf-8")))
            self._tensors = dict(item for name in _weight_files(folder) for item in _open(folder / name))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
            raise Unreadable(f"{folder}: the checkpoint cannot be read: {error}") from error
        self._refuse_other_kinds(folder)
        try:
            self.spec = self._spec()
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise Unreadable(f"{folder}: config.json makes no sense: {type(error).__name__} {error}") from error

    def _refuse_other_kinds(self, folder: Path) -> None:
        quantization = self.config.get("quantization_config") or {}
        known = isinstance(quantization, dict) and quantization.get("quant_method") == "bitnet"
        if not known or not self.has("model.layers.0.self_attn.attn_sub_norm.weight"):
            raise Unsupported(
                f"{folder}: the oracle knows only microsoft/bitnet-b1.58 checkpoints",
                hint="verify needs a source with quant_method bitnet and attn_sub_norm tensors",
            )
        linear_class = quantization.get("linear_class", "bitlinear")
        mode = quantization.get("quantization_mode", "offline")
        scaling = self.config.get("rope_scaling") or self.config.get("rope_parameters") or {}
        kind = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, dict) else scaling
        if linear_class not in ("autobitlinear", "bitlinear") or mode not in ("offline", "online"):
            raise Unsupported(f"{folder}: the oracle does not know linear_class {linear_class!r} with mode {mode!r}")
        for what, given in {
            "use_rms_norm": quantization.get("use_rms_norm"),
            "attention_bias": self.config.get("attention_bias"),
            f"rope scaling {kind!r}": kind != "default",
        }.items():
            if given:
                raise Unsupported(f"{folder}: the oracle does not know {what}")
        self.multiplies = linear_class == "autobitlinear"

    def _spec(self) -> ModelSpec:
        c = self.config
        rope = {**c, **(c.get("rope_parameters") or {})}
        return ModelSpec(
            architecture="bitnet-b1.58",
            vocab_size=c["vocab_size"],
            hidden_size=c["hidden_size"],
            intermediate_size=c["intermediate_size"],
            layers=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            kv_heads=c.get("num_key_value_heads") or c["num_attention_heads"],
            head_dim=c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"],
            context_length=c.get("max_position_embeddings", 2048),
            rope_theta=shortest_float(rope.get("rope_theta", 500000.0)),
            norm_eps=shortest_float(c.get("rms_norm_eps", 1e-5)),
            activation=c.get("hidden_act", "relu2"),
            tied=bool(c.get("tie_word_embeddings", False)) or not self.has("lm_head.weight"),
        )

    def has(self, name: str) -> bool:
        return name in self._tensors

    def logits(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[F32]:
        """See reference.forward."""
        return reference.forward(self.spec, self, sequences, **options)

    # -- the Weights protocol of runtime/reference.py ------------------------------------------------------------------

    def embedding(self, tokens: npt.NDArray[np.int64]) -> F32:
        return self._rounded("token_embd", self._rows("model.embed_tokens.weight", tokens))

    def norm(self, name: str) -> F32 | None:
        return self._float("model.norm.weight" if name == "output_norm" else self._module(name) + ".weight")

    def linear(self, name: str) -> tuple[npt.NDArray[np.int8], np.float32]:
        module = self._module(name)
        kind, shape, raw = self._stored(f"{module}.weight")
        if kind == "U8":
            packed = raw.reshape(shape)
            codes = np.concatenate([(packed >> shift) & 3 for shift in (0, 2, 4, 6)]).astype(np.int8) - np.int8(1)
            stored = self._float(f"{module}.weight_scale").reshape(())
            return codes, np.float32(stored) if self.multiplies else np.float32(1) / np.float32(stored)
        masters = self._float(f"{module}.weight")
        mean = np.float32(max(np.abs(masters).mean(dtype=np.float64), 1e-5))
        return np.clip(np.rint(masters * (np.float32(1) / mean)), -1, 1).astype(np.int8), mean

    def head(self) -> Iterator[F32]:
        name = "token_embd" if self.spec.tied else "output"
        for first in range(0, self.spec.vocab_size, HEAD_ROWS):
            yield self._rounded(name, self.original_rows(name, first, min(first + HEAD_ROWS, self.spec.vocab_size)))

    # ------------------------------------------------------------------------------------------------------------------

    def original_rows(self, name: str, first: int, last: int) -> F32:
        """Rows [first, last) of `token_embd` or `output` as the checkpoint has them, float32."""
        source = "model.embed_tokens.weight" if name == "token_embd" else "lm_head.weight"
        return self._rows(source, slice(first, last))

    def _module(self, name: str) -> str:
        _, layer, part = name.split(".")
        return f"model.layers.{layer}.{MODULES[part]}"

    def _stored(self, name: str) -> tuple[str, list[int], npt.NDArray[np.uint8]]:
        if name not in self._tensors:
            raise Unreadable(f"the checkpoint has no tensor {name!r}")
        return self._tensors[name]

    def _float(self, name: str) -> F32:
        kind, shape, raw = self._stored(name)
        return _widen(kind, raw).reshape(shape)

    def _rows(self, name: str, rows: npt.NDArray[np.int64] | slice) -> F32:
        kind, shape, raw = self._stored(name)
        return _widen(kind, np.ascontiguousarray(raw.reshape(shape[0], -1)[rows]).reshape(-1)).reshape(-1, shape[1])


def _weight_files(folder: Path) -> list[str]:
    """As transformers: one file, else what the index names, else every shard."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        return ["model.safetensors"]
    if index.exists():
        return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    return sorted(path.name for path in folder.glob("model*.safetensors"))


def _open(path: Path) -> list[tuple[str, tuple[str, list[int], npt.NDArray[np.uint8]]]]:
    with open(path, "rb") as stream:
        data = np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    (size,) = struct.unpack("<Q", data[:8].tobytes())
    header = json.loads(data[8 : 8 + size].tobytes())
    header.pop("__metadata__", None)
    return [
        (name, (entry["dtype"], entry["shape"], data[8 + size :][slice(*entry["data_offsets"])]))
        for name, entry in header.items()
    ]


def _widen(kind: str, raw: npt.NDArray[np.uint8]) -> F32:
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind in ("F16", "F32"):
        return raw.view("<f2" if kind == "F16" else "<f4").astype(np.float32)
    raise Unsupported(f"the oracle does not read {kind} tensors")

"""HybridSpec: the hyperparameters of a Qwen3.5 hybrid, GGUF architecture `qwen35`, and its tensors.

Three of four layers are Gated DeltaNet, a linear recurrence; the others are attention with an output gate. Names and
keys are those of llama.cpp's converter (conversion/qwen.py), the graph that of transformers' Qwen3_5ForCausalLM.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.errors import Unreadable

if TYPE_CHECKING:
    import numpy.typing as npt

    from tritpack.formats.hadamard import Rotation

SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "rotary_dim",
    "key_heads", "value_heads", "state_size", "conv_taps",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class HybridSpec:
    """A hybrid's hyperparameters. Sizes are in elements.

    rotary_dim: values of each head that RoPE turns. key_heads, value_heads, state_size: of a Gated DeltaNet layer;
    keys and values are state_size wide. conv_taps: tokens that its convolution sees. recurrent: for each layer
    whether it is one. rotation: the basis of rotated matrices, or None.
    Raises Unreadable for impossible values.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    key_heads: int
    value_heads: int
    state_size: int
    conv_taps: int
    recurrent: tuple[bool, ...]
    rope_theta: float
    norm_eps: float
    tied: bool
    rotation: Rotation | None = None

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
                raise Unreadable(f"{name} is {value!r}, expected a positive 31-bit integer")
        for many, few in (("heads", "kv_heads"), ("value_heads", "key_heads")):
            if getattr(self, many) % getattr(self, few):
                raise Unreadable(f"{many} is {getattr(self, many)}, expected a multiple of {few} {getattr(self, few)}")
        if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise Unreadable(f"rotary_dim is {self.rotary_dim}, expected an even part of head_dim {self.head_dim}")
        for name in ("rope_theta", "norm_eps"):
            if not 1e-30 < getattr(self, name) < 1e38:
                raise Unreadable(f"{name} is {getattr(self, name)!r}, expected a positive number that float32 can hold")
        if len(self.recurrent) != self.layers:
            raise Unreadable(f"{len(self.recurrent)} entries say which layers recur, expected {self.layers}")

    @property
    def key_width(self) -> int:
        """Columns of the queries, and of the keys, of a Gated DeltaNet layer."""
        return self.key_heads * self.state_size

    @property
    def value_width(self) -> int:
        """Columns of the values of a Gated DeltaNet layer."""
        return self.value_heads * self.state_size

    def head_order(self) -> npt.NDArray[np.int64]:
        """Return, for each place of a value head in GGUF (tiled), its number in transformers (grouped).

        Place p uses key head p mod K, head v uses key head v // r, with V = K r value heads.
        """
        return np.arange(self.value_heads).reshape(self.key_heads, -1).T.reshape(-1)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor that the model must have, by GGUF name, as numpy sees it."""
        table = (self.vocab_size, self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": table, "output_norm.weight": (self.hidden_size,)}
        if not self.tied:
            shapes["output.weight"] = table
        for layer, recurrent in enumerate(self.recurrent):
            parts = self._delta_net() if recurrent else self._attention()
            parts |= {"attn_norm.weight": (self.hidden_size,), "post_attention_norm.weight": (self.hidden_size,)}
            parts |= {f"{name}.weight": (self.intermediate_size, self.hidden_size) for name in ("ffn_gate", "ffn_up")}
            parts["ffn_down.weight"] = (self.hidden_size, self.intermediate_size)
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in parts.items()}
        return shapes

    def _delta_net(self) -> dict[str, tuple[int, ...]]:
        hidden, mixed = self.hidden_size, 2 * self.key_width + self.value_width
        return {
            "attn_qkv.weight": (mixed, hidden),
            "attn_gate.weight": (self.value_width, hidden),
            "ssm_out.weight": (hidden, self.value_width),
            "ssm_alpha.weight": (self.value_heads, hidden),
            "ssm_beta.weight": (self.value_heads, hidden),
            "ssm_conv1d.weight": (mixed, self.conv_taps),
            "ssm_norm.weight": (self.state_size,),
            "ssm_a": (self.value_heads,),
            "ssm_dt.bias": (self.value_heads,),
        }

    def _attention(self) -> dict[str, tuple[int, ...]]:
        hidden, query, key = self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "attn_q.weight": (2 * query, hidden),  # each head's query, then its gate
            "attn_k.weight": (key, hidden),
            "attn_v.weight": (key, hidden),
            "attn_output.weight": (hidden, query),
            "attn_q_norm.weight": (self.head_dim,),
            "attn_k_norm.weight": (self.head_dim,),
        }

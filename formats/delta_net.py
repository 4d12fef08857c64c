"""DeltaNet: the Gated DeltaNet layers of a Qwen3.5 hybrid, their tensors, and the order of their value heads.

Such a layer is a linear recurrence in place of attention. A hybrid has attention with an output gate in its other
layers. Names are those of llama.cpp's converter (conversion/qwen.py), the graph is that of transformers'
Qwen3_5ForCausalLM.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.errors import Unreadable

if TYPE_CHECKING:
    import numpy.typing as npt

SIZES = ("key_heads", "value_heads", "state_size", "conv_taps")
RECURRENT_LINEARS = ("attn_qkv", "attn_gate", "ssm_out")
GATES = ("ssm_alpha", "ssm_beta")
"""Narrow matrices, one row for each value head: floats, or ternary as the rest."""
FLOATS = ("ssm_conv1d", "ssm_a", "ssm_dt")
"""What is computed with in float32."""
NORM = "ssm_norm"
MIXED = ("attn_qkv.weight", "ssm_conv1d.weight")
"""Tensors whose last rows are those of value heads, after those of queries and keys."""
BY_HEAD = ("attn_gate.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_a", "ssm_dt.bias")
"""Tensors whose rows, or elements, are all of value heads."""


def at_intervals(interval: int, layers: int) -> tuple[bool, ...]:
    """Return which layers recur if every `interval`-th attends; all for 0."""
    return tuple(interval == 0 or (layer + 1) % interval != 0 for layer in range(layers))


@dataclasses.dataclass(frozen=True)
class DeltaNet:
    """The sizes of a hybrid's Gated DeltaNet layers.

    key_heads, value_heads: heads of queries and keys, and of values; each is state_size wide. conv_taps: tokens that
    the convolution sees. recurrent: for each layer of the model whether it is one. ternary_gates: whether the matrices
    in GATES are ternary. Raises Unreadable for impossible values.
    """

    key_heads: int
    value_heads: int
    state_size: int
    conv_taps: int
    recurrent: tuple[bool, ...]
    ternary_gates: bool = False

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
                raise Unreadable(f"{name} is {value!r}, expected a positive 31-bit integer")
        if self.value_heads % self.key_heads:
            raise Unreadable(f"value_heads is {self.value_heads}, expected a multiple of key_heads {self.key_heads}")

    @property
    def key_width(self) -> int:
        """Columns of the queries, and of the keys."""
        return self.key_heads * self.state_size

    @property
    def value_width(self) -> int:
        """Columns of the values."""
        return self.value_heads * self.state_size

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the ternary matrices of such a layer, in file order."""
        return (*RECURRENT_LINEARS, *(GATES if self.ternary_gates else ()))

    @property
    def interval(self) -> int | None:
        """n if every n-th layer attends and no other, 0 if none attends, None if they are otherwise."""
        interval = next((layer + 1 for layer, recurs in enumerate(self.recurrent) if not recurs), 0)
        return interval if self.recurrent == at_intervals(interval, len(self.recurrent)) else None

    def shapes(self, hidden: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of such a layer by its name without `blk.N.`, in file order.

        hidden: columns of the residual stream.
        """
        mixed = 2 * self.key_width + self.value_width
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

    def head_order(self) -> npt.NDArray[np.int64]:
        """Return, for each place of a value head in GGUF (tiled), its number in transformers (grouped).

        Place p uses key head p mod K, head v uses key head v // r, with V = K r value heads.
        """
        return np.arange(self.value_heads).reshape(self.key_heads, -1).T.reshape(-1)

    def row_order(self, part: str) -> npt.NDArray[np.int64] | None:
        """Return, for each row of a tensor in GGUF, its row in transformers: int64 (rows,). None if they are equal.

        part: its name without `blk.N.`.
        """
        if part not in (*MIXED, *BY_HEAD) or self.key_heads in (1, self.value_heads):
            return None
        if part in MIXED:
            first = 2 * self.key_width
            return np.concatenate([np.arange(first), first + self.value_order()])
        return self.value_order() if part == "attn_gate.weight" else self.head_order()

    def value_order(self) -> npt.NDArray[np.int64]:
        """Return, for each of the values of a token in GGUF, its place in transformers: int64 (value_width,)."""
        return (self.head_order()[:, None] * self.state_size + np.arange(self.state_size)).reshape(-1)

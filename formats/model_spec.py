"""ModelSpec: one model's hyperparameters and switches, in the field's terms, to and from GGUF metadata.

What converter and runtime tell each other. Shapes of tensors are derived here and nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from formats.errors import Unreadable, Unsupported

ACTIVATIONS = ("relu2", "silu")
"""`hidden_act` of config.json, verbatim. relu2 is max(x, 0) ** 2."""

IMPLIED_ACTIVATION = {"bitnet-b1.58": "relu2", "bitnet-25": "relu2", "bitnet": "silu"}
"""What files without `<arch>.hidden_activation` mean; all of them were written by other tools."""

SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "context_length",
)  # fmt: skip
LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "ffn_norm")
SUB_NORMS = ("attn_sub_norm", "ffn_sub_norm")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Sizes are in elements; `rope_theta` is the base of the rotary frequencies, `norm_eps` that of every RMSNorm."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    rope_theta: float
    norm_eps: float
    activation: str
    tied: bool = True
    sub_norms: bool = True

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
                raise Unreadable(f"{name} is {value!r}, expected a positive 31-bit integer")
        for name in ("rope_theta", "norm_eps"):
            value = getattr(self, name)
            # What float32 would make infinite or zero means nothing to any engine.
            if not isinstance(value, float) or not 1e-30 < value < 1e38:
                raise Unreadable(f"{name} is {value!r}, expected a positive number that float32 can hold")
        if self.heads % self.kv_heads:
            raise Unreadable(f"{self.heads} attention heads are not a multiple of {self.kv_heads} key-value heads")
        if self.head_dim % 2:
            raise Unreadable(f"head_dim {self.head_dim} is odd; rotary embedding needs pairs")
        if not isinstance(self.activation, str) or self.activation not in ACTIVATIONS:
            raise Unsupported(
                f"activation function {self.activation!r} is not known",
                hint=f"supported: {', '.join(ACTIVATIONS)}",
            )

    def linear_shape(self, linear: str) -> tuple[int, int]:
        """(rows, cols) = (outputs, inputs) of one of LINEARS."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "attn_q": (query, self.hidden_size),
            "attn_k": (key, self.hidden_size),
            "attn_v": (key, self.hidden_size),
            "attn_output": (self.hidden_size, query),
            "ffn_gate": (self.intermediate_size, self.hidden_size),
            "ffn_up": (self.intermediate_size, self.hidden_size),
            "ffn_down": (self.hidden_size, self.intermediate_size),
        }[linear]

    def norm_size(self, norm: str) -> int:
        """Width of one of NORMS or SUB_NORMS, or of `output_norm`."""
        return {"attn_sub_norm": self.heads * self.head_dim, "ffn_sub_norm": self.intermediate_size}.get(
            norm, self.hidden_size
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """GGUF name -> [rows, columns] of every tensor the model must have, in file order."""
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocab_size, self.hidden_size),
            "output_norm.weight": (self.hidden_size,),
        }
        if not self.tied:
            shapes["output.weight"] = (self.vocab_size, self.hidden_size)
        for layer in range(self.layers):
            for norm in NORMS + (SUB_NORMS if self.sub_norms else ()):
                shapes[f"blk.{layer}.{norm}.weight"] = (self.norm_size(norm),)
            for linear in LINEARS:
                shapes[f"blk.{layer}.{linear}.weight"] = self.linear_shape(linear)
        return shapes

    def linear_names(self) -> list[str]:
        """GGUF names of the ternary tensors, in file order."""
        return [f"blk.{layer}.{linear}.weight" for layer in range(self.layers) for linear in LINEARS]

    def inverse_frequencies(self) -> npt.NDArray[np.float32]:
        """float32 (head_dim / 2,): 1 / theta ** (2 i / head_dim), each step rounded to float32 as transformers does.

        The power is taken in decimal arithmetic, so that no libm can change a bit of it.
        """
        base = Decimal(self.rope_theta)
        powers = [float(base ** (Decimal(2 * i) / self.head_dim)) for i in range(self.head_dim // 2)]
        return np.float32(1) / np.array(powers, np.float32)

    def to_metadata(self) -> dict[str, Any]:
        """The GGUF keys that say all this, as bitnet.cpp and ik_llama.cpp read them."""
        a = self.architecture
        return {
            f"{a}.vocab_size": self.vocab_size,
            f"{a}.context_length": self.context_length,
            f"{a}.embedding_length": self.hidden_size,
            f"{a}.block_count": self.layers,
            f"{a}.feed_forward_length": self.intermediate_size,
            f"{a}.rope.dimension_count": self.head_dim,
            f"{a}.attention.head_count": self.heads,
            f"{a}.attention.head_count_kv": self.kv_heads,
            f"{a}.attention.key_length": self.head_dim,
            f"{a}.attention.value_length": self.head_dim,
            f"{a}.attention.layer_norm_rms_epsilon": self.norm_eps,
            f"{a}.rope.freq_base": self.rope_theta,
            f"{a}.hidden_activation": self.activation,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], tensor_names: Mapping[str, Any]) -> ModelSpec:
        """The spec of a GGUF file. Raises Unsupported for an architecture or activation we cannot run, Unreadable for
        keys that are missing or impossible."""
        a = metadata.get("general.architecture")
        if not isinstance(a, str) or a not in IMPLIED_ACTIVATION:
            raise Unsupported(
                f"architecture {a!r} cannot be run", hint=f"supported: {', '.join(sorted(IMPLIED_ACTIVATION))}"
            )

        def need(key: str, default: Any = None) -> Any:
            value = metadata.get(f"{a}.{key}", default)
            if value is None:
                raise Unreadable(f"metadata key {a}.{key} is missing")
            return value

        def number(key: str, default: float | None = None) -> float:
            value = need(key, default)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise Unreadable(f"metadata key {a}.{key} is {value!r}, expected a number")
            return shortest_float(value)

        heads, hidden, layers = need("attention.head_count"), need("embedding_length"), need("block_count")
        for key, value in (("attention.head_count", heads), ("embedding_length", hidden), ("block_count", layers)):
            if not isinstance(value, int) or value < 1:
                raise Unreadable(f"metadata key {a}.{key} is {value!r}, expected a positive integer")
        if layers > len(tensor_names):  # before anything is made for each of them
            raise Unreadable(f"metadata key {a}.block_count is {layers}, but there are {len(tensor_names)} tensors")
        scaling = metadata.get(f"{a}.rope.scaling.type", "none")
        if scaling not in ("none", "linear") or metadata.get(f"{a}.rope.scaling.factor", 1.0) != 1.0:
            raise Unsupported(f"rope scaling of type {scaling!r} cannot be run")
        head_dim = need("rope.dimension_count", metadata.get(f"{a}.attention.key_length", hidden // heads))
        tokens = metadata.get("tokenizer.ggml.tokens")
        return cls(
            architecture=a,
            vocab_size=need("vocab_size", len(tokens) if isinstance(tokens, Sequence) else None),
            hidden_size=hidden,
            intermediate_size=need("feed_forward_length"),
            layers=layers,
            heads=heads,
            kv_heads=need("attention.head_count_kv", heads),
            head_dim=head_dim,
            context_length=need("context_length"),
            rope_theta=number("rope.freq_base", 10000.0),
            norm_eps=number("attention.layer_norm_rms_epsilon"),
            activation=need("hidden_activation", IMPLIED_ACTIVATION[a]),
            tied="output.weight" not in tensor_names,
            sub_norms="blk.0.attn_sub_norm.weight" in tensor_names,
        )


def shortest_float(value: float) -> float:
    """The shortest decimal that rounds to the same float32: 9.999999747378752e-06 was meant as 1e-05."""
    try:
        with np.errstate(over="ignore"):
            return float(str(np.float32(value)))
    except OverflowError:  # an integer of hundreds of digits
        return float("inf")

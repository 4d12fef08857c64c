"""ModelSpec: one model's hyperparameters and switches, in the field's terms.

Converter and runtime describe a model to each other by it. Shapes of tensors are derived here and nowhere else.
model_metadata.py reads it from GGUF files and writes it to them.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.delta_net import GATES, NORM, RECURRENT_LINEARS, DeltaNet
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.names import ACTIVATIONS, POOLING
from tritpack.formats.rope import RopeScaling, inverse_frequencies

if TYPE_CHECKING:
    import numpy.typing as npt

    from tritpack.formats.hadamard import Rotation

IMPLIED_ACTIVATION = {
    "bitnet-b1.58": "relu2", "bitnet-25": "relu2", "bitnet": "silu", "llama": "silu", "qwen3": "silu",
    "gemma3": "gelu_pytorch_tanh", "minicpm": "silu", "qwen35": "silu",
}  # fmt: skip
"""Every architecture that is run, and the activation of its files that have no `<arch>.hidden_activation`."""

HYBRID = "qwen35"
"""The architecture that has Gated DeltaNet layers."""
INTERLEAVED_ROPE = ("llama", "minicpm")
"""Architectures whose GGUF files hold the rows of q and k such that RoPE pairs are neighbours (2 i, 2 i + 1); in the
others, and in every transformers checkpoint, the rows of a pair are half a head apart."""

SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "context_length",
)  # fmt: skip
POSITIVE_NUMBERS = (
    "rope_theta", "norm_eps", "projection_norm_eps", "embedding_scale", "residual_scale", "logit_scale",
    "attention_scale", "local_rope_theta",
)  # fmt: skip
LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
ALL_LINEARS = (*LINEARS, *RECURRENT_LINEARS, *GATES)
"""Those of every layer, then those of Gated DeltaNet layers."""
NORMS = ("attn_norm", "ffn_norm")
HYBRID_NORMS = ("attn_norm", "post_attention_norm")
"""Norms before a hybrid's two blocks, where others have NORMS."""
SUB_NORMS = ("attn_sub_norm", "ffn_sub_norm")
QK_NORMS = ("attn_q_norm", "attn_k_norm")
POST_NORMS = ("post_attention_norm", "post_ffw_norm")
PROJECTION_NORMS = tuple(f"{linear}_norm_in" for linear in LINEARS)
OPTIONAL_NORMS = {
    "sub_norms": SUB_NORMS,
    "qk_norms": QK_NORMS,
    "post_norms": POST_NORMS,
    "projection_norms": PROJECTION_NORMS,
}
"""Switch of ModelSpec -> the norms of each layer that it stands for."""
ALL_NORMS = (*NORMS, *(norm for group in OPTIONAL_NORMS.values() for norm in group), NORM)
SCALES = ("embedding_scale", "residual_scale", "logit_scale")
TABLES = ("token_embd", "output")
ROPE_FACTORS = "rope_freqs.weight"
ACTIVATION_QUANTIZATION = {"int8-per-token": True, "none": False}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """One model's hyperparameters. Sizes are in elements.

    rope_theta: base of the rotary frequencies. norm_eps: of every RMSNorm except the projection norms, which have
    projection_norm_eps. sub_norms to projection_norms: whether the model has these norms, see OPTIONAL_NORMS.
    int8_activations: whether the inputs of ternary linears are quantised per token (A8) or stay float (A16).
    embedding_scale, residual_scale, logit_scale, attention_scale: multiply the embedding rows, what each block adds to
    the residual stream, the last hidden state, and q.k.
    sliding_layers: for each layer whether it sees only `sliding_window` positions and rotates by `local_rope_theta`;
    empty if none does.
    rotary_dim: values of each head that RoPE turns; None for all. rope_sections: how the rotary pairs are shared by the
    three positions of an image, which a text has no need of and llama.cpp asks for. delta_net: the layers that recur
    instead of attending, and with them attention whose result is gated by a second half of each head of attn_q.
    rotation: the basis of rotated matrices.

    Raises Unreadable for impossible values, Unsupported for an activation or pooling that is not known.
    """

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
    qk_norms: bool = False
    post_norms: bool = False
    projection_norms: bool = False
    projection_norm_eps: float = 1e-6
    int8_activations: bool = True
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    attention_scale: float | None = None
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float | None = None
    sliding_window: int = 0
    sliding_layers: tuple[bool, ...] = ()
    pooling: str = "none"
    rotary_dim: int | None = None
    rope_sections: tuple[int, ...] = ()
    delta_net: DeltaNet | None = None
    rotation: Rotation | None = None

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
                raise Unreadable(f"{name} is {value!r}, expected a positive 31-bit integer")
        self._check_numbers()
        if self.heads % self.kv_heads:
            raise Unreadable(f"{self.heads} attention heads are not a multiple of {self.kv_heads} key-value heads")
        if self.head_dim % 2:
            raise Unreadable(f"head_dim {self.head_dim} is odd; rotary embedding needs pairs")
        if not isinstance(self.activation, str) or self.activation not in ACTIVATIONS:
            raise Unsupported(
                f"activation function {self.activation!r} is not known",
                hint=f"supported: {', '.join(ACTIVATIONS)}",
            )
        if self.pooling not in POOLING:
            raise Unsupported(f"pooling {self.pooling!r} is not known", hint=f"supported: {', '.join(POOLING)}")
        self._check_rotary()
        self._check_window()
        if self.delta_net:
            self._check_hybrid(self.delta_net)

    def _check_hybrid(self, net: DeltaNet) -> None:
        if (found := len(net.recurrent)) != self.layers:
            raise Unreadable(f"{found} entries say which layers recur, expected {self.layers}")
        foreign = {
            "int8_activations": self.int8_activations,
            **{name: getattr(self, name) != 1.0 for name in SCALES},
            "attention_scale": self.query_key_scale() != np.float32(1) / np.sqrt(np.float32(self.head_dim)),
            "sliding_layers": bool(self.sliding_layers),
            "rope_scaling": self.rope_scaling is not None and self.rope_scaling.kind != "linear",
        }
        if names := [name for name, is_there in foreign.items() if is_there]:
            raise Unsupported(f"it is a hybrid and has {names[0]}, which no graph of a hybrid here has")

    def _check_numbers(self) -> None:
        for name in POSITIVE_NUMBERS:
            value = getattr(self, name)
            if value is None and name in ("attention_scale", "local_rope_theta"):
                continue
            # What float32 would make infinite or zero means nothing to any engine.
            if not isinstance(value, float) or not 1e-30 < value < 1e38:
                raise Unreadable(f"{name} is {value!r}, expected a positive number that float32 can hold")
        if not self.norm_eps < 1 or not self.projection_norm_eps < 1:
            raise Unreadable(f"norm_eps is {self.norm_eps!r} or {self.projection_norm_eps!r}, expected less than 1")

    def _check_rotary(self) -> None:
        turned = self.rope_width
        if not isinstance(turned, int) or isinstance(turned, bool) or not 2 <= turned <= self.head_dim or turned % 2:
            raise Unreadable(f"rotary_dim is {turned!r}, expected an even part of head_dim {self.head_dim}")
        if (scaling := self.rope_scaling) is None:
            return
        factors = len(scaling.frequency_factors)
        if scaling.kind == "factors" and factors != turned // 2:
            raise Unreadable(f"there are {factors} rotary frequency factors, expected {turned // 2}")
        if scaling.kind == "yarn" and not self.rope_theta > 1:
            raise Unreadable(f"rope_theta is {self.rope_theta!r}, and yarn needs more than 1")

    def _check_window(self) -> None:
        window = self.sliding_window
        if not isinstance(window, int) or isinstance(window, bool) or not bool(self.sliding_layers) <= window < 2**31:
            raise Unreadable(f"sliding_window is {window!r}, expected a positive 31-bit integer")
        if self.sliding_layers and len(self.sliding_layers) != self.layers:
            raise Unreadable(f"{len(self.sliding_layers)} entries say which layers slide, expected {self.layers}")

    @property
    def is_embedding_model(self) -> bool:
        """Whether the model gives one vector per text (see `pooling`) and no next token."""
        return self.pooling != "none"

    @property
    def rope_width(self) -> int:
        """Values of each head that RoPE turns."""
        return self.head_dim if self.rotary_dim is None else self.rotary_dim

    def recurs(self, layer: int) -> bool:
        """Return whether a layer is a Gated DeltaNet and has no attention."""
        return self.delta_net is not None and self.delta_net.recurrent[layer]

    def linear_shape(self, linear: str) -> tuple[int, int]:
        """(rows, cols) = (outputs, inputs) of one of ALL_LINEARS that the model has."""
        if self.delta_net and linear in (*RECURRENT_LINEARS, *GATES):
            rows, cols = self.delta_net.shapes(self.hidden_size)[f"{linear}.weight"]
            return rows, cols
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "attn_q": (2 * query if self.delta_net else query, self.hidden_size),
            "attn_k": (key, self.hidden_size),
            "attn_v": (key, self.hidden_size),
            "attn_output": (self.hidden_size, query),
            "ffn_gate": (self.intermediate_size, self.hidden_size),
            "ffn_up": (self.intermediate_size, self.hidden_size),
            "ffn_down": (self.hidden_size, self.intermediate_size),
        }[linear]

    def norm_size(self, norm: str) -> int:
        """Width of one of ALL_NORMS, or of `output_norm`."""
        if norm in PROJECTION_NORMS:
            return self.linear_shape(norm.removesuffix("_norm_in"))[1]
        if norm in QK_NORMS:
            return self.head_dim
        if self.delta_net and norm == NORM:
            return self.delta_net.state_size
        return {"attn_sub_norm": self.heads * self.head_dim, "ffn_sub_norm": self.intermediate_size}.get(
            norm, self.hidden_size
        )

    def layer_norms(self, layer: int) -> tuple[str, ...]:
        """Return the norms that a layer has, in file order."""
        if self.delta_net:
            return (*HYBRID_NORMS, *((NORM,) if self.recurs(layer) else QK_NORMS))
        return (*NORMS, *(norm for switch, group in OPTIONAL_NORMS.items() if getattr(self, switch) for norm in group))

    def layer_linears(self, layer: int) -> tuple[str, ...]:
        """Return the matrices of a layer that are always ternary, in file order."""
        if self.delta_net and self.recurs(layer):
            return (*self.delta_net.linears, *LINEARS[4:])
        return LINEARS

    def parameters(self) -> int:
        """Return how many values its tensors have."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """GGUF name -> [rows, columns] of every tensor the model must have, in file order."""
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocab_size, self.hidden_size),
            "output_norm.weight": (self.hidden_size,),
        }
        if not self.tied:
            shapes["output.weight"] = (self.vocab_size, self.hidden_size)
        if self.rope_scaling and self.rope_scaling.kind == "factors":
            shapes[ROPE_FACTORS] = (self.rope_width // 2,)
        for layer in range(self.layers):
            for norm in self.layer_norms(layer):
                shapes[f"blk.{layer}.{norm}.weight"] = (self.norm_size(norm),)
            for linear in self.layer_linears(layer):
                shapes[f"blk.{layer}.{linear}.weight"] = self.linear_shape(linear)
            if self.delta_net and self.recurs(layer):
                parts = self.delta_net.shapes(self.hidden_size)
                shapes |= {f"blk.{layer}.{part}": shape for part, shape in parts.items()}
        return shapes

    def unknown_tensors(self, names: Iterable[str]) -> list[str]:
        """Those of a file's tensors that this model has no place for; another graph would use them."""
        beside = {name.removesuffix("weight") + "scale" for name in self.linear_names()}
        return sorted(set(names) - set(self.tensor_shapes()) - beside)

    def linear_names(self) -> list[str]:
        """GGUF names of the tensors that are always ternary, in file order."""
        return [f"blk.{layer}.{part}.weight" for layer in range(self.layers) for part in self.layer_linears(layer)]

    def row_order(self, name: str) -> npt.NDArray[np.int64] | None:
        """For a tensor whose rows GGUF orders otherwise than transformers: int64 (rows,), for each row of GGUF the
        row of transformers. None for all others."""
        if self.delta_net:
            return self.delta_net.row_order(name.split(".", 2)[-1])
        part = name.removesuffix(".weight").rpartition(".")[2]
        if self.architecture not in INTERLEAVED_ROPE or part not in ("attn_q", "attn_k"):
            return None
        rows = np.arange(self.linear_shape(part)[0])
        return rows.reshape(-1, 2, self.head_dim // 2).swapaxes(1, 2).reshape(-1)

    def column_order(self, name: str) -> npt.NDArray[np.int64] | None:
        """For a matrix whose columns GGUF orders otherwise than transformers: int64 (columns,), for each column of GGUF
        that of transformers. None for all others: the columns of a rotated matrix cannot change places."""
        if self.delta_net is None or not name.endswith(".ssm_out.weight"):
            return None
        if self.delta_net.key_heads in (1, self.delta_net.value_heads) or (self.rotation and self.rotation.turns(name)):
            return None
        return self.delta_net.value_order()

    def inverse_frequencies(self, *, local: bool = False) -> npt.NDArray[np.float32]:
        """float32 (rope_width / 2,): radians per position of each rotary pair. local: of the sliding layers."""
        if local:
            return inverse_frequencies(self.local_rope_theta or self.rope_theta, self.rope_width)
        return inverse_frequencies(self.rope_theta, self.rope_width, self.rope_scaling)

    def query_key_scale(self) -> np.float32:
        """The factor of q.k: `attention_scale`, or 1 / sqrt(head_dim)."""
        if self.attention_scale is not None:
            return np.float32(self.attention_scale)
        return np.float32(np.float32(1) / np.sqrt(np.float32(self.head_dim)))


def shortest_float(value: float) -> float:
    """The shortest decimal that rounds to the same float32: 9.999999747378752e-06 was meant as 1e-05."""
    try:
        nearest = struct.unpack("f", struct.pack("f", float(value)))[0]
    except OverflowError:  # too large for a float32, or an integer of hundreds of digits
        return math.inf if value > 0 else -math.inf
    decimals = (float(f"{nearest:.{digits}g}") for digits in range(1, 10))
    return next((decimal for decimal in decimals if _same_float32(decimal, nearest)), nearest)


def _same_float32(decimal: float, nearest: float) -> bool:
    """Return whether a decimal rounds to a float32; one next to the largest may round to infinity."""
    try:
        return bool(struct.unpack("f", struct.pack("f", decimal))[0] == nearest)
    except OverflowError:
        return False

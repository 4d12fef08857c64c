"""ModelSpec: one model's hyperparameters and switches, in the field's terms, to and from GGUF metadata.

What converter and runtime tell each other. Shapes of tensors are derived here and nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats import float_types
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.rope import RopeScaling, float32_tuple, inverse_frequencies, yarn_attention_factor
from tritpack.formats.ternary import coarsest_both

ACTIVATIONS = ("relu2", "silu", "gelu_pytorch_tanh")
"""`hidden_act` of config.json, verbatim. relu2 is max(x, 0) ** 2."""

IMPLIED_ACTIVATION = {
    "bitnet-b1.58": "relu2", "bitnet-25": "relu2", "bitnet": "silu", "llama": "silu", "qwen3": "silu",
    "gemma3": "gelu_pytorch_tanh", "minicpm": "silu",
}  # fmt: skip
"""Every architecture we run, and what files without `<arch>.hidden_activation` mean."""

INTERLEAVED_ROPE = ("llama", "minicpm")
"""Architectures whose GGUF files hold the rows of q and k such that RoPE pairs are neighbours (2 i, 2 i + 1); in the
others, and in every transformers checkpoint, they stand half a head apart."""

SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "context_length",
)  # fmt: skip
LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "ffn_norm")
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
ALL_NORMS = (*NORMS, *(norm for group in OPTIONAL_NORMS.values() for norm in group))
SCALES = ("embedding_scale", "residual_scale", "logit_scale")
TABLES = ("token_embd", "output")
ROPE_FACTORS = "rope_freqs.weight"
POOLING = ("none", "mean", "cls", "last")
"""By the number that GGUF's `<arch>.pooling_type` has for it."""
ACTIVATION_QUANTIZATION = {"int8-per-token": True, "none": False}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Sizes are in elements; `rope_theta` is the base of the rotary frequencies, `norm_eps` that of every RMSNorm but
    the projection norms, which have their own. The switches name norms (see OPTIONAL_NORMS).

    int8_activations: what enters a ternary linear is quantised per token (A8); else it stays float (A16).
    The scales multiply: the embedding rows, what each block adds to the residual stream, the last hidden state, q.k.
    sliding_layers: which layers see only `sliding_window` positions, turning by `local_rope_theta`; empty for none.
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

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
                raise Unreadable(f"{name} is {value!r}, expected a positive 31-bit integer")
        for name in (
            "rope_theta", "norm_eps", "projection_norm_eps", "embedding_scale", "residual_scale", "logit_scale",
            "attention_scale", "local_rope_theta",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name in ("attention_scale", "local_rope_theta"):
                continue
            # What float32 would make infinite or zero means nothing to any engine.
            if not isinstance(value, float) or not 1e-30 < value < 1e38:
                raise Unreadable(f"{name} is {value!r}, expected a positive number that float32 can hold")
        if not self.norm_eps < 1 or not self.projection_norm_eps < 1:
            raise Unreadable(f"norm_eps is {self.norm_eps!r} or {self.projection_norm_eps!r}, expected less than 1")
        if self.heads % self.kv_heads:
            raise Unreadable(f"{self.heads} attention heads are not a multiple of {self.kv_heads} key-value heads")
        if self.head_dim % 2:
            raise Unreadable(f"head_dim {self.head_dim} is odd; rotary embedding needs pairs")
        if not isinstance(self.activation, str) or self.activation not in ACTIVATIONS:
            raise Unsupported(
                f"activation function {self.activation!r} is not known",
                hint=f"supported: {', '.join(ACTIVATIONS)}",
            )
        factors = self.rope_scaling.frequency_factors if self.rope_scaling else ()
        if self.rope_scaling and self.rope_scaling.kind == "factors" and len(factors) != self.head_dim // 2:
            raise Unreadable(f"there are {len(factors)} rotary frequency factors, expected {self.head_dim // 2}")
        window = self.sliding_window
        if not isinstance(window, int) or isinstance(window, bool) or not bool(self.sliding_layers) <= window < 2**31:
            raise Unreadable(f"sliding_window is {window!r}, expected a positive 31-bit integer")
        if self.sliding_layers and len(self.sliding_layers) != self.layers:
            raise Unreadable(f"{len(self.sliding_layers)} layers are said to slide or not, there are {self.layers}")
        if self.rope_scaling and self.rope_scaling.kind == "yarn" and not self.rope_theta > 1:
            raise Unreadable(f"rope_theta is {self.rope_theta!r}, and yarn needs more than 1")
        if self.pooling not in POOLING:
            raise Unsupported(f"pooling {self.pooling!r} is not known", hint=f"supported: {', '.join(POOLING)}")

    @property
    def is_embedding_model(self) -> bool:
        """Whether the model gives one vector a text (see `pooling`) and no next token."""
        return self.pooling != "none"

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
        """Width of one of ALL_NORMS, or of `output_norm`."""
        if norm in PROJECTION_NORMS:
            return self.linear_shape(norm.removesuffix("_norm_in"))[1]
        if norm in QK_NORMS:
            return self.head_dim
        return {"attn_sub_norm": self.heads * self.head_dim, "ffn_sub_norm": self.intermediate_size}.get(
            norm, self.hidden_size
        )

    @property
    def layer_norms(self) -> tuple[str, ...]:
        """The norms that each layer has, in file order."""
        return (*NORMS, *(norm for switch, group in OPTIONAL_NORMS.items() if getattr(self, switch) for norm in group))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """GGUF name -> [rows, columns] of every tensor the model must have, in file order."""
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocab_size, self.hidden_size),
            "output_norm.weight": (self.hidden_size,),
        }
        if not self.tied:
            shapes["output.weight"] = (self.vocab_size, self.hidden_size)
        if self.rope_scaling and self.rope_scaling.kind == "factors":
            shapes[ROPE_FACTORS] = (self.head_dim // 2,)
        for layer in range(self.layers):
            for norm in self.layer_norms:
                shapes[f"blk.{layer}.{norm}.weight"] = (self.norm_size(norm),)
            for linear in LINEARS:
                shapes[f"blk.{layer}.{linear}.weight"] = self.linear_shape(linear)
        return shapes

    def unknown_tensors(self, names: Iterable[str]) -> list[str]:
        """Those of a file's tensors that have no place in this model: another graph would use them."""
        beside = {name.removesuffix("weight") + "scale" for name in self.linear_names()}
        return sorted(set(names) - set(self.tensor_shapes()) - beside)

    def linear_names(self) -> list[str]:
        """GGUF names of the tensors that are always ternary, in file order."""
        return [f"blk.{layer}.{linear}.weight" for layer in range(self.layers) for linear in LINEARS]

    def row_order(self, name: str) -> npt.NDArray[np.int64] | None:
        """For a tensor whose rows GGUF orders otherwise than transformers: int64 (rows,), the transformers row that
        stands at each place. None for all others."""
        part = name.removesuffix(".weight").rpartition(".")[2]
        if self.architecture not in INTERLEAVED_ROPE or part not in ("attn_q", "attn_k"):
            return None
        rows = np.arange(self.linear_shape(part)[0])
        return rows.reshape(-1, 2, self.head_dim // 2).swapaxes(1, 2).reshape(-1)

    def inverse_frequencies(self, *, local: bool = False) -> npt.NDArray[np.float32]:
        """float32 (head_dim / 2,): radians a position of each rotary pair; local: of the layers that slide."""
        if local:
            return inverse_frequencies(self.local_rope_theta or self.rope_theta, self.head_dim)
        return inverse_frequencies(self.rope_theta, self.head_dim, self.rope_scaling)

    def query_key_scale(self) -> np.float32:
        """What multiplies q.k: `attention_scale`, or 1 / sqrt(head_dim)."""
        if self.attention_scale is not None:
            return np.float32(self.attention_scale)
        return np.float32(np.float32(1) / np.sqrt(np.float32(self.head_dim)))

    def to_metadata(self) -> dict[str, Any]:
        """The GGUF keys that say all this, as llama.cpp and bitnet.cpp read them; ours are `tritpack.*`."""
        a = self.architecture
        pairs: dict[str, Any] = {
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
        for key in SCALES:
            # llama.cpp's MiniCPM takes its own defaults for keys that are missing.
            if getattr(self, key) != 1.0 or a == "minicpm":
                pairs[f"{a}.{key}"] = getattr(self, key)
        if a == "minicpm":  # llama.cpp divides by this one; ours says it exactly
            pairs |= {f"{a}.logit_scale": 1.0 / self.logit_scale, "tritpack.logit_scale": self.logit_scale}
        if self.attention_scale is not None:
            pairs[f"{a}.attention.scale"] = self.attention_scale
        if self.sliding_layers:
            pairs[f"{a}.attention.sliding_window"] = self.sliding_window
            pairs[f"{a}.attention.sliding_window_pattern"] = np.array(self.sliding_layers, np.bool_)
            pairs[f"{a}.rope.freq_base_swa"] = self.local_rope_theta or self.rope_theta
        pairs |= self._scaling_metadata()
        if self.is_embedding_model:
            pairs[f"{a}.pooling_type"] = POOLING.index(self.pooling)
        if self.projection_norms:
            pairs["tritpack.projection_norm_epsilon"] = self.projection_norm_eps
        quantization = next(name for name, int8 in ACTIVATION_QUANTIZATION.items() if int8 == self.int8_activations)
        pairs["tritpack.activation_quantization"] = quantization
        return pairs

    def _scaling_metadata(self) -> dict[str, Any]:
        scaling, prefix = self.rope_scaling, f"{self.architecture}.rope.scaling"
        if scaling is None:
            return {}
        pairs: dict[str, Any] = {}
        if scaling.kind != "factors":
            pairs = {f"{prefix}.type": scaling.kind, f"{prefix}.factor": scaling.factor}
        if scaling.kind == "yarn":
            pairs[f"{prefix}.original_context_length"] = scaling.original_context
            pairs[f"{prefix}.yarn_beta_fast"] = scaling.beta_fast
            pairs[f"{prefix}.yarn_beta_slow"] = scaling.beta_slow
        implied = yarn_attention_factor(scaling.factor) if scaling.kind == "yarn" else 1.0
        if scaling.attention_factor != shortest_float(implied):
            # llama.cpp multiplies its own choice by this; ours below is the whole factor.
            pairs[f"{prefix}.attn_factor"] = scaling.attention_factor / implied
        pairs["tritpack.rope.attention_factor"] = scaling.attention_factor
        return pairs

    @classmethod
    def of_gguf(cls, file: GgufFile) -> ModelSpec:
        """The spec of a GGUF file. Raises Unsupported for an architecture or activation we cannot run, Unreadable for
        keys that are missing or impossible."""
        return _Reader(file).spec()


class _Reader:
    """The keys of one architecture, checked as they are read."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        a = file.metadata.get("general.architecture")
        if not isinstance(a, str) or a not in IMPLIED_ACTIVATION:
            raise Unsupported(
                f"architecture {a!r} cannot be run", hint=f"supported: {', '.join(sorted(IMPLIED_ACTIVATION))}"
            )
        self.architecture = a

    def get(self, key: str, default: Any = None) -> Any:
        return self.file.metadata.get(f"{self.architecture}.{key}", default)

    def need(self, key: str, default: Any = None) -> Any:
        value = self.get(key, default)
        if value is None:
            raise Unreadable(f"metadata key {self.architecture}.{key} is missing")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        return self._as_float(f"{self.architecture}.{key}", self.need(key, default))

    def ours(self, key: str, default: float) -> float:
        return self._as_float(key, self.file.metadata.get(key, default))

    def _as_float(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Unreadable(f"metadata key {key} is {value!r}, expected a number")
        return shortest_float(value)

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.file.tensors

    def spec(self) -> ModelSpec:
        heads, hidden, layers = (
            self.need("attention.head_count"),
            self.need("embedding_length"),
            self.need("block_count"),
        )
        for key, value in (("attention.head_count", heads), ("embedding_length", hidden), ("block_count", layers)):
            if not isinstance(value, int) or value < 1:
                raise Unreadable(f"metadata key {self.architecture}.{key} is {value!r}, expected a positive integer")
        if layers > len(self.file.tensors):  # before anything is made for each of them
            raise Unreadable(
                f"metadata key {self.architecture}.block_count is {layers}, "
                f"but there are {len(self.file.tensors)} tensors"
            )
        head_dim = self.need("rope.dimension_count", self.get("attention.key_length", hidden // heads))
        tokens = self.file.metadata.get("tokenizer.ggml.tokens")
        quantization = self.file.metadata.get("tritpack.activation_quantization", self._implied_quantization())
        if not isinstance(quantization, str) or quantization not in ACTIVATION_QUANTIZATION:
            raise Unsupported(f"activation quantisation {quantization!r} is not known")
        pooling = self.get("pooling_type", 0)
        if not isinstance(pooling, int) or not 0 <= pooling < len(POOLING):
            raise Unsupported(f"metadata key {self.architecture}.pooling_type is {pooling!r}, which is not known")
        sliding = self._sliding(layers)
        return ModelSpec(
            architecture=self.architecture,
            vocab_size=self.need("vocab_size", len(tokens) if isinstance(tokens, Sequence) else None),
            hidden_size=hidden,
            intermediate_size=self.need("feed_forward_length"),
            layers=layers,
            heads=heads,
            kv_heads=self.need("attention.head_count_kv", heads),
            head_dim=head_dim,
            context_length=self.need("context_length"),
            rope_theta=self.number("rope.freq_base", 10000.0),
            norm_eps=self.number("attention.layer_norm_rms_epsilon"),
            activation=self.need("hidden_activation", IMPLIED_ACTIVATION[self.architecture]),
            tied=not self.has("output"),
            **{switch: self.has(f"blk.0.{group[0]}") for switch, group in OPTIONAL_NORMS.items()},
            projection_norm_eps=self.ours("tritpack.projection_norm_epsilon", 1e-6),
            int8_activations=ACTIVATION_QUANTIZATION[quantization],
            **self._scales(hidden),
            attention_scale=None if self.get("attention.scale") is None else self.number("attention.scale"),
            rope_scaling=self._scaling(),
            local_rope_theta=self.number("rope.freq_base_swa", 10000.0) if sliding else None,
            sliding_window=self.need("attention.sliding_window") if sliding else 0,
            sliding_layers=sliding,
            pooling=POOLING[pooling],
        )

    def _implied_quantization(self) -> str:
        """BitNet's, unless scales change within a row: such models (Bonsai) are trained with float activations."""
        info = self.file.tensors.get("blk.0.ffn_down.weight")
        layout = self.file.layout_of(info) if info else None
        if info is None or layout is None:
            return "int8-per-token"
        scales = coarsest_both(layout.read_scales(self.file.bytes_of(info), info.rows, info.cols))
        return "none" if scales.shape[1] > 1 else "int8-per-token"

    def _scales(self, hidden: int) -> dict[str, Any]:
        """As llama.cpp's graphs take them: Gemma's is not in its files, MiniCPM's last one divides."""
        if self.architecture == "minicpm":
            divisor = self.number("logit_scale")
            if not divisor > 0:
                raise Unreadable(f"metadata key minicpm.logit_scale is {divisor!r}, expected a positive number")
            scales = {key: self.number(key) for key in SCALES[:2]}
            return {**scales, "logit_scale": self.ours("tritpack.logit_scale", 1.0 / divisor)}
        implied = shortest_float(hidden**0.5) if self.architecture == "gemma3" else 1.0
        return {
            "embedding_scale": self.number("embedding_scale", implied),
            **{key: self.number(key, 1.0) for key in SCALES[1:]},
        }

    def _sliding(self, layers: int) -> tuple[bool, ...]:
        if self.get("attention.sliding_window") is None:
            return ()
        # Gemma 3: every sixth layer sees everything. In other architectures the key alone says nothing.
        pattern = self.get("attention.sliding_window_pattern", 6 if self.architecture == "gemma3" else None)
        if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
            return tuple((layer + 1) % pattern != 0 for layer in range(layers))
        if isinstance(pattern, np.ndarray) and pattern.shape == (layers,):
            return tuple(map(bool, pattern))
        raise Unreadable(f"metadata key {self.architecture}.attention.sliding_window_pattern makes no sense")

    def _scaling(self) -> RopeScaling | None:
        kind = self.get("rope.scaling.type", "none")
        if not isinstance(kind, str):
            raise Unreadable(f"metadata key {self.architecture}.rope.scaling.type is no text")
        attention = self.file.metadata.get("tritpack.rope.attention_factor")
        if ROPE_FACTORS in self.file.tensors:
            info = self.file.tensors[ROPE_FACTORS]
            if info.layout not in ("f32", "f16", "bf16") or len(info.shape) != 1:
                raise Unreadable(
                    f"tensor {ROPE_FACTORS!r} is {info.layout} {list(info.shape)}, expected one row of floats"
                )
            if kind != "none":
                raise Unsupported(f"rope scaling of type {kind!r} beside {ROPE_FACTORS!r} cannot be run")
            values = float_types.decode(info.layout, self.file.bytes_of(info), 1, info.cols)[0]
            total = self.ours("tritpack.rope.attention_factor", self.number("rope.scaling.attn_factor", 1.0))
            return RopeScaling("factors", attention_factor=total, frequency_factors=float32_tuple(values))
        factor = self.number("rope.scaling.factor", 1.0)
        if kind == "none" or (kind == "linear" and factor == 1.0):
            return None
        if kind == "linear":
            return RopeScaling("linear", factor)
        if kind != "yarn":
            raise Unsupported(f"rope scaling of type {kind!r} cannot be run")
        if attention is None:
            attention = yarn_attention_factor(factor) * self.number("rope.scaling.attn_factor", 1.0)
        return RopeScaling(
            "yarn",
            factor,
            self.need("rope.scaling.original_context_length"),
            self.number("rope.scaling.yarn_beta_fast", 32.0),
            self.number("rope.scaling.yarn_beta_slow", 1.0),
            self._as_float("tritpack.rope.attention_factor", attention),
        )


def shortest_float(value: float) -> float:
    """The shortest decimal that rounds to the same float32: 9.999999747378752e-06 was meant as 1e-05."""
    try:
        with np.errstate(over="ignore"):
            return float(str(np.float32(value)))
    except OverflowError:  # an integer of hundreds of digits
        return float("inf")

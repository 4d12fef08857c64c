"""A ModelSpec to and from the keys and tensors of a GGUF file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tritpack.formats import float_types, hybrid_metadata
from tritpack.formats.delta_net import GATES
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hadamard import RECORD_KEY, rotation_of_file
from tritpack.formats.layouts.catalog import UNREAD_LAYOUTS
from tritpack.formats.model_spec import (
    ACTIVATION_QUANTIZATION,
    ALL_LINEARS,
    HYBRID,
    IMPLIED_ACTIVATION,
    OPTIONAL_NORMS,
    ROPE_FACTORS,
    SCALES,
    ModelSpec,
    shortest_float,
)  # fmt: skip
from tritpack.formats.names import POOLING
from tritpack.formats.rope import RopeScaling, float32_tuple, yarn_attention_factor
from tritpack.formats.ternary import coarsest_both

QUANTIZATION_KEY = "tritpack.activation_quantization"
"""Whether the inputs of ternary linears are quantised; no other tool has a key for it."""
MOST_LINEARS = tuple(linear for linear in ALL_LINEARS if linear not in GATES)
"""The matrices that are ternary in every ternary model."""


def from_gguf(file: GgufFile) -> ModelSpec:
    """The spec of a GGUF file. Raises Unsupported for an architecture or activation that cannot be run, Unreadable for
    keys that are missing or impossible."""
    refuse_adapter(file)
    return _Reader(file).spec()


def foreign_architecture(file: GgufFile) -> str | None:
    """Return the architecture of a file whose metadata describe a model of another one than tritpack knows; else None.

    A name without keys of its own is not one: that file is wrong, whoever reads it.
    """
    a = file.metadata.get("general.architecture")
    is_foreign = isinstance(a, str) and a not in IMPLIED_ACTIVATION and f"{a}.block_count" in file.metadata
    return a if is_foreign else None


def refuse_adapter(file: GgufFile) -> None:
    """Raise Unsupported for a file that holds the difference to a model instead of a model."""
    if file.metadata.get("general.type") == "adapter":
        hint = "merge it into its base model first: peft's merge_and_unload, or llama.cpp's llama-export-lora"
        raise Unsupported("is a LoRA adapter, the difference to a model that is not there", path=file.path, hint=hint)


def refuse_unread_layouts(file: GgufFile) -> None:
    """Raise Unsupported for a file with tensors in a ternary layout that is recognised and not decoded."""
    if (unread := next((info for info in file.tensors.values() if info.layout in UNREAD_LAYOUTS), None)) is not None:
        dialect = unread.meaning.dialect if unread.meaning else "another tool"
        raise Unsupported(
            f"is stored as {unread.layout}, the ternary layout of {dialect}, which is recognised here and not decoded",
            path=file.path,
            tensor=unread.name,
            hint="the order of its weights is not known here: convert the checkpoint that the file was made from",
        )


def require_ternary(file: GgufFile) -> None:
    """Raise Unsupported for a file whose linears are not ternary: an ordinary model, whatever its architecture, or a
    LoRA adapter."""
    refuse_adapter(file)
    refuse_unread_layouts(file)
    weights = [info for info in file.tensors.values() if 0 not in info.shape]
    in_layers = [info for info in weights if info.name.startswith("blk.")]
    linears = [info for info in in_layers if info.name.removesuffix(".weight").rpartition(".")[2] in MOST_LINEARS]
    others = [info for info in linears or weights if file.layout_of(info) is None]
    if not others or (not linears and len(others) < len(weights)):
        return
    stored = ", ".join(f"{count} x {layout}" for layout, count in Counter(info.layout for info in others).items())
    of = f"{len(others)} of its {len(linears)} linears are" if linears else "its tensors are"
    what = "is not a ternary model" if len(others) == len(linears or weights) else "is not wholly a ternary model"
    raise Unsupported(
        f"{what}: {of} stored as {stored}, {others[0].name!r} first",
        path=file.path,
        hint="tritpack reads and runs BitNet b1.58 models; tritpack inspect shows what this file holds",
    )


def to_metadata(spec: ModelSpec) -> dict[str, Any]:
    """The GGUF keys of a spec, as llama.cpp and bitnet.cpp read them; our own keys are `tritpack.*`."""
    a = spec.architecture
    pairs: dict[str, Any] = {
        f"{a}.vocab_size": spec.vocab_size,
        f"{a}.context_length": spec.context_length,
        f"{a}.embedding_length": spec.hidden_size,
        f"{a}.block_count": spec.layers,
        f"{a}.feed_forward_length": spec.intermediate_size,
        f"{a}.rope.dimension_count": spec.head_dim,
        f"{a}.attention.head_count": spec.heads,
        f"{a}.attention.head_count_kv": spec.kv_heads,
        f"{a}.attention.key_length": spec.head_dim,
        f"{a}.attention.value_length": spec.head_dim,
        f"{a}.attention.layer_norm_rms_epsilon": spec.norm_eps,
        f"{a}.rope.freq_base": spec.rope_theta,
        f"{a}.hidden_activation": spec.activation,
    }
    for key in SCALES:
        # For keys that are missing, llama.cpp's MiniCPM takes its own defaults.
        if getattr(spec, key) != 1.0 or a == "minicpm":
            pairs[f"{a}.{key}"] = getattr(spec, key)
    if a == "minicpm":  # llama.cpp divides by this one; our own key has the exact factor
        pairs |= {f"{a}.logit_scale": 1.0 / spec.logit_scale, "tritpack.logit_scale": spec.logit_scale}
    if spec.attention_scale is not None:
        pairs[f"{a}.attention.scale"] = spec.attention_scale
    if spec.sliding_layers:
        pairs[f"{a}.attention.sliding_window"] = spec.sliding_window
        pairs[f"{a}.attention.sliding_window_pattern"] = np.array(spec.sliding_layers, np.bool_)
        pairs[f"{a}.rope.freq_base_swa"] = spec.local_rope_theta or spec.rope_theta
    pairs |= _scaling_metadata(spec)
    pairs |= {f"{a}.{key}": value for key, value in hybrid_metadata.to_keys(spec).items()}
    if spec.rotation:
        pairs |= {**spec.rotation.to_metadata(spec.tensor_shapes()), RECORD_KEY: True}
    if spec.is_embedding_model:
        pairs[f"{a}.pooling_type"] = POOLING.index(spec.pooling)
    if spec.projection_norms:
        pairs["tritpack.projection_norm_epsilon"] = spec.projection_norm_eps
    quantization = next(name for name, int8 in ACTIVATION_QUANTIZATION.items() if int8 == spec.int8_activations)
    pairs[QUANTIZATION_KEY] = quantization
    return pairs


def _scaling_metadata(spec: ModelSpec) -> dict[str, Any]:
    scaling, prefix = spec.rope_scaling, f"{spec.architecture}.rope.scaling"
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
        # llama.cpp multiplies its own choice by this; our own key below has the whole factor.
        pairs[f"{prefix}.attn_factor"] = scaling.attention_factor / implied
    pairs["tritpack.rope.attention_factor"] = scaling.attention_factor
    return pairs


class _Reader:
    """The keys of one architecture, which are checked as they are read."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        a = file.metadata.get("general.architecture")
        if not isinstance(a, str) or a not in IMPLIED_ACTIVATION:
            hint = f"supported: {', '.join(sorted(IMPLIED_ACTIVATION))}"
            if a is None:
                raise Unsupported("general.architecture is missing, so that nothing says how to run it", hint=hint)
            raise Unsupported(f"architecture {a!r} cannot be run", hint=hint)
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
        is_hybrid = self.architecture == HYBRID
        heads, hidden = self.need("attention.head_count"), self.need("embedding_length")
        layers = hybrid_metadata.layer_count(self.file) if is_hybrid else self.need("block_count")
        for key, value in (("attention.head_count", heads), ("embedding_length", hidden), ("block_count", layers)):
            if not isinstance(value, int) or value < 1:
                raise Unreadable(f"metadata key {self.architecture}.{key} is {value!r}, expected a positive integer")
        if layers > len(self.file.tensors):  # before memory is taken for each of them
            raise Unreadable(
                f"metadata key {self.architecture}.block_count is {layers}, "
                f"but there are {len(self.file.tensors)} tensors"
            )
        if is_hybrid:
            special = hybrid_metadata.from_keys(self.file, layers)
        else:
            norms = {switch: self.has(f"blk.0.{group[0]}") for switch, group in OPTIONAL_NORMS.items()}
            head_dim = self.need("rope.dimension_count", self.get("attention.key_length", hidden // heads))
            special = {"head_dim": head_dim, **norms}
        quantization = self.file.metadata.get(QUANTIZATION_KEY)
        quantization = self._implied_quantization() if quantization is None else quantization
        if not isinstance(quantization, str) or quantization not in ACTIVATION_QUANTIZATION:
            raise Unsupported(f"activation quantisation {quantization!r} is not known")
        pooling = self.get("pooling_type", 0)
        if not isinstance(pooling, int) or not 0 <= pooling < len(POOLING):
            raise Unsupported(f"metadata key {self.architecture}.pooling_type is {pooling!r}, which is not known")
        sliding = self._sliding(layers)
        return ModelSpec(
            architecture=self.architecture,
            vocab_size=self.need("vocab_size", self._tokens()),
            hidden_size=hidden,
            intermediate_size=self.need("feed_forward_length"),
            layers=layers,
            heads=heads,
            kv_heads=self.need("attention.head_count_kv", heads),
            context_length=self.need("context_length"),
            rope_theta=self.number("rope.freq_base", 10000.0),
            norm_eps=self.number("attention.layer_norm_rms_epsilon"),
            activation=self.need("hidden_activation", IMPLIED_ACTIVATION[self.architecture]),
            tied=not self.has("output"),
            projection_norm_eps=self.ours("tritpack.projection_norm_epsilon", 1e-6),
            int8_activations=ACTIVATION_QUANTIZATION[quantization],
            **self._scales(hidden),
            attention_scale=None if self.get("attention.scale") is None else self.number("attention.scale"),
            rope_scaling=self._scaling(),
            local_rope_theta=self.number("rope.freq_base_swa", 10000.0) if sliding else None,
            sliding_window=self.need("attention.sliding_window") if sliding else 0,
            sliding_layers=sliding,
            pooling=POOLING[pooling],
            rotation=rotation_of_file(self.file),
            **special,
        )

    def _tokens(self) -> int | None:
        """The rows of the embedding of a hybrid; of others, how many tokens are listed."""
        table = self.file.tensors.get("token_embd.weight")
        if self.architecture == HYBRID and table is not None:
            return table.rows
        tokens = self.file.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, Sequence) else None

    def _implied_quantization(self) -> str:
        """BitNet's, unless scales change within a row: such models (Bonsai) were trained with float activations, and so
        was every hybrid."""
        if self.architecture == HYBRID:
            return "none"
        info = self.file.tensors.get("blk.0.ffn_down.weight")
        layout = self.file.layout_of(info) if info else None
        if info is None or layout is None:
            return "int8-per-token"
        scales = coarsest_both(layout.read_scales(self.file.bytes_of(info), info.rows, info.cols))
        return "none" if scales.shape[1] > 1 else "int8-per-token"

    def _scales(self, hidden: int) -> dict[str, Any]:
        """The scales as llama.cpp's graphs apply them: Gemma's is not in its files, MiniCPM's logit_scale divides."""
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
        # In Gemma 3 every sixth layer sees all positions. In other architectures the window alone says nothing of that.
        pattern = self.get("attention.sliding_window_pattern", 6 if self.architecture == "gemma3" else None)
        if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
            return tuple((layer + 1) % pattern != 0 for layer in range(layers))
        pattern = np.asarray(pattern) if isinstance(pattern, memoryview) else pattern
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

"""Which family a checkpoint belongs to, and which of its tensors the model reads: the oracle's own answer.

The names of the tensors decide and, for floats that are ternary already, their values. model_type comes last, because
1bitLLM's says `llama`, and the config of a float family does not say what it is.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tritpack.converter.verify.oracle.codes import looks_ternary
from tritpack.converter.verify.oracle.config import DEFAULTS, Config, number, read_spec
from tritpack.converter.verify.oracle.tensors import FLOATS, Tensor
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.inputs import read_input
from tritpack.formats.model_spec import LINEARS, PROJECTION_NORMS

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
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
OTHER_MODULES = {
    "bitnet": {"attn_sub_norm": "self_attn.inner_attn_ln", "ffn_sub_norm": "mlp.ffn_layernorm"},
    "gemma3": {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
"""By architecture: module names that differ from MODULES; `bitnet` is 1bitLLM's."""
TELLTALES = {
    "self_attn.attn_sub_norm": "bitnet-b1.58",
    "self_attn.inner_attn_ln": "bitnet",
    "pre_feedforward_layernorm": "gemma3",
    "self_attn.q_norm": "qwen3",
}
"""The first of these modules that a layer has decides the architecture."""
COMPATIBLE = {
    "bitnet": ("bitnet-b1.58", "bitnet"), "qwen3": ("qwen3",), "gemma3_text": ("gemma3",), "minicpm": ("minicpm",),
}  # fmt: skip
"""By model_type: the architectures that the names may lead to. A `llama` may be any of them."""
IMPLIED_TYPE = {"bitnet-b1.58": "bitnet", "bitnet": "llama", "gemma3": "gemma3_text"}
"""By architecture: the model_type whose defaults hold where config.json names none."""
POOLING = {
    "pooling_mode_lasttoken": "last", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls",
    "lasttoken": "last", "mean": "mean", "cls": "cls",
}  # fmt: skip
"""sentence-transformers' switches, and the values of `pooling_mode` that newer versions write."""
SENTENCE_MODULES = {"Transformer", "Pooling", "Normalize"}
UNREAD = re.compile(r"(\.bias|(norm\w*|_ln)\.\w+|_proj\b.*|sinks|gamma|lora_\w+.*|\.weight_scale)$")
"""Tensors that only a model with another graph has. Other unread tensors become a note and are not refused."""


@dataclasses.dataclass(frozen=True)
class LinearStorage:
    """How the linears are stored: `scaled` (codes with a weight_scale), `absmean` (master weights), `mlx`, `int2`
    (compressed-tensors), or `exact` (floats that are ternary already).

    multiplies: whether a weight_scale multiplies; else it divides.
    """

    kind: str
    multiplies: bool = True
    projection_norm: str | None = None
    projection_norm_eps: float = 1e-6


class Checkpoint:
    """A folder's config and tensors, interpreted: `storage`, `spec`, and `names`, the tensor of each GGUF name."""

    def __init__(
        self, config: Config, tensors: Mapping[str, Tensor], notes: str, folder: Path, quantize: str | None
    ) -> None:
        self.tensors = tensors
        if "hadamard" in notes or "hadamard" in json.dumps(config):
            raise Unsupported("the weights are stored in a rotated (Hadamard) basis, which cannot be run")
        self._config: Config = {**config, **(config.get("text_config") or {})}
        if self._config.get("model_type") == "gemma3":
            self._config["model_type"] = "gemma3_text"
        self._quantization: Config = self._config.get("quantization_config") or {}
        self._prefix = self._find_prefix()
        self._head = ("language_model." if self._prefix.startswith("language_model.") else "") + "lm_head.weight"
        self.architecture = self._architecture()
        self._modules = {**MODULES, **OTHER_MODULES.get(self.architecture, {})}
        self.storage = self._storage(quantize)
        pooling = self._pooling(folder)
        norm = self.storage.projection_norm
        model_type = self._config.get("model_type") or IMPLIED_TYPE.get(self.architecture, self.architecture)
        config = {**DEFAULTS[model_type], **self._config}
        if config["rope_theta"] is None:
            config["rope_theta"] = DEFAULTS[model_type]["rope_theta"]
        if config["num_hidden_layers"] > len(tensors):  # before anything is made for each of them
            raise Unreadable(f"{config['num_hidden_layers']} layers cannot be in {len(tensors)} tensors")
        self.spec = read_spec(
            config,
            self.architecture,
            tied=pooling != "none" or self._tied(bool(config["tie_word_embeddings"])),
            projection_norms=norm is not None,
            projection_norm_eps=self.storage.projection_norm_eps,
            int8_activations=self.storage.kind in ("scaled", "absmean"),
            pooling=pooling,
        )
        self._check_spared_modules()
        self.names = self._names()
        self._check_tensors()

    # -- names ---------------------------------------------------------------------------------------------------------

    def _find_prefix(self) -> str:
        """What comes before `embed_tokens` and `layers`: `model.`, nothing, or more in a class with vision."""
        table = "embed_tokens.weight"
        prefixes = [name.removesuffix(table) for name in self.tensors if name.endswith(table)]
        if len(prefixes) != 1:
            raise Unsupported(f"there are {len(prefixes)} tensors named {table}, expected one")
        return prefixes[0]

    def _in_layer(self, module: str, layer: int = 0) -> str:
        return f"{self._prefix}layers.{layer}.{module}.weight"

    def _has(self, module: str) -> bool:
        return self._in_layer(module) in self.tensors

    def _architecture(self) -> str:
        model_type = self._config.get("model_type")
        if model_type is not None and model_type not in DEFAULTS:
            raise Unsupported(f"model_type {model_type!r} is not known", hint=f"known: {', '.join(DEFAULTS)}")
        # MiniCPM has Llama's names; only its config distinguishes it.
        default = "minicpm" if model_type == "minicpm" or "scale_emb" in self._config else "llama"
        named = next((name for module, name in TELLTALES.items() if self._has(module)), default)
        if named not in COMPATIBLE.get(model_type or "llama", (named,)):
            raise Unsupported(f"the tensors are named like those of {named}, but model_type is {model_type!r}")
        return named

    def _names(self) -> dict[str, str]:
        """The checkpoint's name of every tensor that the model reads, by GGUF name without `.weight`."""
        names = {"token_embd": f"{self._prefix}embed_tokens.weight", "output_norm": f"{self._prefix}norm.weight"}
        if not self.spec.tied:
            names["output"] = self._head
        for layer in range(self.spec.layers):
            for part in (*LINEARS, *self.spec.layer_norms(0)):
                module = self._modules[part.removesuffix("_norm_in")]
                if part in PROJECTION_NORMS:
                    module += f".{self.storage.projection_norm}"
                packed = "_packed" if self.storage.kind == "int2" and part in LINEARS else ""
                names[f"blk.{layer}.{part}"] = self._in_layer(module, layer) + packed
        return names

    def _linears(self) -> list[Tensor]:
        ends = tuple(f".{self._modules[linear]}.weight" for linear in LINEARS)
        return [tensor for name, tensor in self.tensors.items() if name.endswith(ends)]

    # -- how the linears are stored ------------------------------------------------------------------------------------

    def _storage(self, quantize: str | None) -> LinearStorage:
        method, mlx = self._quantization.get("quant_method"), self._config.get("quantization")
        if method is None and "group_size" in self._quantization:
            mlx = mlx or self._quantization
        if method == "bitnet":
            return self._bitnet_storage()
        if method == "compressed-tensors":
            return self._compressed_storage()
        if method == "edgerazor" and (self._quantization | self._config).get("is_w_quantized") is True:
            method, self._quantization = None, {}  # rounded before they were saved: the values are the model
        if method is not None or (self._quantization and not mlx):
            known = "known: bitnet, compressed-tensors and MLX's with 2 bits"
            raise Unsupported(f"quantisation {method!r} is not known", hint=known)
        if self._has("self_attn.inner_attn_ln"):
            return LinearStorage("absmean")
        if self._has("self_attn.q_proj.norm"):
            return LinearStorage("absmean", projection_norm="norm")
        if mlx:
            entries = [mlx, *(entry for entry in mlx.values() if isinstance(entry, dict))]
            if any(entry.get("bits", 2) != 2 or entry.get("mode", "affine") != "affine" for entry in entries):
                raise Unsupported("MLX quantisation other than affine with 2 bits is not ternary")
            return LinearStorage("mlx")
        plain = [tensor for tensor in self._linears() if tensor.kind not in FLOATS or not looks_ternary(tensor)]
        if not plain:
            return LinearStorage("exact")
        if plain[0].kind not in FLOATS:
            message = f"it holds {plain[0].kind}, and config.json does not say how"
            raise Unsupported(message, tensor=plain[0].name)
        if quantize == "absmean":
            return LinearStorage("absmean")
        raise Unsupported(
            "it holds plain floats, so this is not a ternary model; quantising them makes another model",
            tensor=plain[0].name,
            hint="--quantize absmean asks for it",
        )

    def _bitnet_storage(self) -> LinearStorage:
        quantization = self._quantization
        linear_class = quantization.get("linear_class", "bitlinear")
        mode = quantization.get("quantization_mode", "offline")
        if linear_class not in ("autobitlinear", "bitlinear") or mode not in ("offline", "online"):
            raise Unsupported(f"linear_class {linear_class!r} with quantization_mode {mode!r} is not known")
        own_norm = "norm" if self._has("self_attn.q_proj.norm") else None
        multiplies = linear_class == "autobitlinear"
        return LinearStorage(
            "absmean" if multiplies and mode == "online" else "scaled",
            multiplies=multiplies,
            projection_norm="rms_norm" if quantization.get("use_rms_norm") else own_norm,
            projection_norm_eps=number(quantization, "rms_norm_eps", 1e-6),
        )

    def _compressed_storage(self) -> LinearStorage:
        groups = list(self._quantization["config_groups"].values())
        if not groups:
            raise Unreadable("quantization_config has an empty config_groups")
        for group in groups:
            weights, form = group["weights"], group.get("format") or self._quantization.get("format")
            is_int2 = (weights["num_bits"], weights["type"], weights["symmetric"]) == (2, "int", True)
            if form != "pack-quantized" or not is_int2 or group.get("input_activations") is not None:
                raise Unsupported(f"compressed-tensors of format {form} is known with symmetric 2-bit integers only")
        return LinearStorage("int2")

    def _check_spared_modules(self) -> None:
        """modules_to_not_convert may spare the head and the embedding, nothing else. If absent, it spares the head."""
        spared = self._quantization.get("modules_to_not_convert")
        if spared is None:
            return
        if not isinstance(spared, list) or not all(isinstance(entry, str) for entry in spared):
            raise Unreadable(f"modules_to_not_convert is {spared!r}, expected a list of names")
        for entry in spared:
            if not re.fullmatch(r"(?:[\w*-]|\\?\.)+", entry) or "**" in entry or entry.count("*") > 2:
                raise Unsupported(f"modules_to_not_convert holds {entry[:60]!r}, which could match for ever")
        # transformers: from the start to the end of a module's name, plain or as a regular expression, or as a suffix
        patterns = [re.compile(rf"(?:{entry})(?:(?<=\.)|(?=\.|$))") for entry in spared]

        def spares(module: str) -> bool:
            return any(pattern.match(module) for pattern in patterns) or module.endswith(tuple(spared))

        for tensor in self._linears():
            if spares(module := tensor.name.removesuffix(".weight")):
                raise Unsupported(f"modules_to_not_convert spares {module}, so that this linear is not ternary")
        if not self.spec.is_embedding_model and not spares(self._head.removesuffix(".weight")):
            raise Unsupported("modules_to_not_convert does not spare lm_head, so that the head is ternary too")

    # -- tables and pooling --------------------------------------------------------------------------------------------

    def _tied(self, wanted: bool) -> bool:
        """Whether the head is the embedding. As in transformers 5, one that is there and differs is not tied, whatever
        config.json says."""
        if self._head not in self.tensors:
            if not wanted:
                raise Unreadable(f"the checkpoint has no tensor {self._head!r}, and its head is not tied")
            return True
        head, table = self.tensors[self._head], self.tensors[f"{self._prefix}embed_tokens.weight"]
        return wanted and (head.kind, head.shape) == (table.kind, table.shape) and np.array_equal(head.raw, table.raw)

    def _pooling(self, folder: Path) -> str:
        if (folder / "modules.json").exists():
            listed = json.loads(read_input(folder / "modules.json"))
            steps = [entry["type"].rpartition(".")[2] for entry in listed]
            if other := set(steps) - SENTENCE_MODULES:
                raise Unsupported(f"modules.json asks for {', '.join(sorted(other))}, which cannot be run")
        files = sorted(folder.glob("*_Pooling/config.json"))
        if not files:
            return "last" if self.storage.projection_norm == "norm" else "none"
        asked = json.loads(read_input(files[0]))
        modes = [key for key, on in asked.items() if key.startswith("pooling_mode_") and on is True]
        modes += [asked["pooling_mode"]] if "pooling_mode" in asked else []
        if len(files) > 1 or len(modes) != 1 or modes[0] not in POOLING:
            asked_for = ", ".join(map(str, modes)) or "of no kind"
            raise Unsupported(f"pooling {asked_for} cannot be run", hint=f"known: {', '.join(POOLING)}")
        return POOLING[modes[0]]

    # -- what must be there, and nothing else --------------------------------------------------------------------------

    def _check_tensors(self) -> None:
        """Check that every tensor is there in its type and shape, and that there is no norm or bias that the model does
        not read: it would change the model."""
        read = set(self.names.values()) | {self._head}
        for gguf_name, shape in self.spec.tensor_shapes().items():
            name = self.names.get(gguf_name.removesuffix(".weight"))
            if name is None:
                continue  # rotary factors come from the config
            tensor = self._need(name)
            is_linear = gguf_name.rpartition(".weight")[0].rpartition(".")[2] in LINEARS
            if tensor.kind not in (*FLOATS, self._packed_kind(is_linear, len(shape))):
                raise Unsupported(f"it holds {tensor.kind}, which this family does not have", tensor=name)
            if tensor.shape != _stored_shape(tensor.kind, shape):
                message = f"it is {tensor.kind} {list(tensor.shape)}, expected {list(shape)}"
                raise Unreadable(message, tensor=name)
            read |= self._check_companions(tensor, shape, is_linear)
        self.unused = sorted(name for name in self.tensors if name not in read)
        for name in self.unused:
            if name.startswith((self._prefix, self._head.removesuffix("weight"))) and UNREAD.search(name):
                raise Unsupported(f"the checkpoint has a tensor {name!r}, which this model must not have")

    def _need(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise Unreadable(f"the checkpoint has no tensor {name!r}")
        return self.tensors[name]

    def _packed_kind(self, is_linear: bool, dimensions: int) -> str | None:
        if self.storage.kind == "mlx" and dimensions == 2:
            return "U32"
        if self.storage.kind == "int2" and is_linear:
            return "I32"
        return "U8" if self.storage.kind == "scaled" and is_linear else None

    def _check_companions(self, tensor: Tensor, shape: tuple[int, ...], is_linear: bool) -> set[str]:
        """The names of the scales that belong to a tensor. Raises Unreadable if one is missing."""
        module = tensor.name.removesuffix("_packed").removesuffix(".weight")
        if tensor.kind == "I32":
            scales, said = self._need(f"{module}.weight_scale"), self._need(f"{module}.weight_shape")
            if len(scales.shape) != 2 or scales.shape[0] != shape[0] or shape[1] % max(scales.shape[1], 1):
                raise Unreadable(f"it is {list(scales.shape)}, not groups of {list(shape)}", tensor=scales.name)
            return {scales.name, said.name}
        if tensor.kind == "U32":
            scales, biases = self._need(f"{module}.scales"), self._need(f"{module}.biases")
            groups = scales.shape[-1] if len(scales.shape) == 2 else 0
            if scales.shape != (shape[0], groups) or biases.shape != scales.shape or not groups or shape[1] % groups:
                raise Unreadable(f"it is {list(scales.shape)}, not groups of {list(shape)}", tensor=scales.name)
            return {scales.name, biases.name}
        if self.storage.kind != "scaled" or not is_linear:
            return set()
        return {self._need(f"{module}.weight_scale").name}


def _stored_shape(kind: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape in which a type stores a tensor of this shape; None where it cannot."""
    if kind == "U8":  # four rows to a byte
        return (shape[0] // 4, *shape[1:]) if shape[0] % 4 == 0 else None
    if kind in ("U32", "I32"):  # sixteen columns to a word
        return (*shape[:-1], shape[-1] // 16) if shape[-1] % 16 == 0 else None
    return shape

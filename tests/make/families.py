"""A tiny checkpoint of every family in the layout of its repositories: names, types, shards, odd keys of config.json.

Weights are random and seeded; nothing is downloaded. What went in is kept as truth: codes and multipliers by tensor.
Each family is an entry of FAMILIES, and each way of storing a linear a function of storage.py; neither knows the other.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.make.checkpoints import Tensors, read_safetensors, write_safetensors
from tests.make.storage import (
    Rng,
    Store,
    by_group,
    by_shard,
    entry,
    master_weights,
    mlx,
    packed,
    ternary_floats,
    values_of,
)
from tests.make.tokenizers import write_tokenizer
from tritpack.formats.ternary import TernaryTensor

# -- a family ----------------------------------------------------------------------------------------------------------

LINEARS = {
    "self_attn.q_proj": ("queries", "hidden"),
    "self_attn.k_proj": ("keys", "hidden"),
    "self_attn.v_proj": ("keys", "hidden"),
    "self_attn.o_proj": ("hidden", "queries"),
    "mlp.gate_proj": ("intermediate", "hidden"),
    "mlp.up_proj": ("intermediate", "hidden"),
    "mlp.down_proj": ("hidden", "intermediate"),
}
NORMS = {"input_layernorm": "hidden", "post_attention_layernorm": "hidden"}
QK_NORMS = {"self_attn.q_norm": "head_dim", "self_attn.k_norm": "head_dim"}
LAYERS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """One family, small. config: what its config.json says beyond the sizes; the keys in it come last and win.

    family, storage, granularity: as what it is to be recognised (storage: a key of `checkpoints` in the YAML files),
    and how many ternary tensors have which scales. store: what writes a linear so.
    first_quantization: a quantization_config that stands before the one that counts.
    tables: how embedding and head are stored, if they are ternary. scales_apart: never in the shard of their weight.
    centred_norms: norms store w for a factor 1 + w, but not those before projections (suffix `projection_norm`).
    """

    family: str
    storage: str
    granularity: Mapping[str, int]
    tokenizer: str
    store: Store
    config: Mapping[str, Any]
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int | None = None
    floats: str = "BF16"
    norms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    projection_norm: str | None = None
    centred_norms: bool = False
    tied: bool = False
    tables: Store | None = None
    first_quantization: Mapping[str, Any] | None = None
    prefix: str = "model."
    shards: int = 1
    scales_apart: bool = False
    sentence: bool = False
    quantize: str | None = None

    def size(self, name: str) -> int:
        head_dim = self.head_dim or self.hidden // self.heads
        derived = {"queries": self.heads * head_dim, "keys": self.kv_heads * head_dim, "head_dim": head_dim}
        return derived[name] if name in derived else int(getattr(self, name))


@dataclasses.dataclass(frozen=True)
class Made:
    """A checkpoint folder, and by tensor name the codes and multipliers that went into it (rows as stored)."""

    name: str
    folder: Path
    family: Family
    truth: Mapping[str, TernaryTensor]


Config = dict[str, Any]
Edit = Callable[[Config, Tensors], object]
"""Something done to a checkpoint's config and tensors."""
Q0, UP1 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"
Checkpoints = Callable[[str], Made]
"""A family's checkpoint by name, made once."""


def make(name: str, folder: Path) -> Made:
    """Write the checkpoint of that name into a folder, in well under a second. The same call writes the same bytes."""
    family = FAMILIES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    sizes = {
        "hidden_size": family.hidden,
        "intermediate_size": family.intermediate,
        "num_attention_heads": family.heads,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": family.kv_heads,
        **({"head_dim": family.head_dim} if family.head_dim else {}),
    }
    usual: dict[str, Any] = {"initializer_range": 0.02, "rope_scaling": None, "use_cache": True}
    if "hidden_activation" not in family.config:  # Gemma's name for it
        usual["hidden_act"] = "silu"
    words = write_tokenizer(folder, family.tokenizer, append_eos=family.sentence)
    config = {**usual, **sizes, "tie_word_embeddings": family.tied, **words, **family.config}
    text = json.dumps(config, indent=2)
    if family.first_quantization is not None:
        key = '"quantization_config": '
        text = text.replace(key, f"{key}{json.dumps(family.first_quantization)},\n  {key}")
    (folder / "config.json").write_text(text)
    tensors, truth = _tensors(family, int(config["vocab_size"]), rng)
    write_shards(folder, tensors, family.shards, scales_apart=family.scales_apart)
    if family.sentence:
        _write_sentence_files(folder, family.hidden)
    return Made(name, folder, family, truth)


def _tensors(family: Family, vocab: int, rng: Rng) -> tuple[Tensors, dict[str, TernaryTensor]]:
    tensors: Tensors = {}
    truth: dict[str, TernaryTensor] = {}

    def norm(name: str, size: int, middle: float) -> None:
        tensors[f"{name}.weight"] = entry(rng.uniform(middle - 0.4, middle + 0.4, size), family.floats)

    def matrix(module: str, shape: tuple[int, int], store: Store) -> None:
        parts, meaning = store(rng, module, shape)
        tensors.update({f"{module}.{part}": stored for part, stored in parts.items()})
        truth[f"{module}.weight"] = meaning

    def table(module: str, spread: float) -> None:
        if family.tables:
            matrix(module, (vocab, family.hidden), family.tables)
        else:
            tensors[f"{module}.weight"] = entry(rng.normal(0, spread, (vocab, family.hidden)), family.floats)

    table(f"{family.prefix}embed_tokens", 1.0)
    middle = 0.0 if family.centred_norms else 1.0
    for layer in range(LAYERS):
        stem = f"{family.prefix}layers.{layer}."
        for name, size in {**NORMS, **family.norms}.items():
            norm(stem + name, family.size(size), middle)
        for name, (rows, cols) in LINEARS.items():
            matrix(stem + name, (family.size(rows), family.size(cols)), family.store)
            if family.projection_norm:
                norm(f"{stem}{name}.{family.projection_norm}", family.size(cols), 1.0)
    norm(f"{family.prefix}norm", family.hidden, middle)
    if not family.tied and not family.sentence:
        table("lm_head", 0.1)
    return tensors, truth


def write_shards(folder: Path, tensors: Tensors, shards: int, *, scales_apart: bool = False) -> None:
    """One file, or shards with an index as transformers writes them."""
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    place = {name: index * shards // len(tensors) for index, name in enumerate(tensors)}
    if scales_apart:
        scales = [name for name in tensors if name.endswith("_scale")]
        place |= {name: (place[name.removesuffix("_scale")] + 1) % shards for name in scales}
    files = [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    for index, file in enumerate(files):
        write_safetensors(folder / file, {name: tensors[name] for name in tensors if place[name] == index})
    size = sum(len(raw) for *_, raw in tensors.values())
    weight_map = {name: files[place[name]] for name in sorted(tensors)}
    document = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document, indent=2))


def _write_sentence_files(folder: Path, hidden: int) -> None:
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}": mode == "lasttoken" for mode in ("cls_token", "mean_tokens", "max_tokens")}
    pooling = {"word_embedding_dimension": hidden, **modes, "pooling_mode_lasttoken": True, "include_prompt": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2))


# -- the families ------------------------------------------------------------------------------------------------------

ALL = 7 * LAYERS
OFFLINE = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
ONLINE = {**OFFLINE, "quantization_mode": "online"}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False}
LLAMA |= {"pretraining_tp": 1, "rms_norm_eps": 1e-5}

_MS = Family(
    family="bitnet", storage="packed", granularity={"tensor": ALL}, tokenizer="llama3", store=packed(divides=False),
    hidden=128, intermediate=256, heads=4, kv_heads=2, tied=True,
    norms={"self_attn.attn_sub_norm": "queries", "mlp.ffn_sub_norm": "intermediate"},
    config={
        "architectures": ["BitNetForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_bitnet.BitNetConfig",
            "AutoModelForCausalLM": "modeling_bitnet.BitNetForCausalLM",
        },
        "model_type": "bitnet", "hidden_act": "relu2", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "torch_dtype": "bfloat16", "quantization_config": OFFLINE,
    },
)  # fmt: skip
_HF1BIT = Family(
    family="llama", storage="packed", granularity={"tensor": ALL}, tokenizer="llama3", store=packed(divides=True),
    hidden=128, intermediate=224, heads=4, kv_heads=2,
    first_quantization={"modules_to_not_convert": None, "quant_method": "bitnet"},
    config={
        **LLAMA, "_name_or_path": "quantized_model_llama_8B_10", "is_bitnet_config": True, "rope_interleaved": False,
        "max_position_embeddings": 8192, "rope_theta": 500000.0, "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "bitnet"},
    },
)  # fmt: skip
_FALCON_E = Family(
    family="llama", storage="packed", granularity={"tensor": ALL}, tokenizer="falcon3",
    store=packed(divides=True, in_bf16=True), hidden=128, intermediate=288, heads=4, kv_heads=1, head_dim=32,
    config={
        **LLAMA, "max_position_embeddings": 32768, "rope_theta": 1000000, "dtype": "bfloat16",
        "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "bitnet"},
    },
)  # fmt: skip
_FALCON_E_FLOAT = {key: value for key, value in _FALCON_E.config.items() if key not in ("quantization_config", "dtype")}
_TRILM = Family(
    family="llama", storage="ternary_floats", granularity={"tensor": ALL}, tokenizer="neox",
    store=ternary_floats("F16"),
    hidden=96, intermediate=192, heads=6, kv_heads=6, floats="F16",
    config={
        **LLAMA, "dims_per_head": 16, "layer_norm_eps": 1e-5, "max_position_embeddings": 2048,
        "pretraining_model_parallel": 1, "rope_theta": 10000.0, "rotary_emb_base": 10000, "rotary_pct": 1.0,
        "torch_dtype": "float16", "use_parallel_residual": False,
    },
)  # fmt: skip


def _trilm(shards: int) -> Family:
    """Column-parallel layers have a scale for each part of their rows, row-parallel ones of their inputs."""
    return dataclasses.replace(
        _TRILM,
        granularity={f"rows/{shards}": 5 * LAYERS, f"cols/{shards}": 2 * LAYERS},
        store=ternary_floats("F16", by_shard(shards)),
        config={**_TRILM.config, "pretraining_model_parallel": shards},
    )


_QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768, "max_window_layers": LAYERS, "rope_theta": 1000000, "sliding_window": None,
    "use_sliding_window": False,
}  # fmt: skip
_BONSAI = Family(
    family="qwen3", storage="ternary_floats", granularity={"group 128": ALL + 2}, tokenizer="qwen2",
    store=ternary_floats("F16", by_group(128)), tables=ternary_floats("F16", by_group(128)), floats="F16",
    norms=QK_NORMS,
    hidden=256, intermediate=384, heads=8, kv_heads=2, head_dim=32, shards=3,
    config={
        **_QWEN3, "max_position_embeddings": 65536, "torch_dtype": "float16",
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16384},
    },
)  # fmt: skip
_EMBEDDING = Family(
    family="bitnet_embedding_qwen3", storage="master_weights", granularity={"tensor": ALL}, tokenizer="qwen2",
    store=master_weights("BF16"), norms=QK_NORMS, projection_norm="norm", tied=True, sentence=True, prefix="",
    hidden=96, intermediate=160, heads=4, kv_heads=2, head_dim=32,
    config={**_QWEN3, "architectures": ["Qwen3Model"], "torch_dtype": "bfloat16"},
)  # fmt: skip
_MINICPM = Family(
    family="minicpm", storage="ternary_floats", granularity={"group 32": ALL}, tokenizer="minicpm",
    store=ternary_floats("BF16", by_group(32)), tied=True, hidden=128, intermediate=192, heads=4, kv_heads=2,
    config={
        "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "attention_bias": False, "rms_norm_eps": 1e-5,
        "auto_map": {
            "AutoConfig": "configuration_minicpm.MiniCPMConfig",
            "AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM",
        },
        "dim_model_base": 32, "max_position_embeddings": 2048, "mup_denominator": 32, "rope_theta": 10000.0,
        "scale_depth": 1.4, "scale_emb": 12, "torch_dtype": "bfloat16",
    },
)  # fmt: skip
_LONGROPE = {
    "rope_type": "longrope", "short_factor": [1 + 0.05 * i for i in range(16)],
    "long_factor": [1 + 0.5 * i for i in range(16)], "original_max_position_embeddings": 512,
}  # fmt: skip

FAMILIES: dict[str, Family] = {
    "ms_2b4t_packed": _MS,
    "ms_2b4t_online": dataclasses.replace(
        _MS, storage="master_weights", store=master_weights("BF16"),
        config={**_MS.config, "quantization_config": ONLINE}
    ),
    "ms_2b4t_zeros": dataclasses.replace(
        _MS, store=packed(divides=False, zero=("0.mlp.gate_proj", "0.mlp.down_proj"))
    ),
    "onebitllm": Family(
        family="onebitllm", storage="master_weights", granularity={"tensor": ALL}, tokenizer="llama2",
        store=master_weights("F32"),
        hidden=200, intermediate=164, heads=2, kv_heads=2, floats="F32", tied=True, shards=2,
        norms={"self_attn.inner_attn_ln": "queries", "mlp.ffn_layernorm": "intermediate"},
        config={
            **LLAMA, "architectures": ["BitnetForCausalLM"], "_name_or_path": "1bitLLM/bitnet_b1_58-3B",
            "input_bits": 8, "weight_bits": 1, "max_position_embeddings": 2048, "rope_theta": 10000.0,
            "torch_dtype": "float16",
        },
    ),
    "hf1bit_llama3": _HF1BIT,
    "hf1bit_llama3_scaled_rope": dataclasses.replace(
        _HF1BIT,
        config={
            **_HF1BIT.config,
            "max_position_embeddings": 131072,
            "rope_scaling": {
                "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "falcon3": Family(
        family="llama", storage="packed", granularity={"tensor": ALL}, tokenizer="falcon3", store=packed(divides=True),
        hidden=96, intermediate=288, heads=4, kv_heads=2, head_dim=32, shards=2, scales_apart=True,
        config={
            **LLAMA, "activation": "swiglu", "parallel_attn": True, "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6, "rope_theta": 1000042, "torch_dtype": "bfloat16",
            "auto_map": {"AutoModelForCausalLM": "someone-else/another-model--modeling_other.OtherForCausalLM"},
            "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "bitnet"},
        },
    ),
    "falcon_e": _FALCON_E,
    "falcon_e_bfloat16": dataclasses.replace(
        _FALCON_E, storage="ternary_floats", store=ternary_floats("BF16"),
        config={**_FALCON_E_FLOAT, "torch_dtype": "bfloat16"}
    ),
    "falcon_e_prequantized": dataclasses.replace(
        _FALCON_E,
        storage="plain_floats",
        store=master_weights("BF16"),
        config={**_FALCON_E_FLOAT, "torch_dtype": "bfloat16"},
        quantize="absmean",
    ),
    "trilm": _TRILM,
    "trilm_2_shards": _trilm(2),
    "trilm_6_shards": _trilm(6),
    "llama_rows": dataclasses.replace(
        _TRILM, granularity={"row": ALL}, store=ternary_floats("BF16", lambda module, shape: (shape[0], 1)),
        floats="BF16"
    ),
    "embedding_qwen3": _EMBEDDING,
    "embedding_gemma3": Family(
        family="bitnet_embedding_gemma3", storage="master_weights", granularity={"tensor": ALL}, tokenizer="gemma",
        store=master_weights("BF16"), projection_norm="norm", centred_norms=True, tied=True, sentence=True,
        norms={**QK_NORMS, "pre_feedforward_layernorm": "hidden", "post_feedforward_layernorm": "hidden"},
        hidden=160, intermediate=256, heads=4, kv_heads=1, head_dim=64,
        config={
            "architectures": ["Gemma3TextModel"], "model_type": "gemma3_text", "attention_bias": False,
            "attn_logit_softcapping": None, "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": ["sliding_attention", "full_attention"], "max_position_embeddings": 2048,
            "query_pre_attn_scalar": 64, "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000.0, "rope_theta": 1000000.0,
            "sliding_window": 3, "torch_dtype": "bfloat16", "use_bidirectional_attention": False,
        },
    ),
    "bonsai_untied_yarn": _BONSAI,
    "bonsai_tied": dataclasses.replace(
        _BONSAI, granularity={"group 128": ALL + 1}, tied=True, shards=1, config={**_QWEN3, "torch_dtype": "float16"}
    ),
    "bonsai_mlx": dataclasses.replace(
        _BONSAI, storage="mlx", granularity={"group 128": ALL + 1}, store=mlx(128), tables=mlx(128), tied=True,
        shards=1,
        config={
            **_QWEN3, "torch_dtype": "float16", "quantization": {"group_size": 128, "bits": 2},
            "quantization_config": {"group_size": 128, "bits": 2},
        },
    ),
    "llama_rms_norm_packed": dataclasses.replace(
        _HF1BIT, first_quantization=None, projection_norm="rms_norm",
        config={
            **LLAMA, "max_position_embeddings": 8192, "dtype": "bfloat16", "transformers_version": "5.0.0",
            "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
            "quantization_config": {
                "quant_method": "bitnet", "linear_class": "bitlinear", "quantization_mode": "offline",
                "modules_to_not_convert": None, "use_rms_norm": True, "rms_norm_eps": 1e-4,
            },
        },
    ),
    "llama_rms_norm_online": dataclasses.replace(
        _HF1BIT, storage="master_weights", store=master_weights("BF16"), first_quantization=None,
        projection_norm="rms_norm", tied=True,
        config={
            **LLAMA, "max_position_embeddings": 8192, "rope_theta": 500000.0, "torch_dtype": "bfloat16",
            "quantization_config": {**ONLINE, "use_rms_norm": True, "rms_norm_eps": 1e-6},
        },
    ),
    "llama_online": dataclasses.replace(
        _HF1BIT, storage="master_weights", store=master_weights("BF16"), first_quantization=None,
        config={
            **LLAMA, "max_position_embeddings": 8192, "rope_theta": 500000.0, "torch_dtype": "bfloat16",
            "quantization_config": {**ONLINE, "modules_to_not_convert": ["lm_head"]},
        },
    ),
    "qwen3_packed": dataclasses.replace(
        _BONSAI, storage="packed", granularity={"tensor": ALL}, store=packed(divides=False), tables=None, floats="BF16",
        hidden=128, intermediate=192, heads=4, kv_heads=2, shards=1,
        config={**_QWEN3, "torch_dtype": "bfloat16", "quantization_config": OFFLINE},
    ),
    "bitcpm": _MINICPM,
    "bitcpm_longrope": dataclasses.replace(
        _MINICPM, granularity={"group 64": ALL}, store=ternary_floats("BF16", by_group(64)), tied=False,
        config={**_MINICPM.config, "rope_scaling": _LONGROPE},
    ),
}  # fmt: skip
"""By a name of ours; every repository of the families' tables has its like here."""

_GEMMA3 = dataclasses.replace(
    FAMILIES["embedding_gemma3"], family="gemma3", projection_norm=None, sentence=False,
    config={**FAMILIES["embedding_gemma3"].config, "architectures": ["Gemma3ForCausalLM"], "sliding_window": 4},
)  # fmt: skip
_STORAGES: dict[str, tuple[Store, Mapping[str, Any]]] = {
    "packed": (packed(divides=False), {"quantization_config": OFFLINE}),
    "master_weights": (master_weights("BF16"), {"quantization_config": ONLINE}),
    "ternary_floats": (ternary_floats("BF16"), {}),
    "plain_floats": (master_weights("BF16"), {}),
    "mlx": (mlx(32), {"quantization": {"group_size": 32, "bits": 2}}),
}


def _as(base: Family, storage: str) -> Family:
    """A family whose linears are stored otherwise: skeleton and storage are independent of each other."""
    store, quantization = _STORAGES[storage]
    plain = {key: value for key, value in base.config.items() if not key.startswith("quantization")}
    grouped = {"group 32": ALL + 2 - base.tied} if storage == "mlx" else {"tensor": ALL}
    return dataclasses.replace(
        base,
        storage=storage,
        store=store,
        tables=store if storage == "mlx" else None,
        granularity=grouped,
        config={**plain, **quantization},
        first_quantization=None,
        quantize="absmean" if storage == "plain_floats" else None,
    )


_OTHERS = {
    _MS: ("ternary_floats", "plain_floats"),
    _HF1BIT: ("mlx",),
    FAMILIES["qwen3_packed"]: ("master_weights", "plain_floats"),
    _MINICPM: ("packed", "master_weights", "plain_floats", "mlx"),
    _GEMMA3: ("packed", "master_weights", "ternary_floats", "plain_floats"),
}
FAMILIES |= {
    f"{base.family}_{storage}": _as(base, storage) for base, storages in _OTHERS.items() for storage in storages
}


# -- edits -------------------------------------------------------------------------------------------------------------


def all_tensors(folder: Path) -> Tensors:
    """Of all files of a checkpoint folder, together."""
    files = sorted(folder.glob("model*.safetensors"))
    return {name: stored for file in files for name, stored in read_safetensors(file).items()}


def edited(
    source: Path,
    target: Path,
    *,
    config: Callable[[dict[str, Any]], object] | None = None,
    tensors: Callable[[Tensors], object] | None = None,
    shards: int = 1,
) -> Path:
    """A copy with its config or its tensors changed, and the tensors in so many files."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model*.safetensors*"))
    if config:
        document = json.loads((target / "config.json").read_text())
        config(document)
        (target / "config.json").write_text(json.dumps(document))
    table = all_tensors(source)
    if tensors:
        tensors(table)
    write_shards(target, table, shards)
    return target


def poke(name: str, *values: float, at: int = 0, dtype: str | None = None) -> Edit:
    """Some elements of a float tensor overwritten."""

    def edit(config: Config, tensors: Tensors) -> None:
        array = values_of(tensors[name]).copy()
        array.reshape(-1)[at : at + len(values)] = values
        tensors[name] = entry(array, dtype or tensors[name][0])

    return edit

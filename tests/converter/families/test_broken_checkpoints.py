"""Every checkpoint family, broken in the ways that downloads and relatives are: a sentence that names tensor or key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import Tensors, edited_checkpoint
from tests.make.families import FAMILIES, Q0, UP1, Checkpoints, Config, Edit, Made, all_tensors, edited, poke
from tests.make.storage import entry
from tritpack.converter.convert import convert
from tritpack.converter.families.family import families, refusals
from tritpack.converter.families.recognition import recognise
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.storage.catalog import POINTERS, STORAGES
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.errors import TritpackError, Unreadable, Unsupported

# -- broken in the ways that downloads and relatives are ---------------------------------------------------------------


def drop(*pieces: str) -> Edit:
    """Without the tensors whose names hold a piece."""

    def edit(config: Config, tensors: Tensors) -> None:
        for name in [name for name in tensors if any(piece in name for piece in pieces)]:
            del tensors[name]

    return edit


def settings(**keys: Any) -> Edit:
    return lambda config, tensors: config.update(keys)


def without(*keys: str) -> Edit:
    return lambda config, tensors: [config.pop(key) for key in keys]


def quantization(**keys: Any) -> Edit:
    return lambda config, tensors: config["quantization_config"].update(keys)


def extra(name: str, size: int) -> Edit:
    return lambda config, tensors: tensors.update({name: entry(np.ones(size), "BF16")})


def reshaped(name: str, shape: Callable[[list[int]], list[int]]) -> Edit:
    """The bytes of a tensor under another shape, cut or repeated to fit."""

    def edit(config: Config, tensors: Tensors) -> None:
        dtype, old, raw = tensors[name]
        new = shape(old)
        size = len(raw) * int(np.prod(new)) // int(np.prod(old))
        tensors[name] = dtype, new, (raw * (size // len(raw) + 1))[:size]

    return edit


def byte(name: str, value: int, at: int = 5) -> Edit:
    def edit(config: Config, tensors: Tensors) -> None:
        dtype, shape, raw = tensors[name]
        tensors[name] = dtype, shape, raw[:at] + bytes([value]) + raw[at + 1 :]

    return edit


def bad(name: str, edit: Edit, error: type[TritpackError], told: str, *, oracle: bool = True) -> Any:
    """A checkpoint, what is done to it, the refusal and a piece of its sentence. oracle: its own reader refuses too."""
    return pytest.param(name, edit, error, told, oracle, id=f"{name}: {told}")


BAD = [
    # packed
    bad("ms_2b4t_packed", quantization(quantization_mode="online"), Unsupported, "online means float"),
    bad("ms_2b4t_packed", drop(f"{Q0}.weight_scale"), Unreadable, f"{Q0}.weight_scale"),
    bad("falcon3", drop(f"{UP1}.weight_scale"), Unreadable, f"{UP1}.weight_scale"),
    bad("hf1bit_llama3", poke(f"{Q0}.weight_scale", 0.0), Unreadable, f"{Q0}.weight_scale"),
    bad("hf1bit_llama3", poke(f"{Q0}.weight_scale", -1.0), Unreadable, f"{Q0}.weight_scale"),
    bad("hf1bit_llama3", poke(f"{Q0}.weight_scale", np.nan), Unreadable, f"{Q0}.weight_scale"),
    bad("hf1bit_llama3", poke(f"{Q0}.weight_scale", 1e-39, dtype="F32"), Unreadable, f"{Q0}.weight"),
    bad("falcon_e", reshaped(f"{Q0}.weight_scale", lambda old: [2]), Unreadable, f"{Q0}.weight_scale"),
    bad("falcon_e", reshaped(f"{Q0}.weight_scale", lambda old: [0]), Unreadable, f"{Q0}.weight_scale"),
    bad("ms_2b4t_packed", byte(f"{UP1}.weight", 0b11_01_01_01), Unreadable, f"{UP1}.weight"),
    bad("falcon_e", byte(f"{UP1}.weight", 0b01_01_11_01), Unreadable, f"{UP1}.weight"),
    bad("hf1bit_llama3", reshaped(f"{UP1}.weight", lambda old: [old[0] * 2, old[1]]), Unreadable, f"{UP1}.weight"),
    bad("hf1bit_llama3", reshaped(f"{UP1}.weight", lambda old: old[::-1]), Unreadable, f"{UP1}.weight"),
    bad("hf1bit_llama3", reshaped(f"{UP1}.weight", lambda old: [old[0] * old[1]]), Unreadable, f"{UP1}.weight"),
    bad("hf1bit_llama3", settings(intermediate_size=222), Unsupported, "222 output rows"),
    bad("hf1bit_llama3", without("quantization_config"), Unsupported, f"{Q0}.weight"),
    bad("ms_2b4t_packed", without("quantization_config"), Unsupported, f"{Q0}.weight"),
    bad("hf1bit_llama3", quantization(quant_method="gptq"), Unsupported, "gptq"),
    bad("hf1bit_llama3", quantization(linear_class="weirdlinear"), Unsupported, "weirdlinear"),
    bad("hf1bit_llama3", quantization(quantization_mode="sometimes"), Unsupported, "sometimes"),
    bad("falcon3", quantization(modules_to_not_convert=["lm_head", Q0]), Unsupported, Q0),
    bad("falcon3", quantization(modules_to_not_convert=["lm_head", "down_proj"]), Unsupported, "down_proj"),
    bad("falcon3", quantization(modules_to_not_convert=["lm_head", "model.layers.1"]), Unsupported, "layers.1"),
    bad("falcon3", quantization(modules_to_not_convert=[]), Unsupported, "lm_head"),
    bad("falcon3", quantization(modules_to_not_convert="lm_head"), Unreadable, "modules_to_not_convert"),
    bad("falcon3", settings(quantization_config="bitnet"), Unreadable, "quantization_config"),
    bad("llama_rms_norm_online", quantization(modules_to_not_convert=["model.embed_tokens"]), Unsupported, "lm_head"),
    # masters
    bad("ms_2b4t_online", poke(f"{UP1}.weight", np.nan, at=7), Unreadable, f"{UP1}.weight"),
    bad("onebitllm", poke(f"{UP1}.weight", np.inf, at=7), Unreadable, f"{UP1}.weight"),
    bad("embedding_qwen3", poke("layers.0.mlp.down_proj.weight", -np.inf), Unreadable, "layers.0.mlp.down_proj.weight"),
    bad("llama_online", reshaped(f"{UP1}.weight", lambda old: [old[0] + 1, old[1]]), Unreadable, f"{UP1}.weight"),
    bad("falcon_e_prequantized", poke(f"{UP1}.weight", np.nan), Unreadable, f"{UP1}.weight"),
    # ternary floats
    bad("trilm", poke(f"{UP1}.weight", np.nan, at=999), Unreadable, f"{UP1}.weight"),
    bad("trilm_2_shards", poke(f"{UP1}.weight", 0.5, at=999), Unsupported, f"{UP1}.weight"),
    bad("bonsai_tied", poke(f"{UP1}.weight", 0.5, at=999), Unsupported, f"{UP1}.weight"),
    bad("bitcpm", poke(f"{UP1}.weight", *np.linspace(0.1, 0.2, 64)), Unsupported, f"{UP1}.weight"),
    bad("falcon_e_bfloat16", poke(f"{UP1}.weight", *np.linspace(0.1, 0.2, 999)), Unsupported, f"{UP1}.weight"),
    # MLX
    bad("bonsai_mlx", poke(f"{Q0}.biases", 0.5), Unsupported, f"{Q0}.biases"),
    bad("bonsai_mlx", byte(f"{UP1}.weight", 0b01_11_00_10), Unsupported, f"{UP1}.weight"),
    bad("bonsai_mlx", byte("model.embed_tokens.weight", 255), Unsupported, "model.embed_tokens.weight"),
    bad("bonsai_mlx", drop(f"{Q0}.scales"), Unreadable, f"{Q0}.weight"),
    bad("bonsai_mlx", drop(f"{Q0}.biases"), Unreadable, f"{Q0}.weight"),
    bad("bonsai_mlx", reshaped(f"{Q0}.scales", lambda old: [old[0], 3]), Unreadable, f"{Q0}.scales"),
    bad("bonsai_mlx", poke(f"{Q0}.scales", -0.5), Unreadable, f"{Q0}.scales"),
    bad("bonsai_mlx", settings(quantization={"bits": 4, "group_size": 64},
                            quantization_config={"bits": 4, "group_size": 64}), Unsupported, "4 bits"),
    # norms, tables, what belongs to another graph
    bad("hf1bit_llama3", drop("layers.1.input_layernorm"), Unreadable, "layers.1.input_layernorm"),
    bad("ms_2b4t_packed", drop("layers.1.mlp.ffn_sub_norm"), Unreadable, "layers.1.mlp.ffn_sub_norm"),
    bad("ms_2b4t_packed", drop("attn_sub_norm"), Unsupported, "ffn_sub_norm"),
    bad("onebitllm", drop("0.self_attn.inner_attn_ln"), Unsupported, "ffn_layernorm"),
    bad("embedding_qwen3", drop("1.mlp.up_proj.norm"), Unreadable, "1.mlp.up_proj.norm"),
    bad("embedding_qwen3", drop("q_proj.norm"), Unsupported, "_proj.norm.weight"),
    bad("embedding_gemma3", drop("1.post_feedforward_layernorm"), Unreadable, "1.post_feedforward_layernorm"),
    bad("llama_rms_norm_packed", drop(f"{Q0}.rms_norm"), Unreadable, f"{Q0}.rms_norm"),
    bad("llama_rms_norm_packed", quantization(use_rms_norm=False), Unsupported, "rms_norm"),
    bad("qwen3_packed", drop("1.self_attn.k_norm"), Unreadable, "1.self_attn.k_norm"),
    bad("hf1bit_llama3", drop("lm_head"), Unreadable, "lm_head.weight"),
    bad("bonsai_untied_yarn", drop("lm_head"), Unreadable, "lm_head.weight"),
    bad("hf1bit_llama3", drop("embed_tokens"), Unreadable, "embed_tokens"),
    bad("hf1bit_llama3", drop("layers.1."), Unreadable, "layers.1."),
    bad("trilm", poke("model.norm.weight", np.nan), Unreadable, "model.norm.weight"),
    bad("hf1bit_llama3", poke("lm_head.weight", np.inf), Unreadable, "lm_head.weight"),
    bad("hf1bit_llama3", reshaped("model.norm.weight", lambda old: [old[0] // 2]), Unreadable, "model.norm.weight"),
    bad("hf1bit_llama3", extra(f"{Q0}.norm.weight", 128), Unsupported, f"{Q0}.norm.weight"),
    bad("hf1bit_llama3", extra("model.layers.1.post_feedforward_layernorm.weight", 8), Unsupported, "post_feed"),
    bad("hf1bit_llama3", extra(f"{UP1}.bias", 224), Unsupported, f"{UP1}.bias"),
    bad("trilm", extra("model.layers.1.self_attn.q_norm.weight", 16), Unsupported, "layers.1.self_attn.q_norm"),
    bad("bitcpm", extra("model.layers.0.self_attn.o_proj.norm.weight", 128), Unsupported, "o_proj.norm"),
    # configs
    bad("hf1bit_llama3", settings(model_type="granite"), Unsupported, "granite"),
    bad("hf1bit_llama3", settings(model_type="qwen3"), Unsupported, "qwen3"),
    bad("hf1bit_llama3", settings(model_type="gemma3_text"), Unsupported, "gemma3_text"),
    bad("qwen3_packed", settings(model_type="gemma3_text"), Unsupported, "gemma3_text"),
    bad("hf1bit_llama3", settings(hidden_act="gelu"), Unsupported, "gelu"),
    bad("hf1bit_llama3", settings(attention_bias=True), Unsupported, "attention_bias"),
    bad("hf1bit_llama3", settings(mlp_bias=True), Unsupported, "mlp_bias"),
    bad("hf1bit_llama3", settings(rope_scaling={"rope_type": "dynamic", "factor": 2.0}), Unsupported, "dynamic"),
    bad("hf1bit_llama3", settings(rope_scaling={"rope_type": "llama3"}), Unreadable, "factor"),
    bad("bitcpm_longrope", settings(rope_scaling={"rope_type": "longrope", "short_factor": 1}), Unreadable, "factor"),
    bad("hf1bit_llama3", settings(partial_rotary_factor=0.5), Unsupported, "partial_rotary_factor"),
    bad("hf1bit_llama3", without("hidden_size"), Unreadable, "hidden_size"),
    bad("hf1bit_llama3", without("vocab_size"), Unreadable, "vocab_size"),
    bad("hf1bit_llama3", settings(num_hidden_layers=3), Unreadable, "layers.2."),
    bad("hf1bit_llama3", settings(num_hidden_layers=10**9), Unreadable, "num_hidden_layers"),
    bad("hf1bit_llama3", settings(num_attention_heads=0), Unreadable, "num_attention_heads"),
    bad("falcon3", settings(head_dim=24), Unreadable, f"{Q0}.weight"),
    bad("falcon3", without("head_dim"), Unreadable, f"{Q0}.weight"),
    bad("embedding_gemma3", settings(layer_types=["sliding_attention"]), Unreadable, "layer_types"),
    bad("embedding_gemma3", settings(layer_types=["full_attention", "chunked"]), Unsupported, "layer_types"),
    # a null takes the place of a default, as in transformers, which refuses these
    bad("ms_2b4t_packed", settings(num_key_value_heads=None), Unreadable, "k_proj.weight"),
    bad("ms_2b4t_packed", settings(rms_norm_eps=None), Unreadable, "rms_norm_eps is null"),
    bad("bonsai_tied", settings(tie_word_embeddings=None), Unreadable, "tie_word_embeddings is null", oracle=False),
    bad("embedding_gemma3", settings(hidden_activation=None), Unreadable, "hidden_activation is null"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "error", "told", "oracle"), BAD)
def test_broken(
    name: str, edit: Edit, error: type[TritpackError], told: str, oracle: bool, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    made = checkpoints(name)
    folder, quantize = broken(made, tmp_path / "broken", edit), made.family.quantize
    (tmp_path / "out").mkdir()
    with pytest.raises(error) as caught:
        convert(folder, tmp_path / "out" / "m.gguf", quantize=quantize)
    assert told in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    if oracle:
        with pytest.raises((Unreadable, Unsupported)):
            Oracle(folder, quantize=quantize).outputs([[1, 2]])


def broken(made: Made, folder: Path, edit: Edit) -> Path:
    tensors = all_tensors(made.folder)
    config = json.loads((made.folder / "config.json").read_text())
    edit(config, tensors)

    def take(table: Tensors) -> None:
        table.clear()
        table.update(tensors)

    return edited(made.folder, folder, config=lambda old: (old.clear(), old.update(config)), tensors=take)


@pytest.mark.parametrize(
    ("name", "quantize", "told"),
    [
        ("falcon_e_prequantized", None, "is not ternary"),
        ("falcon_e_bfloat16", "absmean", "is ternary already"),
        ("trilm_6_shards", "absmean", "is ternary already"),
        ("falcon_e", "absmean", "this is not one"),
        ("onebitllm", "absmean", "absmean anyway"),
        ("embedding_gemma3", "absmean", "absmean anyway"),
        ("bonsai_mlx", "absmean", "this is not one"),
    ],
)
def test_quantise_is_for_plain_floats(
    name: str, quantize: str | None, told: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=told) as caught:
        convert(checkpoints(name).folder, tmp_path / "m.gguf", quantize=quantize)
    assert (quantize is None) == ("--quantize absmean" in (caught.value.hint or ""))
    assert list(tmp_path.iterdir()) == []


def swap_shards(folder: Path) -> None:
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
    first.write_bytes(second_bytes)
    second.write_bytes(first_bytes)


def index(edit: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        document = json.loads(path.read_text())
        edit(document["weight_map"])
        path.write_text(json.dumps(document))

    return act


def only_pickles(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def only_adapter(*names: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        for path in [*folder.glob("model*"), folder / "config.json"]:
            path.unlink()
        for name in names:
            (folder / name).write_text("{}")

    return act


def cut(folder: Path) -> None:
    path = sorted(folder.glob("model*.safetensors"))[-1]
    path.write_bytes(path.read_bytes()[:-9])


def twice(folder: Path) -> None:
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())


def rewrite(name: str, edit: Callable[[Any], object]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        edit(document)
        (folder / name).write_text(json.dumps(document))

    return act


FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))


@pytest.mark.parametrize(
    ("name", "act", "error", "told"),
    [
        ("falcon3", swap_shards, Unreadable, "model.safetensors.index.json places tensor"),
        ("onebitllm", index(lambda places: places.update({f"{Q0}.weight": SECOND})), Unreadable, f"{Q0}.weight"),
        ("onebitllm", index(lambda places: places.update({f"{Q0}.bias": FIRST})), Unreadable, "in no file"),
        ("onebitllm", index(lambda places: places.update({f"{Q0}.weight": "../x.safetensors"})), Unreadable, "../x"),
        ("onebitllm", lambda folder: (folder / SECOND).unlink(), Unreadable, SECOND),
        ("onebitllm", twice, Unreadable, "is in both"),
        ("bonsai_untied_yarn", cut, Unreadable, "model-00003-of-00003.safetensors"),
        ("trilm", cut, Unreadable, "model.safetensors"),
        ("onebitllm", index(lambda places: places.update({Q0: "x" * 3000})), Unreadable, "which is not there"),
        ("onebitllm", index(lambda places: places.update({Q0: "a\0b"})), Unreadable, "which is not there"),
        ("onebitllm", index(lambda places: places.update({Q0: "."})), Unreadable, "which is not there"),
        ("trilm", only_pickles, Unsupported, "pytorch_model.bin"),
        ("trilm", only_adapter("adapter_config.json", "adapter_model.safetensors"), Unsupported, "is a LoRA adapter"),
        ("trilm", only_adapter("adapter_config.json", "adapter_model.bin"), Unsupported, "is a LoRA adapter"),
        ("trilm", only_adapter("adapters.safetensors"), Unsupported, "is a LoRA adapter"),
        ("trilm", lambda folder: (folder / "model.safetensors").unlink(), Unreadable, "model*.safetensors"),
        ("trilm", lambda folder: (folder / "config.json").unlink(), Unreadable, "config.json"),
        ("trilm", lambda folder: (folder / "config.json").write_text("{"), Unreadable, "config.json"),
        (
            "embedding_qwen3",
            rewrite("1_Pooling/config.json", lambda c: c.update(pooling_mode_lasttoken=False)),
            Unsupported,
            "pooling",
        ),
        (
            "embedding_qwen3",
            rewrite("1_Pooling/config.json", lambda c: c.update(pooling_mode_max_tokens=True)),
            Unsupported,
            "max_tokens",
        ),
        (
            "embedding_gemma3",
            rewrite("modules.json", lambda m: m.append({"type": "sentence_transformers.models.Dense"})),
            Unsupported,
            "Dense",
        ),
    ],
)
def test_broken_files(
    name: str,
    act: Callable[[Path], object],
    error: type[TritpackError],
    told: str,
    checkpoints: Checkpoints,
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "broken", tmp_path / "out"
    shutil.copytree(checkpoints(name).folder, folder)
    act(folder)
    out.mkdir()
    result = run("convert", folder, "-o", out / "m.gguf")
    assert isinstance(result.exception, error) and told in str(result.exception)
    assert exit_code_of(result) == {Unreadable: 3, Unsupported: 4}[error]
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["num_key_value_heads", "head_dim"])
def test_a_null_is_derived_as_in_transformers(name: str, online_checkpoint: Path, tmp_path: Path) -> None:
    """Its class has 5 key-value heads by default; with a null it has as many as heads."""

    def all_heads(table: Tensors) -> None:
        for layer in range(2):
            for linear in ("k_proj", "v_proj"):
                dtype, (rows, cols), raw = table[key := f"model.layers.{layer}.self_attn.{linear}.weight"]
                table[key] = dtype, [2 * rows, cols], raw * 2

    def null(config: Config) -> None:
        config.update({"num_key_value_heads": config["num_attention_heads"], name: None})

    folder = edited_checkpoint(online_checkpoint, tmp_path / "null", config=null, tensors=all_heads)
    spec = recognise(CheckpointFolder(folder).config, CheckpointFolder(folder).dtypes).spec
    assert (spec.heads, spec.kv_heads, spec.head_dim) == (4, 4, 64)
    convert(folder, tmp_path / "m.gguf")


def test_an_adapter_beside_a_model_is_a_warning(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, folder := tmp_path / "both")
    (folder / "adapter_config.json").write_text("{}")
    warnings = convert(folder, tmp_path / "m.gguf").warnings
    assert [text for text in warnings if "adapter_config.json" in text and "is not part of the output" in text]


# -- refused by name ---------------------------------------------------------------------------------------------------

LLAMA0 = {f"model.layers.0.{name}.weight": "BF16" for name in ("self_attn.q_proj", "mlp.gate_proj", "input_layernorm")}


@pytest.mark.parametrize(
    ("config", "names", "notes", "refused"),
    [
        ({"model_type": "qwen3"}, [], '{"prism.hadamard.block_size": "64"}', "outside of a GGUF"),
        ({"model_type": "qwen3_5"}, [], '{"prism.hadamard.block_size": "64"}', "outside of a GGUF"),
        ({"model_type": "qwen3", "rotation": {"kind": "hadamard"}}, [], "", "of another kind"),
        ({"model_type": "gemma3", "text_config": {"model_type": "qwen3_5_moe_text"}}, [], "", "Qwen3-Next"),
        ({"model_type": "qwen3_next"}, [], "", "Qwen3-Next"),
        ({"model_type": "maple"}, [], "", "maple"),
        ({"model_type": "llama", "num_experts": 8}, [], "", "maple"),
        ({"model_type": "llama", "num_local_experts": 8}, [], "", "maple"),
        ({}, ["model.layers.0.mlp.experts.0.up_proj.weight"], "", "maple"),
        ({"model_type": "parakeet_tdt"}, [], "", "speech"),
        ({}, ["encoder.layers.0.conv.pointwise_conv1.weight"], "", "speech"),
        ({"model_type": "hunyuan_v1_dense"}, [], "", "Hunyuan"),
        ({"model_type": None}, ["model.layers.0.self_attn.query_layernorm.weight"], "", "Hunyuan"),
        ({"model_type": "minicpm3"}, [], "", "latent"),
        ({}, ["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"], "", "latent"),
        ({"model_type": "falcon_h1"}, [], "", "recurrent"),
        ({}, ["model.layers.0.linear_attn.in_proj.weight"], "", "recurrent"),
        ({"model_type": "gemma3"}, ["vision_tower.vision_model.embeddings.patch_embedding.weight"], "", "vision"),
        ({"model_type": "qwen3"}, ["model.visual.blocks.0.attn.qkv.weight"], "", "vision"),
    ],
)
def test_refused_by_name(config: Config, names: list[str], notes: str, refused: str) -> None:
    with pytest.raises(Unsupported) as caught:
        recognise(config, {**LLAMA0, **dict.fromkeys(names, "BF16")}, notes=notes)
    refusal = next(refusal for refusal in refusals() if refused in refusal.name)
    assert caught.value.message.startswith(f"{refusal.name} cannot be run (")
    assert caught.value.message.endswith(refusal.reason)


def test_values_decide_what_a_qwen3_5_is() -> None:
    for kind in ("qwen3_5", "qwen3_5_text", "qwen35"):
        with pytest.raises(Unsupported, match=r"an ordinary Qwen3.5 .* its weights are not ternary"):
            recognise({"model_type": kind}, LLAMA0, is_ternary=lambda: False)
        with pytest.raises(Unsupported, match="uses the tensor names of Llama"):
            recognise({"model_type": kind}, LLAMA0, is_ternary=lambda: True)


@pytest.mark.parametrize("method", ["humming", "edgerazor"])
def test_other_quantisers_get_a_pointer(checkpoints: Checkpoints, tmp_path: Path, method: str) -> None:
    folder = edited(
        checkpoints("bonsai_tied").folder,
        tmp_path / "c",
        config=lambda config: config.update(quantization_config={"quant_method": method}),
    )
    with pytest.raises(Unsupported, match=f"quant_method '{method}'") as caught:
        convert(folder, tmp_path / "m.gguf")
    assert caught.value.hint == POINTERS[method]


def test_refusals_end_commands(checkpoints: Checkpoints, tmp_path: Path) -> None:
    hadamard = edited(
        checkpoints("bonsai_tied").folder,
        tmp_path / "c",
        config=lambda config: config.update(prism={"hadamard": {"block_size": 64}}),
    )
    for command in (("convert", hadamard, "-o", tmp_path / "m.gguf"), ("generate", hadamard, "-p", "a")):
        result = run(*command)
        assert exit_code_of(result) == 4 and "rotated basis" in str(result.exception), command
    shown = run("inspect", hadamard)
    assert shown.exit_code == 0 and "rotated basis" in shown.stdout
    assert not (tmp_path / "m.gguf").exists()


def test_families_are_listed() -> None:
    plain, document = run("families"), json.loads(run("families", "--json").stdout)
    assert plain.exit_code == 0 and document["schema"] == "tritpack.families/1"
    assert [family["name"] for family in document["families"]] == [family.name for family in families()]
    assert [entry["name"] for entry in document["refused"]] == [refusal.name for refusal in refusals()]
    for family in families():
        assert family.title in plain.stdout, family
        assert all(repository in plain.stdout for repository in family.checkpoints.values()), family
    for refusal in refusals():
        assert f"{refusal.name}: {refusal.reason}" in plain.stdout, refusal
    listed = {(family["name"], each["storage"]) for family in document["families"] for each in family["storages"]}
    converted = {(family.family, STORAGES[family.storage].name) for family in FAMILIES.values()}
    of_hybrids = {("qwen35", STORAGES[key].name) for key in ("ternary_floats", "mlx")}  # test_hybrids.py
    assert converted | of_hybrids == listed

"""What a config.json or a packed file may say: nonsense gets a sentence, what would change the graph is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make.checkpoints import Tensors, edited_checkpoint, edited_gguf
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inspect import inspect
from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError, Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.rope import RopeScaling
from tritpack.runtime.model import Model

L0 = "model.layers.0."
ROPE = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 512}


def config(**keys: Any) -> dict[str, Any]:
    return {"config": lambda document: document.update(keys)}


def quantization(**keys: Any) -> dict[str, Any]:
    return {"config": lambda document: document["quantization_config"].update(keys)}


def extra(name: str) -> dict[str, Any]:
    def add(tensors: Tensors) -> None:
        tensors[name] = ("BF16", [4], bytes(8))

    return {"tensors": add}


NONSENSE: dict[str, tuple[dict[str, Any], type[TritpackError], str]] = {
    "heads a list": (config(num_attention_heads=[4]), Unreadable, "num_attention_heads"),
    "layers true": (config(num_hidden_layers=True), Unreadable, "num_hidden_layers"),
    "head_dim huge": (config(head_dim=2**30), Unreadable, "head_dim"),
    "eps a text": (config(rms_norm_eps="1e-5"), Unreadable, "rms_norm_eps"),
    "eps of the inner norms": (quantization(use_rms_norm=True, rms_norm_eps="x"), Unreadable, "rms_norm_eps"),
    "no eps of the inner norms": (quantization(use_rms_norm=True, rms_norm_eps=0), Unreadable, "rms_norm_eps"),
    "tied a text": (config(tie_word_embeddings="yes"), Unreadable, "tie_word_embeddings"),
    "positions a text": (config(max_position_embeddings="4096", rope_scaling=ROPE), Unreadable, "max_position"),
    "original huge": (config(original_max_position_embeddings=10**30, rope_scaling=ROPE), Unreadable, "original"),
    "theta of yarn": (config(rope_theta=1, rope_scaling=ROPE), Unreadable, "rope_theta"),
    "factor an object": (config(rope_scaling={**ROPE, "factor": {}}), Unreadable, "factor"),
    "factors no numbers": (
        config(rope_scaling={"type": "longrope", "short_factor": [[]], "long_factor": [1]}),
        Unreadable,
        "short_factor",
    ),
    "quantization a list": (config(quantization_config=[1]), Unreadable, "quantization_config"),
    "model_type a list": (config(model_type=["bitnet"]), Unreadable, "model_type"),
    "not causal": (config(is_causal=False), Unsupported, "is_causal"),
    "other attention": (config(layer_types=["full_attention", "chunked"]), Unsupported, "layer_types"),
    "turning in part": (config(partial_rotary_factor=0.5), Unsupported, "partial_rotary_factor"),
    "another graph": (config(model_type="granite"), Unsupported, "granite"),
    "the graph of another family": (config(model_type="qwen3"), Unsupported, "qwen3"),
    "llama says nothing of relu2": (
        {"config": lambda c: (c.update(model_type="llama"), c.pop("hidden_act"))},
        Unreadable,
        "hidden_act",
    ),
    "a pattern without end": (quantization(modules_to_not_convert=[r"((\w|\.)+)+!"]), Unsupported, "not read"),
    # The second one is legal up to its last character: the check itself must not try every way to read it.
    "a pattern of many stars": (quantization(modules_to_not_convert=[".*a" * 20 + ".*x"]), Unsupported, "not read"),
    "a pattern that is nearly legal": (quantization(modules_to_not_convert=[".*" * 40 + "!"]), Unsupported, "not read"),
    "a name without end": (extra(f"{L0}{'a' * 600}"), Unreadable, "615 characters"),
    **{
        f"unused {name}": (extra(name), Unsupported, name)
        for name in (
            f"{L0}self_attn.q_proj.bias", f"{L0}self_attn.sinks", f"{L0}ls1.gamma", f"{L0}self_attn.gate_proj.weight",
            f"{L0}mlp.lora_A.weight", f"{L0}self_attn.q_norm_extra.weight", "lm_head.bias", "model.norm.bias",
            "model.embed_layernorm.weight",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_checkpoints(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    change, kind, words = NONSENSE[name]
    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c", **change)
    with pytest.raises(kind) as caught:
        convert(folder, tmp_path / "x.gguf")
    assert words in str(caught.value)
    assert not (tmp_path / "x.gguf").exists()


def test_what_old_checkpoints_carry_is_reported(tiny_checkpoint: Path, tmp_path: Path) -> None:
    name = f"{L0}self_attn.rotary_emb.inv_freq"
    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c", **extra(name))
    assert name in convert(folder, tmp_path / "x.gguf").warnings[0]


def key(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata.update({f"bitnet-b1.58.{name}": value})


FILES: dict[str, tuple[Callable[[dict[str, Any]], None], type[TritpackError], str]] = {
    "window without a pattern": (key("attention.sliding_window", 7), Unreadable, "sliding_window_pattern"),
    "huge window": (
        lambda m: (key("attention.sliding_window", 2**40)(m), key("attention.sliding_window_pattern", 2)(m)),
        Unreadable,
        "sliding_window",
    ),
    "pattern of another length": (
        lambda m: (
            key("attention.sliding_window", 7)(m),
            key("attention.sliding_window_pattern", np.ones(3, bool))(m),
        ),
        Unreadable,
        "sliding_window_pattern",
    ),
    "pooling 9": (key("pooling_type", 9), Unsupported, "pooling_type"),
    "embedding scale": (key("embedding_scale", float("nan")), Unreadable, "embedding_scale"),
    "attention scale": (key("attention.scale", 0.0), Unreadable, "attention_scale"),
    "eps of one": (key("attention.layer_norm_rms_epsilon", 1.5), Unreadable, "norm_eps"),
    "scaling no text": (key("rope.scaling.type", np.arange(2)), Unreadable, "rope.scaling.type"),
    "yarn without a context": (
        lambda m: (key("rope.scaling.type", "yarn")(m), key("rope.scaling.original_context_length", "x")(m)),
        Unreadable,
        "original context",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_packed_files(name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    change, kind, words = FILES[name]
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", metadata=change)
    for use in (Model, lambda path: convert(path, tmp_path / "x.gguf")):
        with pytest.raises(kind) as caught:
            use(bad)
        assert words in str(caught.value) and "bad.gguf" in str(caught.value), use
    assert any(words in problem for problem in inspect(bad)["problems"])


def with_tensor(source: Path, target: Path, name: str, type_id: int, data: bytes, shape: tuple[int, ...]) -> Path:
    file = GgufFile(source)
    plans = [TensorPlan(n, t.shape, t.type_id, t.nbytes) for n, t in file.tensors.items()]
    parts = [file.bytes_of(tensor) for tensor in file.tensors.values()]
    plans.append(TensorPlan(name, shape, type_id, len(data)))
    parts.append(np.frombuffer(data, np.uint8))
    write_gguf(target, file.metadata, plans, ([part] for part in parts))
    return target


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "blk.1.attn_q_norm.weight", "blk.0.attn_q.scale", "output.bias"])
def test_tensors_of_another_graph(name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    """Ignoring them would run another model than the file holds."""
    bad = with_tensor(tiny_gguf, tmp_path / "bad.gguf", name, 0, bytes(256), (64,))
    for use in (Model, lambda path: convert(path, tmp_path / "x.gguf")):
        with pytest.raises((Unreadable, Unsupported), match=name):
            use(bad)


@pytest.mark.parametrize(("type_id", "data", "words"), [(26, bytes(128), "i32"), (0, bytes(128), "not finite")])
def test_rotary_factors_that_are_none(type_id: int, data: bytes, words: str, tiny_gguf: Path, tmp_path: Path) -> None:
    bad = with_tensor(tiny_gguf, tmp_path / "bad.gguf", "rope_freqs.weight", type_id, data, (32,))
    with pytest.raises(Unreadable, match=words):
        Model(bad)
    assert any(words in problem for problem in inspect(bad)["problems"])


SPEC = {
    "vocab_size": 64, "hidden_size": 128, "intermediate_size": 128, "layers": 2, "heads": 2, "kv_heads": 1,
    "head_dim": 64, "context_length": 100, "rope_theta": 10000.0, "norm_eps": 1e-6, "sub_norms": False,
}  # fmt: skip
SPECS = [
    ModelSpec(architecture="bitnet-b1.58", activation="relu2", **{**SPEC, "sub_norms": True}),
    ModelSpec(architecture="llama", activation="silu", tied=False, int8_activations=False, **SPEC),
    ModelSpec(architecture="llama", activation="silu", rope_scaling=RopeScaling("linear", 4.0), **SPEC),
    ModelSpec(
        architecture="llama",
        activation="silu",
        projection_norms=True,
        projection_norm_eps=0.25,
        rope_scaling=RopeScaling("factors", attention_factor=1.25, frequency_factors=tuple([1.5] * 32)),
        **SPEC,
    ),
    ModelSpec(
        architecture="qwen3",
        activation="silu",
        qk_norms=True,
        pooling="last",
        rope_scaling=RopeScaling("yarn", 4.0, 1000, 16.0, 2.0, 1.5),
        **SPEC,
    ),
    ModelSpec(
        architecture="gemma3",
        activation="gelu_pytorch_tanh",
        qk_norms=True,
        post_norms=True,
        embedding_scale=11.313708,
        attention_scale=0.0625,
        local_rope_theta=5000.0,
        sliding_window=7,
        sliding_layers=(True, False),
        **SPEC,
    ),
    ModelSpec(
        architecture="minicpm",
        activation="silu",
        embedding_scale=12.0,
        residual_scale=0.16035675,
        logit_scale=0.16666667,
        **SPEC,
    ),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.architecture}-{SPECS.index(spec)}")
def test_every_field_comes_back_from_a_file(spec: ModelSpec, tmp_path: Path) -> None:
    shapes = spec.tensor_shapes()
    factors = spec.rope_scaling.frequency_factors if spec.rope_scaling else ()
    data = {
        name: np.array(factors, "<f4") if name == "rope_freqs.weight" else np.zeros(shape, "<f4")
        for name, shape in shapes.items()
    }
    plans = [TensorPlan(name, shape, 0, data[name].nbytes) for name, shape in shapes.items()]
    pairs = {"general.architecture": spec.architecture, **model_metadata.to_metadata(spec)}
    write_gguf(tmp_path / "s.gguf", pairs, plans, ([array.reshape(-1).view(np.uint8)] for array in data.values()))
    assert model_metadata.from_gguf(GgufFile(tmp_path / "s.gguf")) == spec


def test_what_engines_imply(tmp_path: Path) -> None:
    """llama.cpp's Gemma scales its embedding without a key; its MiniCPM divides by logit_scale."""
    gemma, minicpm = SPECS[5], SPECS[6]
    assert "gemma3.embedding_scale" in model_metadata.to_metadata(gemma)
    assert model_metadata.to_metadata(minicpm)["minicpm.logit_scale"] == pytest.approx(6.0)
    pairs = {"general.architecture": "gemma3", **model_metadata.to_metadata(gemma)}
    del pairs["gemma3.embedding_scale"]
    plans = [TensorPlan(name, shape, 0, 4 * int(np.prod(shape))) for name, shape in gemma.tensor_shapes().items()]
    write_gguf(tmp_path / "g.gguf", pairs, plans, ([np.zeros(plan.nbytes, np.uint8)] for plan in plans))
    assert model_metadata.from_gguf(GgufFile(tmp_path / "g.gguf")) == gemma


def test_a_source_is_not_written_over(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c")
    with pytest.raises(UsageError, match="is an input of this command"):
        convert(folder, folder / "model.safetensors", force=True)
    with pytest.raises(UsageError, match="packed file"):
        convert(tiny_gguf, tmp_path / "x.gguf", quantize="absmean")
    with pytest.raises(UsageError, match="empty"):
        convert("", tmp_path / "x.gguf")
    with pytest.raises(UsageError, match="not a path"):
        convert("a" * 5000, tmp_path / "x.gguf")

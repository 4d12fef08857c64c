"""Whether weights are ternary: each kind of values is named for what it is, with the share that is ternary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SHARED, run
from tests.make.checkpoints import Tensors, edited_checkpoint
from tests.make.families import Checkpoints
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.inspect.ternarity import ternarity
from tritpack.converter.inspect.weight_values import values_of
from tritpack.formats.float_types import narrow_bf16
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.safetensors_reader import BytesInMemory, StoredTensor

ROWS, COLS = 64, 768
BITNET = {
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
}


def stored(name: str, values: np.ndarray, dtype: str = "F32") -> StoredTensor:
    kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "F32": lambda a: a.astype("<f4"), "F16": lambda a: a.astype("<f2"),
        "BF16": lambda a: narrow_bf16(a.astype(np.float32)),
    }  # fmt: skip
    data = np.ascontiguousarray(kinds.get(dtype, lambda a: a)(values)).reshape(-1).view(np.uint8)
    return StoredTensor(name, dtype, values.shape, "m.safetensors", 0, data.size, BytesInMemory(data))


def codes(seed: int = 0, rows: int = ROWS, cols: int = COLS) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, (rows, cols)).astype(np.float32)


def normal(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.02, (ROWS, COLS)).astype(np.float32)


def by_group(size: int) -> np.ndarray:
    scales = np.random.default_rng(5).uniform(0.01, 0.1, (ROWS, COLS // size)).astype(np.float32)
    return codes() * np.repeat(scales, size, axis=1)


def four_values() -> np.ndarray:
    return np.random.default_rng(1).choice(np.float32([-1, 0, 1, 2]), (ROWS, COLS)) * np.float32(0.03)


def rounded_to_four_bits() -> np.ndarray:
    pieces = normal().reshape(-1, 128)
    scale = np.abs(pieces).max(1, keepdims=True) / 7
    return (np.rint(pieces / scale) * scale).reshape(ROWS, COLS)


def half_ternary() -> np.ndarray:
    values = by_group(128)
    values[:, :256] = normal()[:, :256]
    return values


CASES: dict[str, tuple[np.ndarray, str, str | None]] = {
    "one scale": (codes() * np.float32(0.1), "ternary", "tensor"),
    "rows": (codes() * np.linspace(0.1, 0.2, ROWS, dtype=np.float32)[:, None], "ternary", "row"),
    "groups of 128": (by_group(128), "ternary", "group 128"),
    "groups of 64": (by_group(64), "ternary", "group 64"),
    "halves of a row": (by_group(384), "ternary", "group 384"),
    "rounded after a product": (by_group(128) * (1 + normal()), "nearly_ternary", None),
    "an adapter merged into it": (codes() * np.float32(0.1) + normal() / 30, "nearly_ternary", None),
    "four values": (four_values(), "four_valued", None),
    "minus two": (-four_values(), "four_valued", None),
    "five values": (np.where(codes(9) > 0, four_values(), -four_values()), "few_levels", None),
    "4 bits": (rounded_to_four_bits(), "few_levels", None),
    "a part of the groups": (half_ternary(), "partly_ternary", None),
    "continuous": (normal(), "continuous", None),
    "zeros": (np.zeros((ROWS, COLS), np.float32), "zero", None),
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_of_one_tensor(name: str, whole: bool) -> None:
    values, kind, granularity = CASES[name]
    found = values_of(stored("w.weight", values), whole=whole)
    assert (found.kind, found.granularity) == (kind, granularity)
    assert found.rows == (ROWS if whole else 8)
    if kind == "ternary":
        assert found.distance < 1e-6 and found.ternary_groups["64"] == 1.0
    assert values_of(stored("w.weight", values), whole=False, together=True).kind == kind


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_rounding_keeps_ternary_values_ternary(dtype: str) -> None:
    assert values_of(stored("w.weight", by_group(128), dtype), whole=True).granularity == "group 128"


def test_shares_say_how_far_a_tensor_is() -> None:
    found = values_of(stored("w.weight", half_ternary()), whole=True)
    assert found.ternary_rows == 0.0
    assert found.ternary_groups == {"256": 0.0, "128": pytest.approx(2 / 3), "64": pytest.approx(2 / 3)}
    assert 0.1 < found.distance < 0.5 and found.zero == pytest.approx(2 / 9, abs=0.02)
    assert 0.4 < values_of(stored("w.weight", normal()), whole=True).distance < 0.6  # of any normal distribution


def model(values: np.ndarray, others: dict[str, np.ndarray] | None = None) -> dict[str, StoredTensor]:
    names = [f"model.layers.{i}.{part}.weight" for i in range(2) for part in ("self_attn.q_proj", "mlp.up_proj")]
    arrays = dict.fromkeys(names, values) | (others or {})
    table = {"model.embed_tokens.weight": normal(3), "model.layers.0.input_layernorm.weight": normal(4)}
    return {name: stored(name, array) for name, array in (arrays | table).items()}


def packed() -> dict[str, StoredTensor]:
    weight = np.zeros((16, COLS), np.uint8)
    scale = stored("model.layers.0.q_proj.weight_scale", np.ones(1), "F32")
    return {"model.layers.0.q_proj.weight": stored("model.layers.0.q_proj.weight", weight, "U8"), scale.name: scale}


def mlx(code: int, bias: float = -0.5) -> dict[str, StoredTensor]:
    word = np.uint32(sum(code << (2 * i) for i in range(16)))
    weight = np.full((ROWS, COLS // 16), word, np.uint32)
    pieces = np.full((ROWS, COLS // 128), 0.5)
    arrays = {"weight": (weight, "U32"), "scales": (pieces, "F16"), "biases": (pieces * 2 * bias, "F16")}
    return {f"l.{name}": stored(f"l.{name}", *array) for name, array in arrays.items()}


def mixture() -> dict[str, StoredTensor]:
    return model(codes(), {"model.layers.2.mlp.up_proj.weight": rounded_to_four_bits()})


def gptq() -> dict[str, StoredTensor]:
    return {"l.qweight": stored("l.qweight", np.zeros((96, COLS), np.int32), "I32")}


@pytest.mark.parametrize(
    ("tensors", "config", "verdict", "words"),
    [
        (model(codes()), {}, "ternary", "every linear layer is exactly ternary, with one scale per tensor"),
        (model(normal()), BITNET, "master_weights", "master weights, which training quantises at each step"),
        (
            model(normal(), {"model.layers.0.self_attn.inner_attn_ln.weight": normal()[:1]}),
            {}, "master_weights", "master weights",
        ),
        (model(normal()), {}, "ordinary", "an ordinary model: no tool makes it ternary without training it"),
        (model(four_values()), {}, "four_valued", "four values (-s, 0, s, 2 s)"),
        (model(rounded_to_four_bits()), {}, "few_levels", "a 4-bit model written as floats"),
        (mixture(), {}, "mixed", "of 5 linear layers, 4 exactly ternary, 1 of a few levels (like 4 bits)"),
        (packed(), BITNET, "ternary", "packed as ternary codes"),
        (mlx(1), {"quantization": {"bits": 2, "group_size": 128}}, "ternary", "packed as ternary codes"),
        (mlx(3), {"quantization": {"bits": 2, "group_size": 128}}, "four_valued", "four values"),
        (mlx(1, -0.7), {"quantization": {"bits": 2, "group_size": 128}}, "quantized", "2-bit integers (MLX)"),
        (gptq(), {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized", "4-bit integers (gptq)"),
        (gptq(), {}, "quantized", "stored as I32 numbers, not ternary"),
        (model(np.full((ROWS, COLS), np.nan)), {}, "damaged", "not finite"),
        ({}, {}, "none", "no weights of linear layers were found"),
    ],
)  # fmt: skip
def test_a_verdict_in_words(tensors: dict[str, StoredTensor], config: dict[str, Any], verdict: str, words: str) -> None:
    result = ternarity(tensors, config)
    assert result["verdict"] == verdict and words in result["summary"]
    assert json.loads(json.dumps(result)) == result and result["linears"] == sum(result["kinds"].values())


def test_codes_of_compressed_tensors_are_ternary_where_convert_reads_them() -> None:
    words = np.zeros((ROWS, COLS // 16), np.int32)
    tensors = {
        "l.0.weight_packed": stored("l.0.weight_packed", words, "I32"),
        "l.0.weight_scale": stored("l.0.weight_scale", np.ones((ROWS, 1)), "BF16"),
    }
    config = {"quantization_config": {"quant_method": "compressed-tensors"}}
    result = ternarity(tensors, config, form="pack-quantized")
    assert result["verdict"] == "ternary"
    assert result["summary"] == "every linear layer is packed as ternary codes (compressed-tensors, 2 bits)"
    unknown = ternarity(tensors, config)
    assert unknown["verdict"] == "quantized" and "tritpack inspect says" not in unknown["advice"]


def test_a_table_is_listed_and_does_not_count() -> None:
    result = ternarity(model(codes()), {})
    assert result["linears"] == 4
    assert {row["name"]: row["kind"] for row in result["tensors"]}["model.embed_tokens.weight"] == "continuous"


def test_few_tensors_are_read_of_a_server() -> None:
    many = {f"l.{i}.weight": stored(f"l.{i}.weight", codes(i)) for i in range(100)}
    result = ternarity(many, {}, remote=True)
    assert (result["linears"], result["read"], result["verdict"]) == (100, 24, "ternary")
    assert [result["tensors"][0]["name"], result["tensors"][-1]["name"]] == ["l.0.weight", "l.99.weight"]


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_an_ordinary_checkpoint_is_not_called_ternary(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("trilm_6_shards").folder
    right = inspect(made)
    assert right["ternarity"]["verdict"] == "ternary" and right["ternary_weights"] > 0 and right["problems"] == []

    def spoil(tensors: Tensors) -> None:
        for name, (_, shape, _) in tensors.items():
            if "proj" in name:
                values = np.random.default_rng(0).normal(0, 0.02, shape).astype("<f2")
                tensors[name] = ("F16", shape, values.tobytes())

    plain = edited_checkpoint(made, tmp_path / "plain", tensors=spoil)
    result = inspect(plain)
    assert result["ternarity"]["verdict"] == "ordinary" and result["ternary_weights"] == 0
    assert result["recognised"] is None and "cannot be converted: an ordinary model" in result["problems"][0]
    assert "an ordinary model: no tool makes it ternary" in run("inspect", plain).stdout


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("tiny_checkpoint", "ternary"), ("online_checkpoint", "master_weights")],
)
def test_what_bitnet_checkpoints_are(name: str, verdict: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    for stats in (False, True):
        assert inspect(folder, stats=stats)["ternarity"]["verdict"] == verdict, stats
    assert f"Ternary: {inspect(folder)['ternarity']['summary']}" in run("inspect", folder).stdout


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("bonsai_unpacked", "ternary"), ("trilm_unpacked", "ternary"), ("falcon_e_bfloat16", "ternary"),
        ("onebitllm_large", "master_weights"), ("hf1bit_llama3_8b", "ternary"), ("ms_2b4t_packed", "ternary"),
        ("bitnet_embedding_qwen3", "master_weights"), ("bonsai2_rotated_mlx", "ternary"),
    ],
)  # fmt: skip
def test_checkpoints_made_by_others(shared: Path, name: str, verdict: str) -> None:
    result = inspect(SHARED / "checkpoints" / name)
    assert result["ternarity"]["verdict"] == verdict
    if name == "bonsai_unpacked":  # scales by group, and a ternary table: what convert makes of it
        assert (result["needs"]["outtype"], result["needs"]["embedding_type"]) == ("t2", "t2")
    if name == "onebitllm_large":
        assert (result["needs"]["outtype"], result["needs"]["embedding_type"]) == ("t2", "f32")


def test_a_gguf_of_floats(tmp_path: Path) -> None:
    def written(values: np.ndarray, type_id: int, dtype: str) -> Path:
        path = tmp_path / f"{dtype}{type_id}.gguf"
        data = np.ascontiguousarray(values.astype(dtype)).view(np.uint8).reshape(-1)
        names = ("blk.0.attn_q.weight", "token_embd.weight")
        write_gguf(path, {}, [TensorPlan(name, (ROWS, COLS), type_id, data.size) for name in names], [[data]] * 2)
        return path

    assert inspect(written(by_group(128), 1, "<f2"))["ternarity"]["verdict"] == "ternary"
    path = written(normal(), 0, "<f4")
    assert inspect(path, stats=True)["ternarity"]["verdict"] == "ordinary"
    assert "Ternary: an ordinary model" in run("inspect", path).stdout
    q4_0 = tmp_path / "q4_0.gguf"
    write_gguf(q4_0, {}, [TensorPlan("blk.0.ffn_up.weight", (32, 64), 2, 32 * 36)], [[np.zeros(32 * 36, np.uint8)]])
    assert inspect(q4_0)["ternarity"]["summary"] == "every linear layer is stored as q4_0 numbers, not ternary"

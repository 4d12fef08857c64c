"""The numpy reference and the oracle, against transformers' own answers and against small checkpoints made by hand."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.make.checkpoints import Tensors, edited_checkpoint, write_safetensors
from tritpack.converter.verify.compare.outputs import position_errors
from tritpack.converter.verify.oracle.codes import absmean, absmean_rows
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.tensors import Tensor
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.float_types import narrow_bf16
from tritpack.formats.model_spec import LINEARS, ModelSpec
from tritpack.runtime import reference
from tritpack.runtime.reference import QuantizedInput

SHARED_CHECKPOINTS: dict[str, dict[str, Any]] = {
    "ms_2b4t_packed": {"architecture": "bitnet-b1.58", "activation": "relu2", "tied": True, "sub_norms": True},
    "hf1bit_llama3_8b": {"architecture": "llama", "activation": "silu", "tied": False, "rope_theta": 500000.0},
    "onebitllm_large": {"architecture": "bitnet", "activation": "silu", "sub_norms": True, "intermediate_size": 328},
    "trilm_unpacked": {"architecture": "llama", "int8_activations": False, "tied": False},
    "falcon_e_bfloat16": {"architecture": "llama", "int8_activations": False, "kv_heads": 1},
    "bonsai_unpacked": {"architecture": "qwen3", "int8_activations": False, "qk_norms": True, "context_length": 65536},
    "bitnet_embedding_qwen3": {
        "architecture": "qwen3", "projection_norms": True, "pooling": "last", "tied": True, "head_dim": 64,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=SHARED_CHECKPOINTS)
def answered(request: pytest.FixtureRequest, shared: Path) -> Path:
    """A checkpoint with answers that others computed."""
    folder: Path = shared / "checkpoints" / request.param
    return folder


def test_spec_of_shared_checkpoints(answered: Path) -> None:
    spec = Oracle(answered).spec
    expected = {"int8_activations": True, "post_norms": False, **SHARED_CHECKPOINTS[answered.name]}
    assert {name: getattr(spec, name) for name in expected} == expected


def test_codes_and_scales_of_shared_checkpoints(answered: Path) -> None:
    oracle = Oracle(answered)
    truth = json.loads((answered / "truth.json").read_text())
    tables = {"model.embed_tokens.weight": "token_embd", "lm_head.weight": "output"}
    modules = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
               "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
    for layer in range(oracle.spec.layers):
        for linear, module in zip(LINEARS, modules):
            name = f"layers.{layer}.{module}.weight"
            tables[f"model.{name}" if f"model.{name}" in truth else name] = f"blk.{layer}.{linear}"
    for name, expected in truth.items():
        ours = tables[name]
        found = oracle.linear(ours) if ours.startswith("blk.") else oracle.table_codes(ours)
        assert found is not None, name
        codes, scales = found
        assert codes.shape == tuple(expected["shape"]), name
        assert hashlib.sha256(codes.tobytes()).hexdigest() == expected["codes_sha256"], name
        assert np.count_nonzero(codes == 0) == expected["zeros"], name
        _check_scales(scales, expected)
    assert len(truth) >= len(oracle.spec.linear_names())
    for table in ("token_embd",) if oracle.spec.tied else ("token_embd", "output"):
        assert (oracle.table_codes(table) is not None) == (answered.name == "bonsai_unpacked"), table


def _check_scales(scales: np.ndarray, expected: dict[str, Any]) -> None:
    assert scales.dtype == np.float32
    if expected["scale"] is None:  # several
        rows, groups = expected["scale_shape"]
        repeated = np.repeat(np.repeat(scales, rows // scales.shape[0], 0), groups // scales.shape[1], 1)
        assert hashlib.sha256(repeated.tobytes()).hexdigest() == expected["scales_f32_sha256"]
        return
    stored = np.float32(expected["scale"])
    want = stored if expected["scale_multiplies"] else np.float32(1) / stored
    assert scales.shape == (1, 1)
    # torch's float32 mean of master weights depends on its threads, ours is in float64
    assert scales[0, 0] == pytest.approx(want, rel=5e-7)


def test_safe_outputs_of_transformers(answered: Path) -> None:
    answers, oracle = load_file(answered / "reference.safetensors"), Oracle(answered)
    margins: list[float] = [1.0]
    tokens = answers["safe_input_ids"].tolist()
    [found] = oracle.outputs([tokens], observe=lambda seen: margins.append(float(seen.margins.min())))
    if oracle.spec.is_embedding_model:
        assert position_errors(found, answers["safe_hidden"]).max() <= 1e-5
        assert np.abs(reference.pool(oracle.spec, found) - answers["safe_embedding"]).max() <= 1e-5
    else:
        assert position_errors(found, answers["safe_logits"]).max() <= 1e-5
    assert min(margins) > 1e-6


def test_sequences_do_not_see_each_other(tiny_checkpoint: Path) -> None:
    oracle = Oracle(tiny_checkpoint)
    together = oracle.logits([[1, 2, 3], [4, 5]])
    assert np.allclose(together[1], oracle.logits([[4, 5]])[0], rtol=1e-3, atol=1e-3)


def test_a_tie_breaker_changes_near_ties_only(tiny_checkpoint: Path) -> None:
    oracle = Oracle(tiny_checkpoint)
    seen: list[QuantizedInput] = []
    free = oracle.logits([[1, 2, 3]], observe=seen.append)[0]
    codes = {(one.layer, one.point): one.codes for one in seen}
    # Codes that are one off everywhere: only values near a rounding boundary may follow them.
    off = {at: np.clip(code.astype(int) + 1, -128, 127).astype(np.int8) for at, code in codes.items()}
    followed: list[QuantizedInput] = []
    oracle.logits([[1, 2, 3]], observe=followed.append, tie_breaker=lambda *at: off[at])
    assert np.mean(followed[0].codes != seen[0].codes) < 0.05
    assert np.array_equal(oracle.logits([[1, 2, 3]], tie_breaker=lambda *at: codes[at])[0], free)


@pytest.mark.parametrize("size", [1e-9, 3e-5, 0.016, 1.0, 300.0, 1e38])
def test_master_weights_in_bfloat16_are_compared_by_their_bits(size: float) -> None:
    """As the formula quantises them, on every value near the threshold."""
    values = np.concatenate([np.linspace(-2, 2, 8000), np.linspace(0.49, 0.51, 96), np.linspace(-0.51, -0.49, 96)])
    bits = narrow_bf16((values * size).astype(np.float32)).reshape(64, -1)
    tensor = Tensor("w", "BF16", bits.shape, bits.view(np.uint8).reshape(-1), mmap.mmap(-1, 1), 0)
    codes, scales = absmean(tensor)
    weights = tensor.floats() * (np.float32(1) / scales)
    assert np.array_equal(codes, np.clip(np.rint(weights), -1, 1).astype(np.int8))
    some = np.array([5, 3, 60])
    assert np.array_equal(absmean_rows(tensor).rows(some), codes[some])


# -- checkpoints made by hand ------------------------------------------------------------------------------------------

MODULES = dict(zip(LINEARS, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")))  # fmt: skip
CONFIG = {
    "model_type": "llama", "hidden_act": "silu", "vocab_size": 24, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5, "rope_theta": 10000, "tie_word_embeddings": False,
}  # fmt: skip
SPEC = ModelSpec("llama", 24, 64, 96, 1, 2, 1, 32, 128, 10000.0, 1e-5, "silu", tied=False, sub_norms=False)
RNG = np.random.default_rng(5)


def floats(array: np.ndarray) -> tuple[str, list[int], bytes]:
    return "F32", list(array.shape), np.asarray(array, np.float32).tobytes()


def codes_of(rows: int, cols: int) -> np.ndarray:
    return RNG.integers(-1, 2, (rows, cols)).astype(np.int8)


def plain(codes: dict[str, np.ndarray], scales: dict[str, np.ndarray] | float = 0.5) -> Tensors:
    """A float checkpoint of one layer whose linears are codes times scales, which broadcast."""
    tensors = {
        "model.embed_tokens.weight": floats(RNG.normal(size=(24, 64))),
        "lm_head.weight": floats(RNG.normal(size=(24, 64))),
        "model.norm.weight": floats(np.ones(64)),
        "model.layers.0.input_layernorm.weight": floats(np.ones(64)),
        "model.layers.0.post_attention_layernorm.weight": floats(np.ones(64)),
    }
    for linear, code in codes.items():
        scale = scales if isinstance(scales, float) else scales[linear]
        tensors[f"model.layers.0.{MODULES[linear]}.weight"] = floats(code * np.float32(scale))
    return tensors


def some_codes() -> dict[str, np.ndarray]:
    return {linear: codes_of(*SPEC.linear_shape(linear)) for linear in LINEARS}


def checkpoint(folder: Path, tensors: Tensors, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def expanded(coded: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    codes, scales = coded
    blocks = [size // count for size, count in zip(codes.shape, scales.shape)]
    return codes * np.repeat(np.repeat(scales, blocks[0], 0), blocks[1], 1)


def test_ternary_floats_are_recovered_in_the_largest_blocks(tmp_path: Path) -> None:
    codes = some_codes()
    scales: dict[str, np.ndarray] = {
        "attn_q": np.array([[0.3]]),
        "attn_k": np.repeat([[0.1], [0.2]], 16, 0),  # two shards of rows
        "attn_v": np.arange(1, 33)[:, None] / 32,  # rows
        "attn_output": np.repeat([[0.1, 0.7]], 32, 1),  # two shards of columns
        "ffn_gate": np.repeat(RNG.uniform(1, 2, (96, 4)), 16, 1),  # groups of 16
        "ffn_up": np.array([[0.25]]),
        "ffn_down": np.repeat(RNG.uniform(1, 2, (64, 3)), 32, 1),  # groups of 32 in a row of 96
    }
    codes["ffn_up"][:] = 0
    codes["attn_k"][3], codes["ffn_gate"][5, :16] = 0, 0  # zeros have no magnitude of their own
    oracle = Oracle(checkpoint(tmp_path / "c", plain(codes, scales)))
    assert oracle.spec == ModelSpec(**{**vars(SPEC), "int8_activations": False})
    shapes = {"attn_q": (1, 1), "attn_k": (2, 1), "attn_v": (32, 1), "attn_output": (1, 2), "ffn_gate": (96, 4),
              "ffn_up": (1, 1), "ffn_down": (64, 3)}  # fmt: skip
    for linear, shape in shapes.items():
        found = oracle.linear(f"blk.0.{linear}")
        assert np.array_equal(found[0], codes[linear]), linear
        assert found[1].shape == shape, linear
        assert np.array_equal(expanded(found), codes[linear] * np.float32(scales[linear])), linear
    assert oracle.table_codes("token_embd") is None


def test_plain_floats_are_quantised_only_on_demand(tmp_path: Path) -> None:
    tensors = plain(some_codes())
    weights = RNG.normal(size=(96, 64)).astype(np.float32)
    tensors["model.layers.0.mlp.gate_proj.weight"] = floats(weights)
    folder = checkpoint(tmp_path / "c", tensors)
    with pytest.raises(Unsupported, match=r"gate_proj.*plain floats"):
        Oracle(folder)
    oracle = Oracle(folder, quantize="absmean")
    assert oracle.spec.int8_activations
    codes, scales = oracle.linear("blk.0.ffn_gate")
    mean = np.float32(np.abs(weights).mean(dtype=np.float64))
    assert scales.tolist() == [[mean]]
    assert np.array_equal(codes, np.clip(np.rint(weights * (np.float32(1) / mean)), -1, 1))
    # Floats that are ternary already stay what they are.
    ternary = checkpoint(tmp_path / "t", plain(some_codes()))
    assert Oracle(ternary, quantize="absmean").linear("blk.0.attn_q")[1].tolist() == [[0.5]]


def packed(codes: dict[str, np.ndarray], stored: float) -> Tensors:
    tensors = plain(codes)
    for linear, code in codes.items():
        module = f"model.layers.0.{MODULES[linear]}"
        quarters = (code + 1).astype(np.uint8).reshape(4, -1, code.shape[1])
        octets = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
        tensors[f"{module}.weight"] = ("U8", list(octets.shape), octets.tobytes())
        tensors[f"{module}.weight_scale"] = floats(np.array(stored))  # a scalar, too, is accepted
    return tensors


BITLINEAR = {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]}
OFFLINE = {**BITLINEAR, "linear_class": "autobitlinear", "quantization_mode": "offline"}


@pytest.mark.parametrize(
    ("quantization", "scale"), [(BITLINEAR, np.float32(1) / np.float32(7)), (OFFLINE, np.float32(7))]
)
def test_packed_scales_divide_or_multiply(tmp_path: Path, quantization: dict[str, Any], scale: np.float32) -> None:
    codes = some_codes()
    folder = checkpoint(tmp_path / "c", packed(codes, 7.0), quantization_config=quantization)
    down = Oracle(folder).linear("blk.0.ffn_down")
    assert np.array_equal(down[0], codes["ffn_down"])
    assert down[1].tolist() == [[scale]]


def test_each_tensor_tells_how_it_is_kept(tmp_path: Path) -> None:
    codes = some_codes()
    tensors = packed(codes, 7.0)
    tensors["model.layers.0.mlp.up_proj.weight"] = floats(codes["ffn_up"])  # codes, not packed
    up = Oracle(checkpoint(tmp_path / "c", tensors, quantization_config=OFFLINE)).linear("blk.0.ffn_up")
    assert np.array_equal(up[0], codes["ffn_up"]) and up[1].tolist() == [[7.0]]
    del tensors["model.layers.0.mlp.up_proj.weight_scale"]
    with pytest.raises(Unreadable, match=r"up_proj.weight_scale"):
        Oracle(checkpoint(tmp_path / "c", tensors, quantization_config=OFFLINE))
    online = {**OFFLINE, "quantization_mode": "online"}
    for mixed in (
        packed(codes, 7.0),
        {**plain(codes), "model.layers.0.mlp.up_proj.weight_scale": floats(np.array([7.0]))},
    ):
        with pytest.raises(Unsupported):
            Oracle(checkpoint(tmp_path / "c", mixed, quantization_config=online))


def test_master_weights_that_are_all_zero(tmp_path: Path) -> None:
    tensors = plain({linear: 0 * code for linear, code in some_codes().items()})
    online = {**OFFLINE, "quantization_mode": "online"}
    codes, scales = Oracle(checkpoint(tmp_path / "c", tensors, quantization_config=online)).linear("blk.0.attn_q")
    assert not codes.any() and scales.tolist() == [[np.float32(1e-5)]]


def mlx(codes: np.ndarray, group: int) -> tuple[dict[str, tuple[str, list[int], bytes]], np.ndarray]:
    rows, cols = codes.shape
    scales = RNG.uniform(0.5, 1, (rows, cols // group)).astype(np.float16)
    words = ((codes + 1).astype(np.uint32).reshape(rows, -1, 16) << np.arange(0, 32, 2, np.uint32)).sum(-1)
    return {
        "weight": ("U32", [rows, cols // 16], words.astype("<u4").tobytes()),
        "scales": ("F16", list(scales.shape), scales.tobytes()),
        "biases": ("F16", list(scales.shape), (-scales).tobytes()),
    }, scales.astype(np.float32)


def test_mlx_two_bits(tmp_path: Path) -> None:
    codes = some_codes()
    tensors = plain(codes)
    scales = {}
    for module, code in [("model.embed_tokens", codes_of(24, 64))] + [
        (f"model.layers.0.{MODULES[linear]}", code) for linear, code in codes.items()
    ]:
        parts, scales[module] = mlx(code, 32)
        tensors |= {f"{module}.{part}": entry for part, entry in parts.items()}
    quantization = {"group_size": 32, "bits": 2}
    oracle = Oracle(checkpoint(tmp_path / "c", tensors, quantization=quantization, quantization_config=quantization))
    assert not oracle.spec.int8_activations
    for linear, code in codes.items():
        found = oracle.linear(f"blk.0.{linear}")
        assert np.array_equal(found[0], code), f"{linear} {code}"
        assert np.array_equal(found[1], scales[f"model.layers.0.{MODULES[linear]}"]), f"{linear} {code}"
    table = oracle.table_codes("token_embd")
    assert table is not None and oracle.table_codes("output") is None
    assert np.array_equal(expanded(table), oracle.original_rows("token_embd", 0, 24))
    assert np.array_equal(expanded(table)[[3, 1]], oracle.embedding(np.array([3, 1])))
    with pytest.raises(Unsupported, match="2 bits"):
        Oracle(checkpoint(tmp_path / "c", tensors, quantization={"group_size": 32, "bits": 4}))


def test_the_code_3_is_refused(tmp_path: Path) -> None:
    codes = some_codes()
    three = {**codes, "attn_q": codes["attn_q"].copy()}
    three["attn_q"][7, 9] = 2
    with pytest.raises(Unreadable, match=r"q_proj.*code 3"):
        Oracle(checkpoint(tmp_path / "c", packed(three, 1.0), quantization_config=OFFLINE)).linear("blk.0.attn_q")
    tensors = plain(codes)
    tensors |= {f"model.layers.0.self_attn.q_proj.{part}": entry for part, entry in mlx(three["attn_q"], 32)[0].items()}
    with pytest.raises(Unreadable, match=r"q_proj.*code 3"):
        Oracle(checkpoint(tmp_path / "c", tensors, quantization={"bits": 2})).linear("blk.0.attn_q")


def test_the_last_of_two_quantization_configs_counts(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "c", packed(some_codes(), 4.0))
    text = json.dumps(CONFIG)[:-1]
    first, last = json.dumps(OFFLINE), json.dumps(BITLINEAR)
    (folder / "config.json").write_text(f'{text}, "quantization_config": {first}, "quantization_config": {last}}}')
    assert Oracle(folder).linear("blk.0.attn_q")[1].tolist() == [[0.25]]


def test_a_head_is_tied_only_if_it_equals_the_embedding(tmp_path: Path) -> None:
    tensors = plain(some_codes())
    assert not Oracle(checkpoint(tmp_path / "c", tensors, tie_word_embeddings=True)).spec.tied
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    assert Oracle(checkpoint(tmp_path / "c", tensors, tie_word_embeddings=True)).spec.tied
    del tensors["lm_head.weight"]
    assert Oracle(checkpoint(tmp_path / "c", tensors, tie_word_embeddings=True)).spec.tied
    with pytest.raises(Unreadable, match="lm_head"):
        Oracle(checkpoint(tmp_path / "c", tensors, tie_word_embeddings=False))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}}, "truncate"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"model_type": "mistral"}, "mistral"),
        ({"model_type": "qwen3"}, "qwen3"),
        ({"hidden_act": "relu"}, "relu"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 2}}, "gptq"),
        ({"quantization_config": {**OFFLINE, "modules_to_not_convert": ["lm_head", "model.layers.0"]}}, "spares"),
        ({"quantization_config": {**OFFLINE, "modules_to_not_convert": ["model.embed_tokens"]}}, "lm_head"),
        ({"prism": {"hadamard": {"block": 64}}}, "Hadamard"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, config: dict[str, Any], what: str) -> None:
    tensors = packed(some_codes(), 1.0) if "quant_method" in str(config) else plain(some_codes())
    with pytest.raises(Unsupported, match=what):
        Oracle(checkpoint(tmp_path / "c", tensors, **config))


@pytest.mark.parametrize("name", ["self_attn.q_proj.bias", "self_attn.q_proj.rms_norm.weight", "mlp.extra_ln.weight"])
def test_a_tensor_that_nobody_reads_is_refused(tmp_path: Path, name: str) -> None:
    tensors = {**plain(some_codes()), f"model.layers.0.{name}": floats(np.ones(64))}
    with pytest.raises(Unsupported, match=name):
        Oracle(checkpoint(tmp_path / "c", tensors))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut in the size": lambda whole: whole[:7],
    "cut in the header": lambda whole: whole[:100],
    "cut in the data": lambda whole: whole[:-1],
    "a huge header": lambda whole: b"\xff" * 8 + whole[8:],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_safetensors_are_one_sentence(tmp_path: Path, name: str) -> None:
    folder = checkpoint(tmp_path / "c", plain(some_codes()))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(DAMAGES[name](whole))
    with pytest.raises(Unreadable):
        Oracle(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**9}, {"num_attention_heads": 0}, {"vocab_size": "many"}, {"hidden_size": 63},
        {"rope_theta": float("nan")}, {"rope_scaling": {"rope_type": "llama3"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_one_sentence(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        Oracle(checkpoint(tmp_path / "c", plain(some_codes()), **config))


@pytest.mark.parametrize("pattern", ["(", "((\\w|\\.)+)+!", ".*a" * 20 + ".*x", ".*" * 40 + "!"])
def test_patterns_that_could_match_for_ever_are_refused(tmp_path: Path, pattern: str) -> None:
    quantization = {**OFFLINE, "modules_to_not_convert": [pattern]}
    with pytest.raises(Unsupported, match="modules_to_not_convert"):
        Oracle(checkpoint(tmp_path / "c", plain(some_codes()), quantization_config=quantization))


def test_files_of_another_kind_are_one_sentence(tmp_path: Path) -> None:
    tensors = plain(some_codes())
    folder = checkpoint(tmp_path / "c", tensors)
    (folder / "config.json").write_text("[]")
    with pytest.raises(Unreadable):
        Oracle(folder)
    tensors["model.layers.0.mlp.up_proj.weight"] = floats(np.full((96, 64), np.nan))
    with pytest.raises(Unreadable, match=r"up_proj.*not finite"):
        Oracle(checkpoint(tmp_path / "c", tensors))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"])
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = checkpoint(tmp_path / "c", plain(some_codes()))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(Unreadable, match=f"{name}: is a pipe"):
        Oracle(folder)


def test_long_rope_ends_where_its_factors_change(tmp_path: Path) -> None:
    short, long = [1.0] * 16, [2.0] * 16
    rope = {"rope_type": "longrope", "short_factor": short, "long_factor": long, "original_max_position_embeddings": 32}
    tensors = plain(some_codes())
    assert Oracle(checkpoint(tmp_path / "c", tensors, rope_scaling=rope)).spec.context_length == 32
    same = {**rope, "long_factor": short}
    spec = Oracle(checkpoint(tmp_path / "c", tensors, rope_scaling=same)).spec
    assert spec.context_length == 128 and spec.rope_scaling is not None
    assert spec.rope_scaling.attention_factor == pytest.approx((1 + np.log(4) / np.log(32)) ** 0.5)


def test_sources_it_does_not_know(tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = edited_checkpoint(tiny_checkpoint, tmp_path / "a", config=lambda c: c.pop("quantization_config"))
    with pytest.raises(Unsupported):
        Oracle(other)
    with pytest.raises(Unreadable):
        Oracle(tmp_path / "none")


# -- some rows at a time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blk.1.ffn_down", "blk.0.attn_k"])
@pytest.mark.parametrize("kind", ["packed", "online"])
def test_rows_are_those_of_the_whole(kind: str, name: str, tiny_checkpoint: Path, online_checkpoint: Path) -> None:
    oracle = Oracle({"packed": tiny_checkpoint, "online": online_checkpoint}[kind])
    codes, scales = oracle.linear(name)
    coded = oracle.linear_rows(name)
    assert coded is not None and np.array_equal(coded.scales, scales)
    quarter = len(codes) // 4
    for first, last in (
        (0, len(codes)),
        (0, 1),
        (quarter - 3, quarter + 3),
        (5, 3 * quarter + 1),
        (quarter, 2 * quarter),
    ):
        assert np.array_equal(coded.rows(slice(first, last)), codes[first:last]), (first, last)
    order = np.random.default_rng(1).permutation(len(codes))
    assert np.array_equal(coded.rows(order), codes[order])


def test_an_illegal_code_is_no_legal_one(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def three(tensors: Tensors) -> None:
        dtype, shape, data = tensors["model.layers.0.self_attn.k_proj.weight"]
        tensors["model.layers.0.self_attn.k_proj.weight"] = dtype, shape, b"\xc0" + data[1:]

    coded = Oracle(edited_checkpoint(tiny_checkpoint, tmp_path / "bad", tensors=three)).linear_rows("blk.0.attn_k")
    assert coded is not None
    codes = coded.rows(np.arange(128))
    assert np.count_nonzero(codes == 2) == 1 and codes[96, 0] == 2

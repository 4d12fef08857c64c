"""Checkpoint in, GGUF out: exact codes and scales, GGUF conventions, refusals with a sentence, nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DEMO, REPOSITORY
from tests.make import families
from tests.make.checkpoints import Tensors, edited_checkpoint, read_safetensors
from tests.make.storage import ternary_floats
from tritpack.converter.convert import convert
from tritpack.converter.plan import make_plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.source_model import from_checkpoint
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats import float_types
from tritpack.formats.errors import TritpackError, Unreadable, Unsupported, UsageError, WriteFailed
from tritpack.formats.gguf_reader import GgufFile

Q0 = "model.layers.0.self_attn.q_proj.weight"


def codes_by_hand(packed: bytes, rows: int, cols: int) -> np.ndarray:
    """The words of the specification, one weight at a time would take too long: one quarter at a time."""
    quarters = np.frombuffer(packed, np.uint8).reshape(rows // 4, cols)
    return np.vstack([((quarters // 4**i) % 4).astype(np.int8) - 1 for i in range(4)])


def test_codes_and_scales_are_exact(tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    stored = read_safetensors(tiny_checkpoint / "model.safetensors")
    file = GgufFile(tiny_gguf)
    names = {"attn_q": "self_attn.q_proj", "attn_output": "self_attn.o_proj", "ffn_down": "mlp.down_proj"}
    for part, module in names.items():
        info = file.tensors[f"blk.1.{part}.weight"]
        tensor = file.ternary(info)
        assert tensor is not None, f"{part} {module}"
        source = f"model.layers.1.{module}.weight"
        assert np.array_equal(tensor.codes, codes_by_hand(stored[source][2], info.rows, info.cols)), f"{part} {module}"
        scale = np.frombuffer(b"\0\0" + stored[source + "_scale"][2], "<f4")[0]
        assert tensor.scales[0, 0] == scale, f"{part} {module}"
        assert not file.bytes_of(info)[-28:].any(), f"{part} {module}"


def test_gguf_conventions(tiny_gguf: Path) -> None:
    file = GgufFile(tiny_gguf)
    m = file.metadata
    assert m["general.architecture"] == "bitnet-b1.58" and m["general.file_type"] == 40
    assert m["bitnet-b1.58.hidden_activation"] == "relu2"
    assert m["bitnet-b1.58.rope.freq_base"] == 500000.0 and m["bitnet-b1.58.rope.dimension_count"] == 64
    assert m["tokenizer.ggml.pre"] == "llama-bpe" and m["tokenizer.ggml.model"] == "gpt2"
    assert m["tokenizer.chat_template"].startswith("{% for m in messages %}")
    assert sorted(m["tritpack.tokenizer.stop_token_ids"].tolist()) == [
        m["tokenizer.ggml.eos_token_id"],
        m["tokenizer.ggml.eot_token_id"],
    ]
    norms = ["attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm"]
    linears = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    expected = {f"blk.{i}.{name}.weight" for i in range(2) for name in norms + linears}
    expected |= {"token_embd.weight", "output_norm.weight"}
    assert set(file.tensors) == expected
    assert file.tensors["token_embd.weight"].layout == "f16"
    assert {t.layout for n, t in file.tensors.items() if "norm" in n} == {"f32"}
    assert len(m["general.source.sha256"]) == 64


def test_the_same_checkpoint_gives_the_same_bytes_anywhere(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "other name"
    shutil.copytree(tiny_checkpoint, copy)
    convert(copy, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == tiny_gguf.read_bytes()


def test_online_masters_are_quantised_by_absmean_once(online_checkpoint: Path, tmp_path: Path) -> None:
    convert(online_checkpoint, tmp_path / "o.gguf")
    file, oracle = GgufFile(tmp_path / "o.gguf"), Oracle(online_checkpoint)
    for name in ("blk.0.attn_q", "blk.1.ffn_down"):
        info = file.tensors[f"{name}.weight"]
        tensor = file.ternary(info)
        assert tensor is not None, name
        codes, scale = oracle.linear(name)
        assert np.array_equal(tensor.codes, codes) and tensor.scales[0, 0] == scale, name
        assert 0.2 < (codes == 0).mean() < 0.45, name


def test_a_dividing_scale_is_inverted(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def bitlinear(config: dict) -> None:
        del config["quantization_config"]["linear_class"]

    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c", config=bitlinear)
    result = convert(folder, tmp_path / "d.gguf")
    multiplying = convert(tiny_checkpoint, tmp_path / "m.gguf")
    assert "divides" in result.plan.why and "multiplies" in multiplying.plan.why
    for name, (smallest, largest) in result.scales.items():
        assert smallest == largest == np.float32(1) / np.float32(multiplying.scales[name][0]), (
            f"{name} {smallest} {largest}"
        )


def test_sharded_checkpoints(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """Scale and weight in different shards, in any order."""
    from tests.make.checkpoints import write_safetensors

    folder = tmp_path / "sharded"
    shutil.copytree(tiny_checkpoint, folder)
    tensors = read_safetensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for shard in range(3):
        name = f"model-{shard + 1:05}-of-00003.safetensors"
        part = {n: t for i, (n, t) in enumerate(reversed(tensors.items())) if i % 3 == shard}
        write_safetensors(folder / name, part)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    convert(folder, tmp_path / "s.gguf")
    one, other = GgufFile(tmp_path / "s.gguf"), GgufFile(tiny_gguf)
    for name, tensor in other.tensors.items():
        assert np.array_equal(one.bytes_of(one.tensors[name]), other.bytes_of(tensor)), name
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(Unreadable, match="model-00002-of-00003"):
        convert(folder, tmp_path / "t.gguf")


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q6_k", "q4_k"])
def test_embedding_types(tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    convert(tiny_checkpoint, tmp_path / "e.gguf", embedding_type=kind)
    file, oracle = GgufFile(tmp_path / "e.gguf"), Oracle(tiny_checkpoint)
    info = file.tensors["token_embd.weight"]
    assert info.layout == kind
    exact = oracle.original_rows("token_embd", 0, info.rows)
    back = float_types.decode(kind, file.bytes_of(info), info.rows, info.cols)
    assert np.array_equal(back, exact) if kind in ("f32", "f16", "bf16") else np.allclose(back, exact, atol=0.3)


def test_auto_embedding_keeps_bf16_that_f16_would_round(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def small(tensors: Tensors) -> None:
        dtype, shape, data = tensors["model.embed_tokens.weight"]
        bits = np.frombuffer(data, "<u2").copy()
        bits[5] = 0x2EDB  # about 1e-10
        tensors["model.embed_tokens.weight"] = (dtype, shape, bits.tobytes())

    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c", tensors=small)
    assert convert(folder, tmp_path / "x.gguf").plan.embedding_type == "bf16"


def test_a_file_of_a_checkpoint_is_answered_with_its_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="is a file, expected a checkpoint folder") as caught:
        convert(tiny_checkpoint / "model.safetensors", tmp_path / "out.gguf")
    assert caught.value.hint == f"give its folder: {tiny_checkpoint}"


def test_results_are_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = convert(tiny_checkpoint, tmp_path / "x.gguf", outtype="t158")
    model = from_checkpoint(CheckpointFolder(tiny_checkpoint), None, None)
    for value in (result, result.plan, result.plan.choice, model):
        assert len(repr(value)) < 300 and "\n" not in repr(value), type(value)
    assert str(result) == f"{tmp_path / 'x.gguf'}: {result.plan.output_bytes} bytes, t158, embedding f16"


@pytest.mark.parametrize("command", ["convert", "repack", "export", "make-dummy"])
def test_help_is_quick(command: str) -> None:
    """What makes it slow is importing numpy or the layouts."""
    program = (
        "import sys\n"
        f"sys.argv = ['tritpack', '{command}', '--help']\n"
        "from tritpack.converter.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'yaml', 'tritpack.formats.layouts'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "Usage: " in shown.stdout and shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("option", "value"), [("target", "vllm"), ("quantize", "gptq"), ("embedding_type", "q2_k"), ("tl2_id", 40)]
)
def test_unknown_values_of_options(option: str, value: object, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=str(value)):
        convert(tiny_checkpoint, tmp_path / "x.gguf", **{option: value})  # type: ignore[arg-type]


def test_an_all_zero_tensor_is_survived_and_said(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def zero(tensors: Tensors) -> None:
        dtype, shape, data = tensors[Q0]
        tensors[Q0] = (dtype, shape, b"\x55" * len(data))

    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c", tensors=zero)
    assert any("all zero" in warning and Q0 in warning for warning in convert(folder, tmp_path / "z.gguf").warnings)


def test_scales_of_the_wrong_direction_are_said_with_numbers(tmp_path: Path) -> None:
    """The demo says that its scales multiply; without that they divide, and no file can show that they should not."""
    folder = edited_checkpoint(
        DEMO / "checkpoint", tmp_path / "c", config=lambda c: c["quantization_config"].pop("linear_class")
    )
    [warning] = [w for w in convert(folder, tmp_path / "wrong.gguf").warnings if "than in any trained model" in w]
    assert "scales of 28 of 28 ternary tensors" in warning and "up to 11.31 in" in warning
    assert not convert(DEMO / "checkpoint", tmp_path / "right.gguf").warnings


def test_unused_tensors_are_reported(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = edited_checkpoint(
        tiny_checkpoint, tmp_path / "c", tensors=lambda t: t.update({"extra.bias": ("BF16", [1], b"\0\0")})
    )
    result = convert(folder, tmp_path / "z.gguf")
    assert result.plan.unused == ("extra.bias",) and "extra.bias" in result.warnings[0]


def set_tensor(name: str, value: tuple[str, list[int], bytes] | None):  # type: ignore[no-untyped-def]
    def change(tensors: Tensors) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return change


def with_three(tensors: Tensors) -> None:
    dtype, shape, data = tensors[Q0]
    tensors[Q0] = (dtype, shape, data[:300] + b"\xff" + data[301:])


BROKEN = {
    "missing scale": ({"tensors": set_tensor(Q0 + "_scale", None)}, Unreadable, Q0 + "_scale"),
    "missing tensor": ({"tensors": set_tensor("model.norm.weight", None)}, Unreadable, "model.norm.weight"),
    "code 3": ({"tensors": with_three}, Unreadable, f"{Q0}': code 3 at row"),
    "wrong shape": ({"tensors": set_tensor(Q0, ("U8", [32, 256], bytes(32 * 256)))}, Unreadable, Q0),
    "NaN scale": ({"tensors": set_tensor(Q0 + "_scale", ("BF16", [1], b"\xc0\x7f"))}, Unreadable, "positive number"),
    "zero scale": ({"tensors": set_tensor(Q0 + "_scale", ("BF16", [1], b"\0\0"))}, Unreadable, "positive number"),
    "two scales": ({"tensors": set_tensor(Q0 + "_scale", ("BF16", [2], bytes(4)))}, Unreadable, "expected one element"),
    "NaN norm": (
        {"tensors": set_tensor("model.norm.weight", ("BF16", [256], b"\xc0\x7f" * 256))},
        Unreadable,
        "model.norm.weight",
    ),
    "float linear": ({"tensors": set_tensor(Q0, ("BF16", [256, 256], b"\0\x3f" * 65536))}, Unreadable, Q0),
    "quant_method": ({"config": lambda c: c["quantization_config"].update(quant_method="awq")}, Unsupported, "awq"),
    "linear_class": (
        {"config": lambda c: c["quantization_config"].update(linear_class="x")},
        Unsupported,
        "linear_class",
    ),
    "mode": (
        {"config": lambda c: c["quantization_config"].update(quantization_mode="x")},
        Unsupported,
        "quantization_mode",
    ),
    "use_rms_norm": (
        {"config": lambda c: c["quantization_config"].update(use_rms_norm=True)},
        Unreadable,
        "q_proj.rms_norm.weight': is missing",
    ),
    "no quantization": ({"config": lambda c: c.pop("quantization_config")}, Unsupported, "quantization_config"),
    "activation": ({"config": lambda c: c.update(hidden_act="gelu")}, Unsupported, "gelu"),
    "rope scaling": ({"config": lambda c: c.update(rope_scaling={"type": "dynamic"})}, Unsupported, "dynamic"),
    "rope factor": ({"config": lambda c: c.update(rope_scaling={"type": "yarn", "factor": -4})}, Unreadable, "factor"),
    "rope_parameters a text": ({"config": lambda c: c.update(rope_parameters="x")}, Unreadable, "rope_parameters"),
    "huge theta": ({"config": lambda c: c.update(rope_theta=10**400)}, Unreadable, "rope_theta"),
    "tiny eps": ({"config": lambda c: c.update(rms_norm_eps=1e-60)}, Unreadable, "norm_eps"),
    "endless positions": (
        {"config": lambda c: c.update(max_position_embeddings=2**33)},
        Unreadable,
        "max_position_embeddings",
    ),
    "10**8 layers": ({"config": lambda c: c.update(num_hidden_layers=10**8)}, Unreadable, "num_hidden_layers"),
    "no hidden_size": ({"config": lambda c: c.pop("hidden_size")}, Unreadable, "hidden_size"),
    "negative layers": ({"config": lambda c: c.update(num_hidden_layers=-1)}, Unreadable, "layers"),
    "text for a number": ({"config": lambda c: c.update(rms_norm_eps="small")}, Unreadable, "rms_norm_eps"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_get_a_sentence(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    change, kind, words = BROKEN[name]
    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c", **change)
    with pytest.raises(kind) as caught:
        convert(folder, tmp_path / "x.gguf")
    assert words in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_rows_that_do_not_fit_i2_s_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from tritpack.converter.tools import make_dummy

    narrow = dataclasses.replace(make_dummy.SHAPES["tiny"], intermediate_size=736)
    monkeypatch.setitem(make_dummy.SHAPES, "tiny", narrow)
    make_dummy.make_dummy(tmp_path / "c", shape="tiny")
    with pytest.raises(Unsupported, match=r"down_proj.*736 weights are not a multiple of 128"):
        convert(tmp_path / "c", tmp_path / "x.gguf", outtype="i2_s")
    assert convert(tmp_path / "c", tmp_path / "x.gguf").plan.outtype == "t2"


def test_groups_of_16_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Entrit's models of one trit: float16 weights of 16 that share a scale."""
    by_16 = ternary_floats("F16", families.by_group(16))
    monkeypatch.setitem(families.FAMILIES, "d1", dataclasses.replace(families.FAMILIES["trilm"], store=by_16))
    made = families.make("d1", tmp_path)
    plan = convert(tmp_path, tmp_path / "m.gguf").plan
    assert plan.granularity == {"group 16": 14} and plan.outtype == "t2"
    file = GgufFile(tmp_path / "m.gguf")
    up = file.ternary(file.tensors["blk.1.ffn_up.weight"])
    assert up is not None and np.array_equal(
        up.dequantize(), made.truth["model.layers.1.mlp.up_proj.weight"].dequantize()
    )


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80")
    (tmp_path / "parameters").mkdir()
    (tmp_path / "parameters" / "parameters.pth").write_bytes(b"\x80")
    (tmp_path / "packed").mkdir()
    for name in ("parameters.pth", "Qwen3-4B-catq-q2_0.gguf"):
        (tmp_path / "packed" / name).write_bytes(b"\x80")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text("{not json")
    (tmp_path / "file").write_text("")
    expected: dict[str, tuple[type[TritpackError], str]] = {
        "packed": (Unreadable, "(?s)has no config.json.*give the GGUF file itself.*catq-q2_0.gguf"),
        "none": (Unreadable, "does not exist"),
        "file": (Unreadable, "is a file"),
        "empty": (Unreadable, "config.json"),
        "pickled": (Unsupported, "pickle"),
        "parameters": (Unsupported, "(?s)parameters.pth is a pickle.*CAT-Q"),
        "text": (Unreadable, "not readable JSON"),
    }
    for name, (kind, words) in expected.items():
        with pytest.raises(kind) as caught:
            convert(tmp_path / name, tmp_path / "x.gguf")
        assert re.search(words, f"{caught.value}\n{caught.value.hint}"), name


def test_a_truncated_safetensors_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(tiny_checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Unreadable, match="not a whole safetensors file"):
        convert(folder, tmp_path / "x.gguf")


def test_outputs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    target.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        convert(tiny_checkpoint, target)
    assert target.read_text() == "precious"
    convert(tiny_checkpoint, target, force=True)
    assert GgufFile(target).tensors
    with pytest.raises(WriteFailed, match="does not exist"):
        convert(tiny_checkpoint, tmp_path / "no" / "x.gguf")


def test_the_plan_knows_the_exact_size(tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    plan = make_plan(CheckpointFolder(tiny_checkpoint))
    assert plan.output_bytes == tiny_gguf.stat().st_size
    assert plan.peak_bytes < 1 << 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_conversion_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path, number: int) -> None:
    """A real process, stopped while it writes: the slow tensor gives the signal time to arrive."""
    program = (
        "import os, time\n"
        "from tritpack.converter.pipeline.jobs import CodeRows\n"
        "real = CodeRows.take\n"
        "def slow(*a):\n    os.write(1, b'writing\\n'); time.sleep(1); real(*a)\n"
        "CodeRows.take = slow\n"
        "from tritpack.converter.cli.main import main\nmain()\n"
    )
    arguments = ["convert", str(tiny_checkpoint), "-o", str(tmp_path / "x.gguf")]
    child = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"writing\n"
    time.sleep(0.1)
    os.kill(child.pid, number)
    assert child.wait(20) == 128 + number
    assert list(tmp_path.iterdir()) == []

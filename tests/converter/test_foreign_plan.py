"""Files of architectures that are not run here: their ternary tensors get another layout, all else stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make import stq1_0
from tests.make.checkpoints import edited_gguf, split_gguf
from tritpack.converter.convert import convert
from tritpack.converter.diff.diff import diff
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.repack import repack
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.integrity import KEYS, recorded_hashes
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime.model import Model

EXPERTS, ROWS, COLS = 3, 2, 256


@pytest.fixture(scope="module")
def hunyuan(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, TernaryTensor]]:
    """A file like AngelSlim's: STQ1_0 under id 42, and the codes in it."""
    folder = tmp_path_factory.mktemp("hunyuan")
    truth = stq1_0.written(tiny_gguf, folder / "llama.gguf", 42, general__file_type=41)

    def renamed(keys: dict[str, object]) -> None:
        old = str(keys["general.architecture"])
        for key in [key for key in keys if key.startswith(f"{old}.")]:
            keys[f"hunyuan-dense.{key.removeprefix(f'{old}.')}"] = keys.pop(key)
        keys["general.architecture"] = "hunyuan-dense"
        del keys["hunyuan-dense.hidden_activation"]

    return edited_gguf(folder / "llama.gguf", folder / "hunyuan.gguf", metadata=renamed), truth


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TernaryTensor]:
    """A file like CAT-Q's mixture of experts: groups of 128 under id 42, all experts of a layer in one tensor; beside
    it a table of another type, and one of a type that nobody knows."""
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, 2, (EXPERTS * ROWS, COLS)).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, (EXPERTS * ROWS, COLS // 128)).astype(np.float16).astype(np.float32)
    tensor = TernaryTensor(codes, scales)
    packed = LAYOUTS["pq2_0"].pack(tensor)
    noise = rng.integers(0, 256, 192).astype(np.uint8)
    plans = {
        "token_embd.weight": (TensorPlan("token_embd.weight", (1, 256), 2, 144), noise[:144]),  # q4_0
        "blk.0.ffn_up_exps.weight": (TensorPlan("", (EXPERTS, ROWS, COLS), 42, packed.size), packed),
        "blk.0.strange.weight": (TensorPlan("", (7, 5), 77, 192), noise),
    }
    path = tmp_path_factory.mktemp("experts") / "moe.gguf"
    keys = {"general.architecture": "qwen3moe", "qwen3moe.block_count": 1, "general.file_type": 41}
    tensors = [TensorPlan(name, plan.shape, plan.type_id, plan.nbytes) for name, (plan, _) in plans.items()]
    write_gguf(path, keys, tensors, ([data] for _, data in plans.values()))
    return path, tensor


def same(file: GgufFile, name: str, tensor: TernaryTensor) -> bool:
    read = file.ternary(file.tensors[name])
    return read is not None and np.array_equal(read.dequantize(), tensor.dequantize())


@pytest.mark.parametrize("outtype", ["auto", "t158", "q2_0", "ptq1_0"])
def test_codes_and_scales_stay(hunyuan: tuple[Path, dict[str, TernaryTensor]], tmp_path: Path, outtype: str) -> None:
    path, truth = hunyuan
    made = repack(path, tmp_path / "made.gguf", outtype=outtype)
    before, file = GgufFile(path), GgufFile(made.path)
    assert (
        made.plan.outtype == ("tq2_0" if outtype == "auto" else outtype) and made.plan.architecture == "hunyuan-dense"
    )
    assert all(same(file, name, tensor) for name, tensor in truth.items())
    others = [name for name in file.tensors if name not in truth]
    assert all(np.array_equal(before.bytes_of(before.tensors[n]), file.bytes_of(file.tensors[n])) for n in others)
    ours = {"general.file_type", "tritpack.version", "tritpack.layout", "tritpack.embedding_type", *KEYS}
    ours |= {"general.source.format", "general.source.sha256"}
    kept = {key: str(value) for key, value in before.metadata.items() if key not in ours}
    assert {key: str(value) for key, value in file.metadata.items() if key not in ours} == kept
    assert file.metadata["general.source.sha256"] == before.sha256
    assert recorded_hashes(file).keys() == file.tensors.keys() and diff(path, made.path)["verdict"] == "same"
    again = repack(made.path, tmp_path / "again.gguf", outtype="t2")
    assert all(same(GgufFile(again.path), name, tensor) for name, tensor in truth.items())
    assert GgufFile(again.path).metadata["general.source.sha256"] == before.sha256


@pytest.mark.parametrize(("outtype", "type_id"), [("pq2_0", 142), ("q2_0", 42), ("t158", 1585)])
def test_experts_are_repacked_together(
    experts: tuple[Path, TernaryTensor], tmp_path: Path, outtype: str, type_id: int
) -> None:
    path, tensor = experts
    repack(path, made := tmp_path / "made.gguf", outtype=outtype)
    before, file = GgufFile(path), GgufFile(made)
    info = file.tensors["blk.0.ffn_up_exps.weight"]
    assert (info.shape, info.type_id, info.layout) == ((EXPERTS, ROWS, COLS), type_id, outtype)
    assert same(file, info.name, tensor)
    for name in ("token_embd.weight", "blk.0.strange.weight"):
        assert file.tensors[name].type_id == before.tensors[name].type_id, name
        stored = [each.bytes_of(each.tensors[name])[:144] for each in (file, before)]
        assert np.array_equal(*stored), name


def test_a_plan_is_shown_and_a_split_file_read(experts: tuple[Path, TernaryTensor], tmp_path: Path) -> None:
    path, tensor = experts
    shown = run("repack", path, "-o", tmp_path / "x.gguf", "--dry-run", "--tensors")
    assert shown.exit_code == 0 and "qwen3moe, which tritpack repacks and does not run" in shown.stdout
    assert not (tmp_path / "x.gguf").exists()
    [first, *_] = split_gguf(path, tmp_path, [0, 1, 3])
    repack(first, made := tmp_path / "made.gguf")
    assert same(GgufFile(made), "blk.0.ffn_up_exps.weight", tensor)
    assert GgufFile(made).tensors["blk.0.ffn_up_exps.weight"].layout == "q2_0"


def test_what_cannot_be_is_refused(
    hunyuan: tuple[Path, dict[str, TernaryTensor]], experts: tuple[Path, TernaryTensor], tmp_path: Path
) -> None:
    path, out = hunyuan[0], tmp_path / "x.gguf"
    with pytest.raises(Unsupported, match="i2_s cannot hold it exactly: it holds one scale per tensor") as caught:
        repack(path, out, outtype="i2_s")
    assert caught.value.tensor == "blk.0.attn_q.weight" and "t158, tq1_0, tq2_0" in (caught.value.hint or "")
    for outtype in ("tl1", "stq1_0"):
        with pytest.raises(Unsupported, match=f"--outtype {outtype} is not for models that tritpack does not run"):
            repack(path, out, outtype=outtype)
    with pytest.raises(Unsupported, match="iq2_bn_r4 cannot hold it exactly"):
        repack(path, out, target="ik_llama.cpp")
    with pytest.raises(Unsupported, match=r"bitnet\.cpp will not run this model right: it does not know type id 42"):
        repack(experts[0], out, target="bitnet.cpp", outtype="q2_0")
    with pytest.raises(UsageError, match="--embedding-type is not for a file of architecture"):
        repack(path, out, embedding_type="q8_0")
    with pytest.raises(UsageError, match="--quantize is not for"):
        convert(path, out, quantize="absmean")
    floats = edited_gguf(path, tmp_path / "floats.gguf", tensors=lambda data: [data.pop(name) for name in hunyuan[1]])
    with pytest.raises(Unsupported, match="cannot be run, and no tensor is ternary"):
        repack(floats, out)
    (cut := tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(Unreadable, match="the file has"):
        repack(cut, out)
    assert not out.exists()


def test_inspect_says_how_to_make_a_file_for_an_engine(
    hunyuan: tuple[Path, dict[str, TernaryTensor]], tmp_path: Path
) -> None:
    found = {engine["engine"]: engine for engine in inspect(hunyuan[0])["engines"]}
    assert found["llama.cpp"]["verdict"] == "refuses"
    assert found["llama.cpp"]["command"].endswith("--for llama.cpp") and not found["tritpack"]["command"]
    assert not found["MLX"]["command"], "nothing exports a model that is not run"
    repack(hunyuan[0], made := tmp_path / "made.gguf", target="llama.cpp")
    assert {engine["engine"]: engine for engine in inspect(made)["engines"]}["llama.cpp"]["verdict"] == "unknown"
    assert GgufFile(made).metadata["tritpack.target"] == "llama.cpp"
    repack(made, tmp_path / "again.gguf", outtype="t158")
    assert "tritpack.target" not in GgufFile(tmp_path / "again.gguf").metadata, "it is not for that engine any more"


def test_it_is_not_run(hunyuan: tuple[Path, dict[str, TernaryTensor]]) -> None:
    with pytest.raises(Unsupported, match="architecture 'hunyuan-dense' cannot be run"):
        Model(hunyuan[0])
    result = run("generate", hunyuan[0], "-p", "a")
    assert exit_code_of(result) == 4

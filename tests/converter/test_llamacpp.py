"""llama.cpp itself (extra `engines`) on files that we wrote for it: the same model, up to its own arithmetic.

It quantises activations in blocks (of 256, for Q2_0 of 32) where the models have one scale a token, and keeps keys and
values in float16. That is worth 1.5e-2 to 3e-2 relative rms on random models, with the same greedy tokens where margins
are wide; what a wrong scale, order or graph does is worth 1.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SHARED
from tests.make.checkpoints import edited_checkpoint
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.tools.make_dummy import make_dummy
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan
from tritpack.formats.split_writer import split_plan, write_shards
from tritpack.runtime.model import Model

LIMIT = {"tq1_0": 4e-2, "tq2_0": 4e-2, "q2_0": 5e-2}
F32 = np.ndarray


@pytest.fixture(scope="module")
def llama() -> Any:
    library = pytest.importorskip("llama_cpp", reason="llama-cpp-python (extra `engines`) is not installed")
    quiet = library.llama_log_callback(lambda level, text, user: None)
    library.llama_log_set(quiet, ctypes.c_void_p(0))
    library.llama_backend_init()
    library.kept = quiet  # or it is collected while C still calls it
    return library


def run_llamacpp(llama: Any, path: Path, prompt: list[int], count: int) -> tuple[F32, list[int]]:
    """float32 logits (prompt + count, vocab) and the greedy ids, the prompt in one batch."""
    options = llama.llama_model_default_params()
    options.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(str(path).encode(), options)
    assert model, f"llama.cpp does not load {path.name}"
    settings = llama.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = 256, 256, 256
    settings.n_threads = settings.n_threads_batch = 1
    context = llama.llama_init_from_model(model, settings)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    batch = llama.llama_batch_init(256, 0, 1)
    rows: list[F32] = []

    def feed(tokens: list[int]) -> None:
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, len(rows) + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert llama.llama_decode(context, batch) == 0
        for i in range(len(tokens)):
            pointer = llama.llama_get_logits_ith(context, i)
            rows.append(np.ctypeslib.as_array(pointer, (vocabulary,)).astype(np.float32).copy())

    feed(prompt)
    written: list[int] = []
    for _ in range(count):
        written.append(int(rows[-1].argmax()))
        feed(written[-1:])
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    llama.llama_model_free(model)
    return np.stack(rows), written


def agree(llama: Any, path: Path, outtype: str, prompt: list[int], *, count: int = 8) -> None:
    theirs, written = run_llamacpp(llama, path, prompt, count)
    with Model(path) as model:
        ours = model.logits([*prompt, *written])
    error = np.sqrt(np.mean((ours - theirs) ** 2, axis=1) / np.mean(theirs**2, axis=1))
    assert np.median(error) < LIMIT[outtype], error
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.9


@pytest.fixture(scope="module")
def like_1bitllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sub-norms and SiLU, as 1bitLLM's; scales that float16 holds."""
    folder = tmp_path_factory.mktemp("silu")
    make_dummy(folder / "tiny", shape="tiny")
    return edited_checkpoint(folder / "tiny", folder / "silu", config=lambda c: c.update(hidden_act="silu"))


@pytest.fixture(scope="module")
def with_odd_scales(like_1bitllm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with scales that divide: no float16 holds them, so they stand in tensors of their own."""

    def divide(config: dict[str, Any]) -> None:
        config["quantization_config"]["linear_class"] = "bitlinear"

    def invert(tensors: dict[str, Any]) -> None:
        for name, (dtype, shape, raw) in tensors.items():
            if name.endswith("weight_scale"):
                value = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
                bits = (1 / value).astype(np.float32).view(np.uint32)
                tensors[name] = dtype, shape, (bits >> 16).astype("<u2").tobytes()

    folder = tmp_path_factory.mktemp("odd")
    return edited_checkpoint(like_1bitllm, folder / "odd", config=divide, tensors=invert)


@pytest.mark.parametrize("outtype", LIMIT)
def test_a_1bitllm_like_model(llama: Any, outtype: str, like_1bitllm: Path, tmp_path: Path) -> None:
    convert(like_1bitllm, path := tmp_path / "m.gguf", outtype=outtype, target="llama.cpp")
    agree(llama, path, outtype, np.random.default_rng(3).integers(0, 500, 20).tolist())


@pytest.mark.parametrize("outtype", LIMIT)
def test_scales_in_tensors_of_their_own(llama: Any, outtype: str, with_odd_scales: Path, tmp_path: Path) -> None:
    convert(with_odd_scales, path := tmp_path / "m.gguf", outtype=outtype, target="llama.cpp")
    agree(llama, path, outtype, np.random.default_rng(4).integers(0, 500, 20).tolist())


@pytest.mark.parametrize("outtype", LIMIT)
def test_a_llama_like_model(llama: Any, outtype: str, shared: Path, tmp_path: Path) -> None:
    """The golden Llama, through I2_S: greedy tokens are those that it was recorded with."""
    folder = SHARED / "golden" / "engines"
    case = next(
        case
        for case in json.loads((folder / "golden.json").read_text())["cases"]
        if case["name"] == "llamacpp_llama_tq2_0"
    )
    convert(folder / case["file"], tmp_path / "i2_s.gguf")
    convert(tmp_path / "i2_s.gguf", path := tmp_path / "m.gguf", outtype=outtype, target="llama.cpp")
    _, written = run_llamacpp(llama, path, case["prompt_ids"], 16)
    assert written == case["greedy_ids"]
    agree(llama, path, outtype, case["prompt_ids"])


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_ternary_tables(llama: Any, tied: bool, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Embedding and head in Q2_0, which llama.cpp runs as it runs linears."""
    source = checkpoints("bonsai_tied" if tied else "bonsai_untied_yarn").folder
    convert(source, path := tmp_path / "m.gguf", outtype="q2_0", target="llama.cpp")
    file = GgufFile(path)
    assert {file.tensors[name].layout for name in ("token_embd.weight", "blk.0.attn_q.weight")} == {"q2_0"}
    agree(llama, path, "q2_0", np.random.default_rng(5).integers(0, 200, 20).tolist())


@pytest.mark.parametrize("limits", [{"max_tensors": 7}, {"max_bytes": 300_000, "no_tensor_first_split": True}], ids=str)
def test_a_split_file(llama: Any, limits: dict[str, Any], like_1bitllm: Path, tmp_path: Path) -> None:
    """llama.cpp finds the parts by its own names and computes what it computes from the whole file."""
    convert(like_1bitllm, path := tmp_path / "m.gguf", outtype="tq2_0", target="llama.cpp")
    file = GgufFile(path)
    plans = [TensorPlan(t.name, t.shape, t.type_id, t.nbytes) for t in file.tensors.values()]
    shards = split_plan(path, file.metadata, plans, file.metadata_types, **limits)
    write_shards(shards, ([file.bytes_of(t)] for t in file.tensors.values()), types=file.metadata_types)
    assert len(shards) > 2
    for number, shard in enumerate(shards):
        name = ctypes.create_string_buffer(1024)
        llama.llama_split_path(name, 1024, str(path.with_suffix("")).encode(), number, len(shards))
        assert name.value.decode() == str(shard.path), number
    whole, parts = (run_llamacpp(llama, file, [1, 2, 3], 2)[0] for file in (path, shards[0].path))
    assert np.array_equal(whole, parts)

"""Exports for GPU runtimes: read back by the words of their formats, and by the libraries themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_checkpoint, read_safetensors
from tests.make.families import Checkpoints, Made
from tests.make.storage import values_of
from tritpack.converter.convert import convert
from tritpack.converter.export.export import export
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.source_model import from_checkpoint
from tritpack.converter.verify.ladder import verify
from tritpack.formats.errors import MissingRequirement, TritpackError, Unreadable, Unsupported, UsageError
from tritpack.formats.ternary import TernaryTensor, scales_differ

NAMES = ("ms_2b4t_packed", "llama_rows", "bonsai_untied_yarn", "bitcpm", "gemma3_ternary_floats")
"""A scale per tensor, per row, per group of 128, per group of 32; norms of 1 + w."""


def ternary(codes: np.ndarray, scales: np.ndarray) -> TernaryTensor:
    return TernaryTensor(codes.astype(np.int8), np.ascontiguousarray(scales, np.float32))


def same(mine: TernaryTensor, theirs: TernaryTensor) -> bool:
    return np.array_equal(mine.codes, theirs.codes) and not scales_differ(mine, theirs)[0].any()


def truth_of(made: Made) -> dict[str, TernaryTensor]:
    return {key.removesuffix(".weight"): value for key, value in made.truth.items() if "_proj" in key}


# -- compressed-tensors ------------------------------------------------------------------------------------------------


def unpack_int32(words: np.ndarray, bits: int, shape: tuple[int, int]) -> np.ndarray:
    """pack-quantized in its own words: integers plus 2^(bits - 1), from the lowest bits of int32 words upwards."""
    rows, cols = shape
    stream = np.unpackbits(words.astype("<i4").view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    fields = stream.reshape(rows, -1, bits)[:, :cols]
    return (fields @ (1 << np.arange(bits))).astype(np.int64) - 2 ** (bits - 1)


@pytest.mark.parametrize("name", NAMES)
def test_compressed_tensors_by_its_words(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints(name)
    said: list[str] = []
    result = export(made.folder, folder := tmp_path / "folder", to="compressed-tensors", note=said.append)
    assert result.storage == "pack_quantized" and result.scale_loss == 0 and result.differences == said
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    [group] = config["config_groups"].values()
    weights = group["weights"]
    assert (weights["num_bits"], weights["symmetric"], group["input_activations"]) == (2, True, None)
    tensors = read_safetensors(folder / "model.safetensors")
    for module, truth in truth_of(made).items():
        assert tensors[f"{module}.weight_packed"][0] == "I32", module
        shape = tuple(np.frombuffer(tensors[f"{module}.weight_shape"][2], "<i8").tolist())
        words = np.frombuffer(tensors[f"{module}.weight_packed"][2], "<i4").reshape(shape[0], -1)
        scales = values_of(tensors[f"{module}.weight_scale"])
        wanted = 1 if weights["strategy"] == "channel" else shape[1] // weights["group_size"]
        assert shape == truth.shape and scales.shape == (shape[0], wanted), module
        assert same(ternary(unpack_int32(words, 2, shape), scales), truth), module


@pytest.mark.parametrize("name", ["ms_2b4t_packed", "bonsai_untied_yarn"])
def test_it_is_a_source_again(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Converted again and held against the folder by the oracle, which reads the format with code of its own."""
    made = checkpoints(name)
    export(made.folder, folder := tmp_path / "folder", to="compressed-tensors")
    convert(folder, path := tmp_path / "m.gguf")
    report = verify(path, folder, level="weights")
    assert report.verdict == "pass" and report["weights"].verdict == "pass"
    spec = from_checkpoint(CheckpointFolder(folder), None, None).spec
    assert not spec.int8_activations and spec.layers == 2


def test_a_group_size_may_be_asked_for(checkpoints: Checkpoints, tmp_path: Path) -> None:
    export(checkpoints("llama_rows").folder, folder := tmp_path / "x", to="compressed-tensors", group_size=32)
    [group] = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"].values()
    assert (group["weights"]["strategy"], group["weights"]["group_size"]) == ("group", 32)


def _four_values(config: dict[str, Any], tensors: Any) -> None:
    key = "model.layers.0.self_attn.q_proj.weight_packed"
    kind, shape, raw = tensors[key]
    tensors[key] = kind, shape, b"\0\0\0\0" + raw[4:]


def _other_shape(config: dict[str, Any], tensors: Any) -> None:
    tensors["model.layers.0.self_attn.q_proj.weight_shape"] = "I64", [2], np.array([1, 2], "<i8").tobytes()


def _no_scale(config: dict[str, Any], tensors: Any) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight_scale"]


def _four_bits(config: dict[str, Any], tensors: Any) -> None:
    config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] = 4


def _int8_inputs(config: dict[str, Any], tensors: Any) -> None:
    config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8}


def _no_groups(config: dict[str, Any], tensors: Any) -> None:
    config["quantization_config"]["config_groups"] = 7


@pytest.mark.parametrize(
    ("edit", "error", "told"),
    [
        (_four_values, Unsupported, r"fourth code \(0\) in row 0, word 0"),
        (_other_shape, Unreadable, r"is \[1, 2\], expected I64"),
        (_no_scale, Unreadable, "the checkpoint has no weight_scale for it"),
        (_four_bits, Unsupported, "'num_bits': 4"),
        (_int8_inputs, Unsupported, "input_activations"),
        (_no_groups, Unreadable, "config_groups is not there"),
    ],
)
def test_what_is_not_ternary_is_refused(
    edit: Any, error: type[TritpackError], told: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    export(checkpoints("llama_rows").folder, folder := tmp_path / "folder", to="compressed-tensors")

    config = json.loads((folder / "config.json").read_text())
    tensors = read_safetensors(folder / "model.safetensors")
    edit(config, tensors)
    odd = edited_checkpoint(
        folder,
        tmp_path / "odd",
        config=lambda document: (document.clear(), document.update(config)),
        tensors=lambda document: (document.clear(), document.update(tensors)),
    )
    with pytest.raises(error, match=told):
        convert(odd, tmp_path / "m.gguf")


# -- ONNX --------------------------------------------------------------------------------------------------------------

NO_ONNX = "onnx (extra `onnx`) is not installed"


def graph_parts(path: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    onnx = pytest.importorskip("onnx", reason=NO_ONNX)
    [node] = (model := onnx.load(path)).graph.node
    assert (node.op_type, node.domain) == ("MatMulNBits", "com.microsoft")
    parts = {part.name: onnx.numpy_helper.to_array(part) for part in model.graph.initializer}
    return parts, {attribute.name: attribute.i for attribute in node.attribute}


@pytest.mark.parametrize("name", (*NAMES, "trilm_2_shards"))
def test_onnx_by_its_words(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """B (N, blocks, block * bits / 8) low bits first, scales (N, blocks), and 2^(bits - 1) for zero."""
    pytest.importorskip("onnx", reason=NO_ONNX)
    made = checkpoints(name)
    result = export(made.folder, folder := tmp_path / "folder", to="onnx")
    assert (result.storage, result.dtype, result.scale_loss) == ("matmul_nbits", "float32", 0)
    listed = json.loads((folder / "graphs.json").read_text())
    truths = truth_of(made)
    assert listed["schema"] == "tritpack.onnx/1" and listed["notes"] == result.differences
    assert {graph["tensor"].removesuffix(".weight") for graph in listed["graphs"]} == set(truths)
    for graph in listed["graphs"]:
        parts, settings = graph_parts(folder / graph["file"])
        truth = truths[graph["tensor"].removesuffix(".weight")]
        rows, cols, block = settings["N"], settings["K"], settings["block_size"]
        assert (rows, cols, settings["bits"]) == (*truth.shape, 2), graph["file"]
        assert parts["codes"].shape == (rows, cols // block, block // 4), graph["file"]
        stream = np.unpackbits(parts["codes"].reshape(rows, -1), axis=1, bitorder="little").reshape(rows, cols, 2)
        codes = (stream @ np.array([1, 2])).astype(np.int64) - 2
        assert same(ternary(codes, parts["scales"]), truth), graph["file"]
        assert graph["codes_sha256"] == truth.codes_sha256(), graph["file"]


# -- by the libraries --------------------------------------------------------------------------------------------------


def close_in_float16(mine: np.ndarray, exact: np.ndarray) -> bool:
    """Within one rounding of float16 of the result, plus what sums of such roundings come to."""
    return bool(np.abs(mine.astype(np.float64) - exact).max() <= 2.0**-9 * np.sqrt(np.square(exact).mean()) * 4)


@pytest.mark.parametrize("name", ["ms_2b4t_packed", "bonsai_untied_yarn"])
def test_the_compressed_tensors_library_reads_it(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    reason = "compressed-tensors and torch (extra `oracles`) are not installed"
    torch = pytest.importorskip("torch", reason=reason)
    pytest.importorskip("compressed_tensors", reason=reason)
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import load_file

    made = checkpoints(name)
    export(made.folder, folder := tmp_path / "folder", to="compressed-tensors")
    config = QuantizationConfig.model_validate(json.loads((folder / "config.json").read_text())["quantization_config"])
    [scheme] = config.config_groups.values()
    library, tensors = BaseCompressor.get_value_from_registry(config.format), load_file(folder / "model.safetensors")
    inputs = np.random.default_rng(1).standard_normal((3, 8192)).astype(np.float16)
    for module, truth in truth_of(made).items():
        parts = {key: tensors[f"{module}.{key}"] for key in ("weight_packed", "weight_scale", "weight_shape")}
        weight = library.decompress(parts, scheme)["weight"]
        assert np.array_equal(weight.float().numpy(), truth.dequantize()), module
        x = inputs[:, : truth.shape[1]]
        product = torch.nn.functional.linear(torch.from_numpy(x), weight.half()).numpy()
        assert close_in_float16(product, x.astype(np.float64) @ truth.dequantize().astype(np.float64).T), module
        again = library.compress({"weight": weight, "weight_scale": parts["weight_scale"]}, scheme)
        assert torch.equal(again["weight_packed"], parts["weight_packed"]), module


def test_transformers_loads_the_folder(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A model with float activations gives the logits of its own checkpoint."""
    reason = "transformers, torch, accelerate and compressed-tensors (extra `oracles`) are not installed"
    torch = pytest.importorskip("torch", reason=reason)
    transformers = pytest.importorskip("transformers", reason=reason)
    for package in ("accelerate", "compressed_tensors"):
        pytest.importorskip(package, reason=reason)
    made = checkpoints("llama_rows")
    export(made.folder, folder := tmp_path / "folder", to="compressed-tensors")
    logits = []
    for checkpoint in (made.folder, folder):
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        with torch.no_grad():
            logits.append(model(torch.tensor([[1, 2, 3, 4]])).logits[0].numpy())
    assert np.allclose(*logits, rtol=0, atol=1e-5 * np.abs(logits[0]).max())
    assert (folder / "tokenizer.json").is_file()


@pytest.mark.parametrize(("name", "dtype"), [("ms_2b4t_packed", "float32"), ("bonsai_untied_yarn", "float16")])
def test_onnx_runtime_computes_the_product(name: str, dtype: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason=NO_ONNX)
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime (extra `oracles`) is not installed")
    made = checkpoints(name)
    export(made.folder, folder := tmp_path / "folder", to="onnx", dtype=dtype)
    inputs = np.random.default_rng(2).standard_normal((1, 3, 8192)).astype(dtype)
    for module, truth in truth_of(made).items():
        x = inputs[..., : truth.shape[1]]
        session = runtime.InferenceSession(folder / f"{module}.onnx", providers=["CPUExecutionProvider"])
        [product] = session.run(["y"], {"x": x})
        exact = x.astype(np.float64) @ truth.dequantize().astype(np.float64).T
        assert product.dtype == dtype and close_in_float16(product, exact), module


# -- what is said and refused ------------------------------------------------------------------------------------------


def test_what_is_computed_otherwise_is_said_first(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("ms_2b4t_packed").folder

    def note(sentence: str) -> None:
        assert not (tmp_path / "x").exists(), sentence
        said.append(sentence)

    said: list[str] = []
    export(folder, tmp_path / "x", to="compressed-tensors", note=note)
    assert any("int8 for each token" in line for line in said)
    assert any("vLLM was not run here: vLLM has no class BitNetForCausalLM" in line for line in said)
    llama = export(checkpoints("llama_rows").folder, tmp_path / "l", to="compressed-tensors").differences
    assert not any("int8" in line for line in llama) and any(
        "vLLM has a class LlamaForCausalLM" in line for line in llama
    )
    shown = run("export", folder, "-o", tmp_path / "y", "--to", "compressed-tensors")
    assert shown.exit_code == 0 and "note: the model rounds the inputs of its linears" in shown.stderr
    assert export(folder, tmp_path / "hf").differences == []


def test_what_cannot_be_held_is_refused(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = checkpoints("ms_2b4t_packed").folder
    with pytest.raises(Unsupported, match="a norm in front of each projection"):
        export(checkpoints("llama_rms_norm_packed").folder, tmp_path / "x", to="compressed-tensors")
    with pytest.raises(Unsupported, match="has 1 x 2 scales, which linears stored as pack_quantized cannot hold"):
        export(checkpoints("trilm_2_shards").folder, tmp_path / "x", to="compressed-tensors")
    with pytest.raises(Unsupported, match="not whole groups of 128"):
        export(checkpoints("trilm").folder, tmp_path / "x", to="compressed-tensors", group_size=128)
    for options in (
        {"to": "onnx", "dtype": "bfloat16"},
        {"to": "onnx", "storage": "packed"},
        {"to": "onnx", "group_size": 48},
        {"to": "compressed-tensors", "storage": "packed"},
        {"to": "compressed-tensors", "group_size": 16},
        {"to": "tensorrt"},
    ):
        with pytest.raises(UsageError):
            export(packed, tmp_path / "x", **options)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingRequirement, match="need the onnx package") as caught:
        export(packed, tmp_path / "x", to="onnx")
    assert caught.value.hint == 'pip install "tritpack[onnx]"'
    assert exit_code_of(run("export", packed, "-o", tmp_path / "x", "--to", "onnx")) == 7
    assert not (tmp_path / "x").exists() and not list(tmp_path.glob(".*"))


def test_graphs_of_another_export_make_room(checkpoints: Checkpoints, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason=NO_ONNX)
    folder = tmp_path / "folder"
    export(checkpoints("ms_2b4t_packed").folder, folder, to="onnx")
    (folder / "notes.txt").write_text("mine")
    export(checkpoints("ms_2b4t_packed").folder, folder, to="compressed-tensors", force=True)
    left = {path.suffix for path in folder.iterdir()}
    assert ".onnx" not in left and ".txt" in left and (folder / "model.safetensors").is_file()

"""Every checkpoint family from its on-disk layout to logits: recognised, converted, verified, compared with transformers;
broken in the ways that downloads and relatives are, and refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.convert import convert
from converter.families import families, refusals
from converter.verify import verify
from converter.verify.logits import find_safe_prompts, position_errors
from converter.verify.oracle import Oracle
from formats.errors import TritpackError, Unreadable, Unsupported
from formats.gguf_file import GgufFile
from formats.layouts import catalog
from formats.ternary import TernaryTensor
from runtime import embedding
from runtime.model import Model
from tests.checkpoints import Tensors
from tests.conftest import exit_code_of, run
from tests.families_made import FAMILIES, LAYERS, Made, all_tensors, edited, entry, make, quarters, values_of

Config = dict[str, Any]
Checkpoints = Callable[[str], Made]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Every checkpoint is made once."""
    made: dict[str, Made] = {}

    def get(name: str) -> Made:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp(name) / "checkpoint")
        return made[name]

    return get


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, checkpoints: Checkpoints) -> Made:
    return checkpoints(request.param)


@pytest.fixture(scope="module")
def packed(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, converted."""
    path = tmp_path_factory.mktemp(made.name) / "model.gguf"
    convert(made.folder, path, quantize=made.family.quantize)
    return path


# -- every family ------------------------------------------------------------------------------------------------------


def test_recognised_in_one_line(made: Made, tmp_path: Path) -> None:
    quantize = ["--quantize", made.family.quantize] if made.family.quantize else []
    target = tmp_path / "m.gguf"
    result = run("convert", made.folder, "-o", target, *quantize)
    lines = [line for line in result.stdout.splitlines() if line.startswith("recognised: ")]
    assert result.exit_code == 0 and len(lines) == 1, result.output
    title = next(family.title for family in families() if family.name == made.family.family)
    assert lines[0].startswith(f"recognised: {title} (")
    file = GgufFile(target)
    assert file.metadata["tritpack.source.family"] == made.family.family
    assert file.metadata["tritpack.source.form"] == made.family.form
    plan = json.loads(run("convert", made.folder, "-o", tmp_path / "n", *quantize, "--dry-run", "--json").stdout)
    assert plan["granularity"] == made.family.granularity and plan["unused"] == []


def test_codes_and_scales_are_what_went_in(made: Made, packed: Path) -> None:
    found = _ternary_tensors(packed, made)
    assert found.keys() == made.truth.keys()
    for name, expected in made.truth.items():
        assert np.array_equal(found[name].codes, expected.codes), name
        assert np.array_equal(_each_scale(found[name]), _each_scale(expected)), name


def _ternary_tensors(path: Path, made: Made) -> dict[str, TernaryTensor]:
    """By the checkpoint's names, rows in its order."""
    with Model(path) as model:
        spec = model.spec
    family = next(family for family in families() if family.name == made.family.family)
    tensors = {}
    for name, info in (file := GgufFile(path)).tensors.items():
        if (layout := catalog.LAYOUTS.get(info.layout)) is not None:
            stored = layout.unpack(file.bytes_of(info), info.rows, info.cols)
            order = spec.row_order(name)
            back = stored if order is None else stored.with_rows(np.argsort(order))
            tensors[family.source_name(name, made.family.prefix)] = back
    return tensors


def _each_scale(tensor: TernaryTensor) -> np.ndarray:
    """The scale of every weight, however coarsely it is kept."""
    return TernaryTensor(np.ones_like(tensor.codes), tensor.scales).dequantize()


def test_verified(made: Made, packed: Path) -> None:
    report = verify(packed, made.folder, level="logits", quantize=made.family.quantize)
    assert report.verdict == "pass", [rung.findings for rung in report.rungs]
    logits = next(rung for rung in report.rungs if rung.name == "logits")
    assert logits.figures["method"] == "safe prompts" and logits.skipped is None


def test_a_wrong_scale_fails(made: Made, packed: Path, tmp_path: Path) -> None:
    """So that the pass above means something."""
    other = make(made.name, tmp_path / "c")

    def disturb(tensors: Tensors) -> None:
        name = f"{made.family.prefix}layers.1.mlp.up_proj.weight"
        for part, key in (("weight_scale", f"{name}_scale"), ("scales", f"{name[:-7]}.scales"), ("weight", name)):
            if key in tensors:
                dtype, shape, _ = tensors[key]
                tensors[key] = entry(values_of(tensors[key]) * np.float32(1.03125), dtype)
                if part == "scales":
                    tensors[f"{name[:-7]}.biases"] = entry(-values_of(tensors[key]), dtype)
                return

    report = verify(packed, edited(other.folder, tmp_path / "e", tensors=disturb), level="weights",
                    quantize=made.family.quantize)  # fmt: skip
    findings = [finding for rung in report.rungs for finding in rung.findings]
    assert report.verdict == "fail" and any("blk.1.ffn_up" in finding for finding in findings), findings


# -- transformers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers() -> Any:
    reason = "transformers and torch (extra `oracles`) are not installed"
    torch = pytest.importorskip("torch", reason=reason)
    module = pytest.importorskip("transformers", reason=reason)
    pytest.importorskip("accelerate", reason=reason)
    # Its BitNet functions are wrapped in torch.compile, which wants a C++ compiler and changes no float32 result.
    torch.compiler.set_stance("force_eager")
    yield module
    torch.compiler.set_stance("default")


def test_outputs_of_transformers(made: Made, packed: Path, transformers: Any) -> None:
    import torch

    theirs = _reference(made, transformers)
    prompts = find_safe_prompts(Oracle(made.folder, quantize=made.family.quantize), wanted=2)
    assert len(prompts) == 2
    with Model(packed) as ours, torch.no_grad():
        for prompt in prompts:
            output = theirs(torch.tensor([prompt]))
            if made.family.sentence:
                expected = output.last_hidden_state[0].numpy()
                vector = expected[-1] / np.linalg.norm(expected[-1])
                assert np.abs(embedding.embed(ours, prompt) - vector).max() <= 1e-6
            else:
                expected = output.logits[0].numpy()
            assert position_errors(ours.outputs(prompt), expected).max() <= 1e-5


BUILT = ("onebitllm", "embedding_qwen3", "embedding_gemma3", "falcon_e_prequantized", "bonsai_mlx", "bitcpm",
         "bitcpm_longrope")  # fmt: skip
"""What transformers cannot load, or loads wrong in silence: built from its parts instead."""


def _reference(made: Made, transformers: Any) -> Any:
    """A float32 model of transformers that computes what the checkpoint means."""
    import torch

    if made.name not in BUILT:
        model = transformers.AutoModelForCausalLM.from_pretrained(made.folder, dtype=torch.float32)
        # It widens only the linears; the model's own .float() refuses on quantised models.
        return torch.nn.Module.float(model).eval()
    config = json.loads((made.folder / "config.json").read_text())
    kind = {"onebitllm": "bitnet", "minicpm": "llama"}.get(made.family.family, config["model_type"])
    config = {key: value for key, value in config.items() if not key.startswith(("quantization", "auto_map"))}
    settings = transformers.CONFIG_MAPPING[kind].from_dict({**config, "model_type": kind})
    of = transformers.AutoModel if made.family.sentence else transformers.AutoModelForCausalLM
    model = of.from_config(settings, dtype=torch.float32)
    if made.family.form in ("online", "absmean"):
        _quantise_online(model, torch, norms=made.family.projection_norm is not None)
    missing, unexpected = model.load_state_dict(_state(made, torch), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    if made.family.family == "minicpm":
        _scale_as_minicpm(model, config)
    return model.eval()


def _quantise_online(model: Any, torch: Any, *, norms: bool) -> None:
    from transformers.integrations.bitnet import AutoBitLinear

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            sizes = (module.in_features, module.out_features, False)
            model.set_submodule(name, AutoBitLinear(*sizes, online_quant=True, use_rms_norm=norms, rms_norm_eps=1e-6))


def _state(made: Made, torch: Any) -> dict[str, Any]:
    """The checkpoint's values under the names of transformers' classes."""
    tensors = all_tensors(made.folder)
    values = {name: made.truth[name].dequantize() for name in made.truth if tensors[name][0] == "U32"}
    values |= {name: values_of(stored) for name, stored in tensors.items() if name not in values}
    values = {name: array for name, array in values.items() if not name.endswith((".scales", ".biases"))}
    names = {"_proj.norm.": "_proj.rms_norm.", "inner_attn_ln": "attn_sub_norm", "ffn_layernorm": "ffn_sub_norm"}

    def renamed(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new)
        return name.removeprefix("model.") if made.family.sentence else name

    return {renamed(name): torch.tensor(array) for name, array in values.items()}


def _scale_as_minicpm(model: Any, config: Config) -> None:
    """modeling_minicpm.py on top of Llama: the embedding, each branch of the residual and the last state are scaled."""

    def scale(module: Any, factor: float) -> None:
        module.register_forward_hook(lambda module, inputs, output: output * factor)

    scale(model.model.embed_tokens, config["scale_emb"])
    scale(model.model.norm, config["dim_model_base"] / config["hidden_size"])
    for layer in model.model.layers:
        for branch in (layer.self_attn.o_proj, layer.mlp):
            scale(branch, config["scale_depth"] / config["num_hidden_layers"] ** 0.5)

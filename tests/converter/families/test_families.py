"""Every checkpoint family from its files to logits: recognised, converted, verified, compared with transformers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import run
from tests.make.checkpoints import Tensors
from tests.make.families import FAMILIES, Q0, UP1, Checkpoints, Config, Made, all_tensors, edited, poke
from tests.make.storage import entry, values_of
from tritpack.converter.convert import convert
from tritpack.converter.families.family import families
from tritpack.converter.verify.compare.outputs import position_errors
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rungs.logits import find_safe_prompts
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime import embedding
from tritpack.runtime.model import Model

RECORDED = {
    "packed": "packed", "master_weights": "online", "ternary_floats": "exact", "plain_floats": "absmean", "mlx": "mlx",
}  # fmt: skip
"""What files record as `tritpack.source.form`: these words stay as they were first written."""


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
    assert file.metadata["tritpack.source.form"] == RECORDED[made.family.storage]
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
        if (stored := file.ternary(info)) is not None:
            order = spec.row_order(name)
            back = stored if order is None else stored.with_rows(np.argsort(order))
            tensors[family.source_name(name, made.family.prefix)] = back
    return tensors


def _each_scale(tensor: TernaryTensor) -> np.ndarray:
    """The scale of every weight, however coarsely it is kept."""
    return TernaryTensor(np.ones_like(tensor.codes), tensor.scales).dequantize()


def test_verified(made: Made, packed: Path) -> None:
    report = verify(packed, made.folder, level="logits", quantize=made.family.quantize)
    assert report.verdict == "pass", [rung.sentences for rung in report.rungs]
    logits = next(rung for rung in report.rungs if rung.name == "logits")
    assert logits.figures["method"] == "safe prompts" and logits.skipped is None


def test_a_wrong_scale_fails(made: Made, packed: Path, tmp_path: Path) -> None:
    """So that the pass above means something."""

    def disturb(tensors: Tensors) -> None:
        name = f"{made.family.prefix}layers.1.mlp.up_proj.weight"
        for part, key in (("weight_scale", f"{name}_scale"), ("scales", f"{name[:-7]}.scales"), ("weight", name)):
            if key in tensors:
                dtype = tensors[key][0]
                tensors[key] = entry(values_of(tensors[key]) * np.float32(1.03125), dtype)
                if part == "scales":
                    tensors[f"{name[:-7]}.biases"] = entry(-values_of(tensors[key]), dtype)
                return

    report = verify(packed, edited(made.folder, tmp_path / "e", tensors=disturb), level="weights",
                    quantize=made.family.quantize)  # fmt: skip
    findings = [sentence for rung in report.rungs for sentence in rung.sentences]
    assert report.verdict == "fail" and any("blk.1.ffn_up" in finding for finding in findings), findings


# -- transformers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers() -> Any:
    reason = "transformers and torch (extra `oracles`) are not installed"
    torch = pytest.importorskip("torch", reason=reason)
    module = pytest.importorskip("transformers", reason=reason)
    pytest.importorskip("accelerate", reason=reason)
    # Its BitNet functions are wrapped in torch.compile, which wants a C++ compiler and is slow to begin.
    torch.compiler.set_stance("force_eager")
    yield module
    torch.compiler.set_stance("default")


def test_outputs_of_transformers(made: Made, packed: Path, transformers: Any) -> None:
    _compare(made, packed, transformers)


def _compare(made: Made, packed: Path, transformers: Any) -> None:
    """Where no int8 code is near a rounding boundary, to 1e-5 of the largest output at every position."""
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


def _reference(made: Made, transformers: Any) -> Any:
    """A float32 model of transformers that computes what the checkpoint means."""
    import torch

    family = made.family
    natively = family.family in ("bitnet", "llama", "qwen3", "gemma3") and family.storage in (
        "packed",
        "master_weights",
        "ternary_floats",
    )
    if natively:
        model = transformers.AutoModelForCausalLM.from_pretrained(made.folder, dtype=torch.float32)
        # It widens only the linears; the model's own .float() refuses on quantised models.
        return torch.nn.Module.float(model).eval()
    # What transformers cannot load, or loads wrong in silence, is built from its parts.
    config = json.loads((made.folder / "config.json").read_text())
    kind = {"onebitllm": "bitnet", "minicpm": "llama"}.get(family.family, config["model_type"])
    config = {key: value for key, value in config.items() if not key.startswith(("quantization", "auto_map"))}
    understood = transformers.CONFIG_MAPPING[kind].from_dict({**config, "model_type": kind})
    of = transformers.AutoModel if family.sentence else transformers.AutoModelForCausalLM
    model = of.from_config(understood, dtype=torch.float32)
    if family.storage in ("packed", "master_weights", "plain_floats"):
        _use_bit_linears(model, torch, online=family.storage != "packed", norms=family.projection_norm is not None)
    missing, unexpected = model.load_state_dict(_state(made, torch), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    if family.family == "minicpm":
        _scale_as_minicpm(model, config)
    return model.eval()


def _use_bit_linears(model: Any, torch: Any, *, online: bool, norms: bool) -> None:
    from transformers.integrations.bitnet import AutoBitLinear

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            sizes = (module.in_features, module.out_features, False)
            linear = AutoBitLinear(*sizes, online_quant=online, use_rms_norm=norms, rms_norm_eps=1e-6)
            model.set_submodule(name, linear)


def _state(made: Made, torch: Any) -> dict[str, Any]:
    """The checkpoint's values under the names of transformers' classes; codes where a weight_scale stands beside."""
    values = {}
    for name, stored in all_tensors(made.folder).items():
        if stored[0] == "U8":
            values[name] = made.truth[name].codes.astype(np.float32)
        elif stored[0] == "U32":
            values[name] = made.truth[name].dequantize()
        elif not name.endswith((".scales", ".biases")):
            values[name] = values_of(stored)
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
            scale(branch, config.get("scale_depth", 1) / config["num_hidden_layers"] ** 0.5)


# -- unusual and good --------------------------------------------------------------------------------------------------


def converted(folder: Path, target: Path, quantize: str | None = None) -> GgufFile:
    convert(folder, target, quantize=quantize)
    assert verify(target, folder, level="logits", quantize=quantize).verdict == "pass"
    return GgufFile(target)


def same_tensors(one: GgufFile, other: GgufFile) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        np.array_equal(one.bytes_of(info), other.bytes_of(other.tensors[name])) for name, info in one.tensors.items()
    )


def test_unused_tensors_are_told(checkpoints: Checkpoints, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    folder = edited(
        checkpoints("hf1bit_llama3").folder,
        tmp_path / "c",
        tensors=lambda tensors: tensors.update({name: entry(np.ones(16), "F32")}),
    )
    result = run("convert", folder, "-o", tmp_path / "m.gguf", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["unused"] == [name]
    assert f"unused: tensor {name!r} of the source" in result.stderr
    assert verify(tmp_path / "m.gguf", folder, level="logits").verdict == "pass"


def test_a_shortened_context_is_told(checkpoints: Checkpoints, tmp_path: Path) -> None:
    scaling = {**LONG, "original_max_position_embeddings": 64}
    folder = edited(
        checkpoints("hf1bit_llama3").folder,
        tmp_path / "c",
        config=lambda config: config.update(rope_scaling=scaling, max_position_embeddings=256),
    )
    for arguments in ((), ("--dry-run",)):
        result = run("convert", folder, "-o", tmp_path / "m.gguf", "--force", *arguments)
        assert result.exit_code == 0, arguments
        assert "the context ends at 64 of 256 positions" in result.stderr, arguments


def test_scales_are_a_range(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """One number where a tensor has one scale, the smallest and the largest where it has more."""
    for name, kinds in (("hf1bit_llama3", {float}), ("bonsai_tied", {list})):
        result = run("convert", checkpoints(name).folder, "-o", tmp_path / f"{name}.gguf", "--json")
        scales = json.loads(result.stdout)["scales"]
        assert {type(scale) for scale in scales.values()} == kinds, name
        assert all(0 < scale[0] < scale[1] for scale in scales.values() if isinstance(scale, list)), name


def test_a_damaged_ternary_tensor_is_told_from_a_float_one(checkpoints: Checkpoints, tmp_path: Path) -> None:
    def damage(tensors: Tensors) -> None:
        name = next(name for name in tensors if name.endswith("q_proj.weight"))
        dtype, shape, data = tensors[name]
        spoiled = bytearray(data)
        spoiled[:4] = b"\x11\x2a\x33\x2b"
        tensors[name] = dtype, shape, bytes(spoiled)

    folder = edited(checkpoints("bonsai_tied").folder, tmp_path / "c", tensors=damage)
    with pytest.raises(Unsupported, match="first 256 rows, 4095 of 4096 hold") as caught:
        convert(folder, tmp_path / "m.gguf")
    assert "damaged" in (caught.value.hint or "") and "absmean" not in (caught.value.hint or "")


def test_order_and_shards_change_nothing(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("falcon3")

    def shuffle(tensors: Tensors) -> None:
        names = np.random.default_rng(1).permutation(list(tensors)).tolist()
        mixed = {name: tensors[name] for name in names}
        tensors.clear()
        tensors.update(mixed)

    usual = converted(made.folder, tmp_path / "usual.gguf")
    for shards in (1, 3):
        other = edited(made.folder, tmp_path / f"{shards}", tensors=shuffle, shards=shards)
        assert same_tensors(usual, converted(other, tmp_path / f"{shards}.gguf")), shards
    assert len(list((tmp_path / "3").glob("model-*-of-00003.safetensors"))) == 3


def test_zeros_are_told(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("ms_2b4t_zeros")
    result = run("convert", made.folder, "-o", tmp_path / "m.gguf")
    for module in ("gate_proj", "down_proj"):
        assert f"tensor 'model.layers.0.mlp.{module}.weight' is all zero" in result.stderr, module
    assert result.stderr.count("all zero") == 2


@pytest.mark.parametrize("name", ["ms_2b4t_online", "trilm_2_shards", "bonsai_tied", "bitcpm"])
def test_zeros_among_floats(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    def clear(tensors: Tensors) -> None:
        dtype, shape, raw = tensors[f"{UP1}.weight"]
        tensors[f"{UP1}.weight"] = dtype, shape, bytes(len(raw))

    folder = edited(checkpoints(name).folder, tmp_path / "c", tensors=clear)
    result = convert(folder, tmp_path / "m.gguf")
    assert f"tensor '{UP1}.weight' is all zero; is the checkpoint intact?" in result.warnings
    assert verify(tmp_path / "m.gguf", folder, level="logits").verdict == "pass"


def test_a_tied_head_that_is_there_too(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("ms_2b4t_packed")
    folder = edited(
        made.folder,
        tmp_path / "c",
        tensors=lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"]}),
    )
    assert same_tensors(converted(folder, tmp_path / "a.gguf"), converted(made.folder, tmp_path / "b.gguf"))


def test_a_head_that_differs_is_not_tied(checkpoints: Checkpoints, transformers: Any, tmp_path: Path) -> None:
    """As transformers 5 does, whatever tie_word_embeddings says."""
    made = checkpoints("bonsai_tied")

    def add_head(tensors: Tensors) -> None:
        rng, table = np.random.default_rng(2), tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = entry(rng.permutation(values_of(table)), "F16")

    folder = edited(made.folder, tmp_path / "c", tensors=add_head)
    assert "output.weight" in converted(folder, tmp_path / "m.gguf").tensors
    _compare(dataclasses.replace(made, folder=folder), tmp_path / "m.gguf", transformers)


def test_codes_that_are_not_packed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A float weight of -1, 0, 1 beside its weight_scale, among packed ones: each tensor tells how it is kept."""
    made = checkpoints("hf1bit_llama3")

    def unpack(tensors: Tensors) -> None:
        for name in (f"{Q0}.weight", f"{UP1}.weight"):
            tensors[name] = entry(made.truth[name].codes, "BF16")

    folder = edited(made.folder, tmp_path / "c", tensors=unpack)
    assert same_tensors(converted(folder, tmp_path / "a.gguf"), converted(made.folder, tmp_path / "b.gguf"))
    spoilt = edited(folder, tmp_path / "d", tensors=lambda tensors: poke(f"{UP1}.weight", 0.5)({}, tensors))
    with pytest.raises(Unreadable, match=f"{UP1}.weight"):
        convert(spoilt, tmp_path / "d.gguf")


@pytest.mark.parametrize("name", ["falcon3", "embedding_gemma3", "bonsai_untied_yarn"])
def test_config_as_transformers_5_saves_it(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints(name)

    def modern(config: Config) -> None:
        config["dtype"] = config.pop("torch_dtype")
        theta, scaling = config.pop("rope_theta"), config.pop("rope_scaling") or {"rope_type": "default"}
        rope = {**scaling, "rope_theta": theta}
        if "rope_local_base_freq" in config:
            local = {"rope_type": "default", "rope_theta": config.pop("rope_local_base_freq")}
            rope = {"full_attention": rope, "sliding_attention": local}
        config["rope_parameters"] = rope

    folder = edited(made.folder, tmp_path / "c", config=modern)
    one, other = converted(folder, tmp_path / "a.gguf"), converted(made.folder, tmp_path / "b.gguf")
    assert same_tensors(one, other)
    assert {k: v for k, v in one.metadata.items() if "rope" in k} == {
        k: v for k, v in other.metadata.items() if "rope" in k
    }


def test_scalar_weight_scales(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("falcon_e")

    def flatten(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.endswith("_scale")]:
            tensors[name] = tensors[name][0], [], tensors[name][2]

    folder = edited(made.folder, tmp_path / "c", tensors=flatten)
    assert same_tensors(converted(folder, tmp_path / "a.gguf"), converted(made.folder, tmp_path / "b.gguf"))


@pytest.mark.parametrize("name", ["embedding_qwen3", "embedding_gemma3"])
def test_embedding_of_a_text(name: str, checkpoints: Checkpoints, transformers: Any, tmp_path: Path) -> None:
    """The end token is appended once, the last state is taken, its length is 1; with or without the pooling's files."""
    import torch

    made, target = checkpoints(name), tmp_path / "m.gguf"
    bare = edited(made.folder, tmp_path / "c")
    shutil.rmtree(bare / "1_Pooling")
    (bare / "modules.json").unlink()
    assert same_tensors(converted(bare, tmp_path / "bare.gguf"), converted(made.folder, target))
    text = "Two lanterns"
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.folder)
    result = run("embed", target, "-p", text, "-o", tmp_path / "a.npy", "--json")
    ids = json.loads(result.stdout)["ids"]
    end = {"embedding_qwen3": "<|endoftext|>", "embedding_gemma3": "<eos>"}[name]
    assert ids == tokenizer(text).input_ids and ids[-1] == tokenizer.convert_tokens_to_ids(end)
    vector = np.load(tmp_path / "a.npy")
    assert vector.shape == (made.family.hidden,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    with torch.no_grad():
        state = _reference(made, transformers)(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
    assert vector @ state / np.linalg.norm(state) >= 1 - 1e-4
    assert run("embed", tmp_path / "bare.gguf", "-p", text, "-o", tmp_path / "b.npy").exit_code == 0
    assert np.array_equal(np.load(tmp_path / "b.npy"), vector)


def rope(**keys: Any) -> Callable[[Config], object]:
    return lambda config: config.update(rope_scaling={**keys, "original_max_position_embeddings": 1024})


LONG = {
    "rope_type": "longrope",
    "short_factor": [1 + i / 10 for i in range(16)],
    "long_factor": [1 + i for i in range(16)],
}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("hf1bit_llama3", lambda config: config.update(rope_scaling={"type": "linear", "factor": 4.0})),
        ("hf1bit_llama3", rope(rope_type="yarn", factor=8.0, beta_fast=16, beta_slow=2)),
        ("hf1bit_llama3", rope(rope_type="yarn", factor=8.0, attention_factor=1.5)),
        ("hf1bit_llama3", rope(**LONG)),
        ("hf1bit_llama3", rope(**LONG, factor=3.0)),
        ("hf1bit_llama3", lambda config: config.update(rope_scaling=LONG, original_max_position_embeddings=1024)),
        ("gemma3_ternary_floats", lambda config: config.pop("layer_types")),
        ("gemma3_ternary_floats", lambda config: config.update(layer_types=None, sliding_window_pattern=2)),
        ("gemma3_master_weights", lambda config: config.update(query_pre_attn_scalar=40)),
        ("gemma3_master_weights", lambda config: config.update(rope_scaling={"rope_type": "linear", "factor": 8.0})),
        ("gemma3_packed", lambda config: [config.pop(key) for key in ("rope_theta", "rope_local_base_freq")]),
        ("gemma3_packed", lambda config: (config.pop("hidden_activation"), config.pop("tie_word_embeddings"))),
        ("gemma3_packed", lambda config: (config.pop("hidden_activation"), config.update(hidden_act="silu"))),
        ("bitcpm", lambda config: config.pop("scale_depth")),
        ("llama_rms_norm_packed", lambda config: config["quantization_config"].update(rms_norm_eps=0.5)),
        ("falcon3", lambda config: config["quantization_config"].update(modules_to_not_convert=["head"])),
    ],
)
def test_settings_as_transformers_reads_them(
    name: str, config: Callable[[Config], object], checkpoints: Checkpoints, transformers: Any, tmp_path: Path
) -> None:
    made = checkpoints(name)
    folder = edited(made.folder, tmp_path / "c", config=config)
    converted(folder, tmp_path / "m.gguf")
    _compare(dataclasses.replace(made, folder=folder), tmp_path / "m.gguf", transformers)


def test_prefixes_and_nesting(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Tensor names have no certain prefix, and a text model may lie inside a bigger one's config."""

    def nest(config: Config) -> None:
        inner = dict(config)
        config.clear()
        config.update(architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3", text_config=inner)

    def prefixed(prefix: str) -> Callable[[Tensors], None]:
        def add(tensors: Tensors) -> None:
            for name in list(tensors):
                tensors[f"{prefix}{name}"] = tensors.pop(name)

        return add

    for name, prefix, config in (
        ("gemma3_ternary_floats", "language_model.", nest),
        ("embedding_qwen3", "model.", None),
    ):
        made = checkpoints(name)
        folder = edited(made.folder, tmp_path / name, config=config, tensors=prefixed(prefix))
        usual = converted(made.folder, tmp_path / f"{name}.gguf")
        assert same_tensors(usual, converted(folder, tmp_path / f"{name}-prefixed.gguf")), f"{name} {prefix}"


def test_an_embedding_model_needs_no_head(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("embedding_qwen3")
    folder = edited(
        made.folder,
        tmp_path / "c",
        tensors=lambda tensors: tensors.update({"lm_head.weight": tensors["embed_tokens.weight"]}),
    )
    assert convert(folder, tmp_path / "a.gguf").plan.unused == ("lm_head.weight",)
    assert same_tensors(GgufFile(tmp_path / "a.gguf"), converted(made.folder, tmp_path / "b.gguf"))


@pytest.mark.parametrize("name", ["trilm_2_shards", "bonsai_tied"])
def test_a_block_of_zeros_has_no_scale_of_its_own(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A shard or a group that holds nothing but zeros fits under any scale."""

    def clear(tensors: Tensors) -> None:
        dtype, shape, raw = tensors[f"{UP1}.weight"]
        tensors[f"{UP1}.weight"] = dtype, shape, bytes(len(raw) // 2) + raw[len(raw) // 2 :]

    folder = edited(checkpoints(name).folder, tmp_path / "c", tensors=clear)
    converted(folder, tmp_path / "m.gguf")


def test_mlx_with_float_tables(checkpoints: Checkpoints, transformers: Any, tmp_path: Path) -> None:
    made = checkpoints("bonsai_mlx")

    def widen(tensors: Tensors) -> None:
        table = np.random.default_rng(3).normal(size=made.truth["model.embed_tokens.weight"].shape)
        tensors["model.embed_tokens.weight"] = entry(table, "F16")
        for part in ("scales", "biases"):
            del tensors[f"model.embed_tokens.{part}"]

    folder = edited(made.folder, tmp_path / "c", tensors=widen)
    converted(folder, tmp_path / "m.gguf")
    _compare(dataclasses.replace(made, folder=folder), tmp_path / "m.gguf", transformers)

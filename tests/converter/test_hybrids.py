"""Qwen3.5 hybrids from every source form to every layout that holds them: values, order of heads, contract, answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import run
from tests.make.checkpoints import edited_gguf
from tests.make.families import edited
from tests.make.storage import values_of
from tritpack.converter.convert import convert
from tritpack.converter.diff.diff import diff
from tritpack.converter.families.family import family
from tritpack.converter.plan import ConvertOptions, make_plan
from tritpack.converter.sources.hadamard_pack import ONLY_HERE
from tritpack.converter.sources.open import open_source
from tritpack.converter.verify.oracle.hybrid_packed import HybridPacked
from tritpack.formats.errors import TritpackError, Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.hadamard import PREFIX
from tritpack.formats.model_metadata import from_gguf

TOLERANCE = 5e-5
"""Of the largest logit, from a float64 recurrence: spec/bonsai2.md."""
SOURCES = {
    "bonsai_hybrid_unpacked": ("", ("t2", "t158", "q2_0")),  # ssm_out has a scale per 64 weights once heads are tiled
    "bonsai_hybrid_vl_unpacked": ("", ("pq2_0", "ptq1_0", "t2", "t158", "q2_0")),
    "bonsai2_rotated_gguf": ("model-PQ2_0.gguf", ("ptq1_0", "t158", "q2_0")),
    "bonsai2_rotated_gguf_rep3": ("model.gguf", ("pq2_0", "t2", "t158")),
    "bonsai2_rotated_mlx": ("", ("pq2_0", "t158")),
}
"""Fixture -> its file, and layouts to write."""


def deviation(path: Path, answers: Mapping[str, Any], prompt: str = "") -> float:
    """How far the oracle's answers with a file are from the exact ones, in parts of the largest."""
    logits = HybridPacked(path).logits([answers[f"{prompt}input_ids"].reshape(-1).tolist()])[0]
    exact = answers[f"{prompt}exact_logits"].reshape(logits.shape)
    return float(np.abs(logits - exact).max() / np.abs(exact).max())


def tensors_of(path: Path) -> dict[str, bytes]:
    file = GgufFile(path)
    return {name: file.bytes_of(info).tobytes() for name, info in file.tensors.items()}


@pytest.mark.parametrize("name", SOURCES)
def test_codes_scales_and_answers(shared: Path, tmp_path: Path, name: str) -> None:
    folder, (file_name, layouts) = shared / "checkpoints" / name, SOURCES[name]
    truth = json.loads((folder / "truth.json").read_text())
    answers = load_file(folder / "reference.safetensors")
    results = {}
    for layout in layouts:
        convert(folder / file_name, path := tmp_path / f"{layout}.gguf", outtype=layout)
        results[layout] = _decoded(path, truth)
        assert len(results[layout]) == len(truth), layout
        for tensor, expected in truth.items():
            codes, scales = results[layout][tensor]
            groups = np.repeat(scales, expected["scale_shape"][1] // scales.shape[1], axis=1)
            groups = groups[:, :: max(1, groups.shape[1] // expected["scale_shape"][1])]
            groups = np.repeat(groups, len(codes) // len(groups), axis=0)
            assert hashlib.sha256(codes.tobytes()).hexdigest() == expected["codes_sha256"], (layout, tensor)
            assert _digest(groups) == expected["scales_f32_sha256"], (layout, tensor)
    assert deviation(path, answers) < TOLERANCE


def _digest(scales: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(scales, np.float32).tobytes()).hexdigest()


def _decoded(path: Path, truth: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Codes and scales of each ternary tensor, in the names and the order of heads that the truth has."""
    file, found = GgufFile(path), {}
    spec, names = from_gguf(file), family("qwen35")
    table = next(name for name in truth if "emb" in name)
    for name, info in file.tensors.items():
        if (ternary := file.ternary(info)) is None:
            continue
        if table != "token_embd.weight":
            rows, columns = spec.row_order(name), spec.column_order(name)
            ternary = ternary if rows is None else ternary.with_rows(np.argsort(rows))
            ternary = ternary if columns is None else ternary.with_columns(np.argsort(columns))
            name = names.source_name(name, table.removesuffix("embed_tokens.weight"))
        found[name] = (ternary.codes, ternary.scales)
    return found


@pytest.mark.parametrize("name", ["bonsai_hybrid_unpacked", "bonsai_hybrid_vl_unpacked", "bonsai2_rotated_mlx"])
def test_diff_finds_a_checkpoint_in_its_conversion(shared: Path, tmp_path: Path, name: str) -> None:
    convert(shared / "checkpoints" / name, tmp_path / "m.gguf", outtype="t2")
    assert diff(tmp_path / "m.gguf", shared / "checkpoints" / name)["verdict"] == "same"


def test_a_cycle_through_layouts_gives_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    source = shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf"
    steps = [source]
    for layout in ("pq2_0", "t158", "ptq1_0", "pq2_0"):
        convert(steps[-1], path := tmp_path / f"{len(steps)}.gguf", outtype=layout)
        steps.append(path)
    assert steps[1].read_bytes() == steps[4].read_bytes()
    first, second = tensors_of(source), tensors_of(steps[4])
    assert first == second, [name for name in first if first[name] != second[name]]
    theirs, ours = (GgufFile(path).metadata for path in (source, steps[4]))
    for key, value in theirs.items():
        if key.startswith((PREFIX, "qwen35.", "tokenizer.")):
            one, other = (list(v) if not isinstance(v, (str, int, float)) else v for v in (value, ours[key]))
            assert (sorted(one) == sorted(other)) if key.endswith("weight_names") else (one == other), key
    assert {GgufFile(source).tensors[f"blk.0.ssm_{gate}.weight"].layout for gate in ("alpha", "beta")} == {"bf16"}


def test_type_id_42_in_both_of_its_groups(shared: Path, tmp_path: Path) -> None:
    source = shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf"
    for form in ({"outtype": "q2_0"}, {"outtype": "pq2_0", "pq2_id": 42}):
        convert(source, legacy := tmp_path / "42.gguf", force=True, **form)
        assert GgufFile(legacy).tensors["blk.0.attn_qkv.weight"].type_id == 42, form
        convert(legacy, tmp_path / "142.gguf", outtype="pq2_0", force=True)
        assert tensors_of(tmp_path / "142.gguf") == tensors_of(source), form


def test_the_folded_float_master(shared: Path, tmp_path: Path) -> None:
    source = GgufFile(shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf")
    plans, data = [], []
    for name, info in source.tensors.items():
        ternary, values = source.ternary(info), source.bytes_of(info)
        if ternary is not None:
            values = ternary.dequantize().astype("<f2").reshape(-1).view(np.uint8)
        plans.append(TensorPlan(name, info.shape, info.type_id if ternary is None else 1, values.size))
        data.append([values])
    write_gguf(tmp_path / "f16.gguf", source.metadata, plans, data)
    convert(tmp_path / "f16.gguf", tmp_path / "m.gguf", outtype="pq2_0")
    expected, found = tensors_of(source.path), tensors_of(tmp_path / "m.gguf")
    assert found == expected

    at = [plan.name for plan in plans].index("blk.1.ffn_up.weight")
    data[at] = [data[at][0].copy()]
    data[at][0][:2] = np.array([0.75], "<f2").view(np.uint8)
    write_gguf(tmp_path / "f16.gguf", source.metadata, plans, data, force=True)
    with pytest.raises(Unsupported, match="is not ternary throughout") as caught:
        convert(tmp_path / "f16.gguf", tmp_path / "x.gguf")
    assert caught.value.tensor == "blk.1.ffn_up.weight"


def test_layers_that_predict_further_tokens_are_left_out(shared: Path, tmp_path: Path) -> None:
    source = GgufFile(shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf")
    more = {"blk.4.nextn.eh_proj.weight": (4, 8), "blk.4.attn_norm.weight": (8,)}
    plans = [TensorPlan(name, info.shape, info.type_id, info.nbytes) for name, info in source.tensors.items()]
    plans += [TensorPlan(name, shape, 0, 4 * int(np.prod(shape))) for name, shape in more.items()]
    data = [[source.bytes_of(info)] for info in source.tensors.values()]
    data += [[np.zeros(plan.nbytes, np.uint8)] for plan in plans[-2:]]
    counted = {"qwen35.block_count": 5, "qwen35.nextn_predict_layers": 1}
    write_gguf(tmp_path / "mtp.gguf", {**source.metadata, **counted}, plans, data)
    result = convert(tmp_path / "mtp.gguf", tmp_path / "m.gguf", outtype="pq2_0")
    assert "left out: 2 tensors of the layers that predict further tokens (MTP)" in result.warnings
    made = GgufFile(tmp_path / "m.gguf")
    assert made.metadata["qwen35.block_count"] == 4 and "qwen35.nextn_predict_layers" not in made.metadata
    assert tensors_of(made.path) == tensors_of(source.path)


def test_a_file_that_lost_its_keys_is_doubted(shared: Path, tmp_path: Path) -> None:
    def forget(pairs: dict[str, Any]) -> None:
        for key in [key for key in pairs if key.startswith(PREFIX)]:
            del pairs[key]

    source = shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf"
    path = edited_gguf(source, tmp_path / "lost.gguf", metadata=forget)
    plan = make_plan(open_source(path), ConvertOptions(outtype="pq2_0"))
    assert any("no key prism.hadamard.* is there" in text for text in plan.warnings)


def test_parts_of_the_vision_model_are_counted(shared: Path, tmp_path: Path) -> None:
    def more(tensors: dict[str, Any]) -> None:
        tensors["mtp.layers.0.input_layernorm.weight"] = ("F32", [8], bytes(32))
        tensors["mtp.norm.weight"] = ("F32", [8], bytes(32))

    folder = edited(shared / "checkpoints" / "bonsai_hybrid_vl_unpacked", tmp_path / "c", tensors=more, shards=3)
    plan = make_plan(open_source(folder))
    assert "left out: 21 tensors of the vision tower" in plan.warnings
    assert "left out: 2 tensors of the layers that predict further tokens (MTP)" in plan.warnings
    assert not plan.unused
    assert plan.spec.delta_net is not None and plan.spec.delta_net.ternary_gates


def test_an_ordinary_qwen35_is_not_ternary(shared: Path, tmp_path: Path) -> None:
    def rough(tensors: dict[str, Any]) -> None:
        name = "model.layers.0.mlp.gate_proj.weight"
        values = np.random.default_rng(0).standard_normal(tensors[name][1]).astype("<f2")
        tensors[name] = ("F16", tensors[name][1], values.tobytes())

    folder = edited(shared / "checkpoints" / "bonsai_hybrid_unpacked", tmp_path / "c", tensors=rough)
    with pytest.raises(Unsupported, match=r"an ordinary Qwen3.5 cannot be run .*: its weights are not ternary"):
        make_plan(open_source(folder))


def test_gates_of_integers_are_refused(shared: Path, tmp_path: Path) -> None:
    def integers(tensors: dict[str, Any]) -> None:
        for gate in ("a", "b"):
            name = f"model.language_model.layers.0.linear_attn.in_proj_{gate}.weight"
            shape = tensors[name][1]
            tensors[name] = ("I8", shape, bytes(int(np.prod(shape))))

    folder = edited(shared / "checkpoints" / "bonsai_hybrid_vl_unpacked", tmp_path / "c", tensors=integers)
    with pytest.raises(Unsupported, match="is stored as I8, expected") as caught:
        make_plan(open_source(folder))
    assert caught.value.tensor == "model.language_model.layers.0.linear_attn.in_proj_a.weight"


def test_keys_by_their_older_names(shared: Path, tmp_path: Path) -> None:
    """transformers 4 has rope_theta beside rope_scaling, and intervals instead of a list of layers."""
    source = shared / "checkpoints" / "bonsai_hybrid_unpacked"

    def older(config: dict[str, Any]) -> None:
        rope = config.pop("rope_parameters")
        config |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "default", "mrope_section": [4, 2, 2]}}
        config["partial_rotary_factor"] = rope["partial_rotary_factor"]
        del config["layer_types"]

    folder = edited(source, tmp_path / "c", config=older)
    assert make_plan(open_source(folder)).spec == make_plan(open_source(source)).spec
    without = edited(source, tmp_path / "d", config=lambda config: config["rope_parameters"].pop("mrope_section"))
    assert make_plan(open_source(without)).spec.rope_sections == ()


def keyed(name: str, value: Any) -> Any:
    """An edit of hadamard.json."""
    return lambda config, contract, tensors: contract.update({f"{PREFIX}{name}": value})


def configured(**changed: Any) -> Any:
    return lambda config, contract, tensors: config.update(changed)


def without_key(name: str) -> Any:
    return lambda config, contract, tensors: contract.pop(f"{PREFIX}{name}")


def module(at: int, **changed: Any) -> Any:
    return lambda config, contract, tensors: config["modules"][at].update(changed)


def flip_a_sign(config: Any, contract: Any, tensors: Any) -> None:
    name = "language_model.model.layers.1.mlp.up_proj.signs"
    values = values_of(tensors[name]).copy()
    values[7] *= -1
    tensors[name] = (*tensors[name][:2], values.tobytes())


def fourth_codes(config: Any, contract: Any, tensors: Any) -> None:
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    raw = bytearray(tensors[name][2])
    raw[0:4] = (0x0F).to_bytes(4, "little")
    tensors[name] = (*tensors[name][:2], bytes(raw))


def transformers_taps(config: Any, contract: Any, tensors: Any) -> None:
    for name in [name for name in tensors if name.endswith("conv1d.weight")]:
        dtype, (channels, taps, _), raw = tensors[name]
        tensors[name] = (dtype, [channels, 1, taps], raw)


def reshaped(name: str, shape: list[int]) -> Any:
    """An edit that gives a tensor of the first layer another shape."""

    def edit(config: Any, contract: Any, tensors: Any) -> None:
        full = f"language_model.model.layers.0.linear_attn.{name}.weight"
        dtype, _, raw = tensors[full]
        tensors[full] = (dtype, shape, raw[: (2 if dtype == "F16" else 4) * int(np.prod(shape))])

    return edit


def unmarked(config: Any, contract: Any, tensors: Any) -> None:
    """What a program writes that knows nothing of the rotated basis."""
    for key in [key for key in config if key in ONLY_HERE]:
        del config[key]
    config["model_type"] = "qwen3_5"


def unmarked_and_unsigned(config: Any, contract: Any, tensors: Any) -> None:
    unmarked(config, contract, tensors)
    for name in [name for name in tensors if name.endswith(".signs")]:
        del tensors[name]


UP = "language_model.model.layers.1.mlp.up_proj"


@pytest.mark.parametrize(
    ("edit", "kind", "said"),
    [
        (configured(schema_version=3), Unsupported, "schema_version is '3'"),
        (configured(gdn_activation_layout="tiled"), Unsupported, "gdn_activation_layout is 'tiled'"),
        (configured(hadamard_config="../hadamard.json"), Unsupported, "hadamard_config is '../hadamard.json'"),
        (lambda config, contract, tensors: config.pop("tensor_namespace"), Unreadable, "tensor_namespace is missing"),
        (lambda config, contract, tensors: config.pop("modules"), Unreadable, "modules is not a list"),
        (keyed("version", 2), Unsupported, "prism.hadamard.version is 2"),
        (keyed("block_size", 256), Unreadable, "modules has block 512"),
        (keyed("gdn_v_grouped", False), Unsupported, "gdn_v_grouped is not true"),
        (without_key("sign_mode"), Unreadable, "prism.hadamard.sign_mode is missing"),
        (keyed("sign_values", [1] * 1536), Unreadable, "is not the signs that hadamard.json has for width"),
        (keyed("weight_names", ["language_model.model.nothing.weight"]), Unreadable, "which is no matrix"),
        (keyed("inverse_weight_names", []), Unreadable, "disagree whether 'model.embed_tokens' is an embedding"),
        (module(3, block=0), Unreadable, "to hadamard.json and not to modules"),
        (module(3, path="model.layers.9.mlp.up_proj"), Unreadable, "names a matrix that is not there"),
        (module(3, path="lm_head"), Unreadable, "names one twice: 'lm_head'"),
        (flip_a_sign, Unreadable, "is not the signs"),
        (lambda config, contract, tensors: contract.clear(), Unreadable, "hadamard.json: is missing or empty"),
        (lambda config, contract, tensors: tensors.pop(f"{UP}.signs"), Unreadable, "is missing, and hadamard.json has"),
        (transformers_taps, Unreadable, "expected [1024, 4, 1] in a pack"),
        (reshaped("conv1d", []), Unreadable, "has shape [], expected [1024, 4, 1] in a pack"),
        (reshaped("in_proj_a", [0, 512]), Unreadable, "has shape [0, 512], expected [4, 512]"),
        (reshaped("in_proj_a", [4, 0]), Unreadable, "has shape [4, 0], expected [4, 512]"),
        (unmarked, Unsupported, "signs' says that the weights are in a rotated basis, but config.json does not"),
        (unmarked_and_unsigned, Unsupported, "hadamard.json with keys prism.hadamard.* says"),
        (fourth_codes, Unsupported, "fourth code (3) in row 0, word 0, and 2 times in all"),
    ],
)  # fmt: skip
def test_packs_that_contradict_themselves(
    shared: Path, tmp_path: Path, edit: Any, kind: type[TritpackError], said: str
) -> None:
    source = shared / "checkpoints" / "bonsai2_rotated_mlx"
    contract = json.loads((source / "hadamard.json").read_text())
    held: dict[str, Any] = {}
    edited(source, tmp_path / "c", config=lambda c: held.update(config=c), tensors=lambda t: held.update(tensors=t))
    config, tensors = held["config"], held["tensors"]
    edit(config, contract, tensors)
    folder = edited(
        source,
        tmp_path / "d",
        config=lambda c: (c.clear(), c.update(config)),
        tensors=lambda t: (t.clear(), t.update(tensors)),
    )
    (folder / "hadamard.json").unlink()
    (folder / "hadamard.json").write_text(json.dumps(contract))
    with pytest.raises(kind) as caught:
        convert(folder, tmp_path / "m.gguf", outtype="pq2_0")
    assert said in str(caught.value)
    assert not (tmp_path / "m.gguf").exists()


def test_rotated_files_are_not_written_for_engines_that_talk_nonsense(shared: Path, tmp_path: Path) -> None:
    source = shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf"
    with pytest.raises(Unsupported, match=r"llama.cpp will not run this model right: it does not know the rotated"):
        convert(source, tmp_path / "m.gguf", target="llama.cpp")


def test_groups_that_the_order_of_heads_tears_are_named(shared: Path, tmp_path: Path) -> None:
    source = shared / "checkpoints" / "bonsai_hybrid_unpacked"
    with pytest.raises(Unsupported, match=r"not 256 x 4 \(GGUF's order .* tears its groups of 128 into groups of 64\)"):
        convert(source, tmp_path / "x.gguf", outtype="pq2_0")
    convert(source, path := tmp_path / "prism.gguf", target="prism")
    assert GgufFile(path).tensors["blk.0.ssm_out.weight"].type_id == 42, "the first of its layouts that holds 64"


def test_a_warning_of_several_outputs_is_said_once(shared: Path, tmp_path: Path) -> None:
    source, output = shared / "checkpoints" / "bonsai_hybrid_vl_unpacked", tmp_path / "m-{ftype}.gguf"
    for options in ((), ("--dry-run",)):
        said = run("convert", source, "-o", output, "--outtype", "t2,t158", "--force", *options).stderr.splitlines()
        warnings = [line for line in said if line.startswith("warning: ")]
        assert "warning: left out: 21 tensors of the vision tower" in warnings, options
        assert len(warnings) == len(set(warnings)), options


def test_files_for_prismmls_fork(shared: Path, tmp_path: Path) -> None:
    source = shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf"
    for layout, type_id in (("auto", 142), ("ptq1_0", 143)):
        convert(source, path := tmp_path / f"{layout}.gguf", target="prism", outtype=layout)
        file = GgufFile(path)
        assert {info.type_id for info in file.tensors.values() if file.ternary(info)} == {type_id}, layout
        assert file.metadata["general.file_type"] == {142: 141, 143: 143}[type_id], layout
    with pytest.raises(Unsupported, match="prism does not run t2"):
        convert(source, tmp_path / "x.gguf", target="prism", outtype="t2")

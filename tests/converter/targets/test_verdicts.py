"""What the engine table makes of files: of each engine, each way to be right, wrong or refused."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import run
from tests.make.families import Checkpoints
from tritpack.converter.cli.main import cli
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.repack import repack
from tritpack.converter.targets import engines
from tritpack.converter.targets.engines import lines, table
from tritpack.converter.targets.engines.conditions import in_words
from tritpack.converter.targets.engines.packed_model import PackedModel
from tritpack.converter.targets.engines.verdict import REFUSES, RIGHT, UNKNOWN, WRONG, Verdict, verdicts
from tritpack.converter.verify.ladder import verify
from tritpack.formats import model_metadata
from tritpack.formats.errors import Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.layouts.catalog import type_of

OLD, NEW = "bitnet.cpp until May 2026", "bitnet.cpp since July 2026"
LLAMA, IK = "llama.cpp", "ik_llama.cpp"
PRISM_OLD, PRISM_NEW = "PrismML's fork before prism-v7", "PrismML's fork since prism-v7"


def model(architecture: str, layout: str, type_id: int | None = None, **fields: object) -> PackedModel:
    activation = {"bitnet-b1.58": "relu2"}.get(architecture, "silu")
    base = PackedModel(
        architecture=architecture, activation=activation, layouts=(layout,), tied=True, int8_activations=True,
        types=((type_of(layout).type_id if type_id is None else type_id, layout),), shortest_row=1024,
        attention_fits=True,
    )  # fmt: skip
    return dataclasses.replace(base, **fields)


def by_engine(described: PackedModel) -> dict[str, Verdict]:
    return {verdict.engine: verdict for verdict in verdicts(described)}


@pytest.mark.parametrize(
    ("described", "engine", "verdict", "why"),
    [
        (model("bitnet-b1.58", "i2_s"), OLD, RIGHT, "right on x86; on ARM only in builds from before"),
        (model("bitnet-b1.58", "tq2_0"), OLD, RIGHT, ""),
        (model("bitnet-b1.58", "tl2", 39), OLD, RIGHT, "only one token at a time"),
        (model("bitnet-b1.58", "tl2", 42), OLD, REFUSES, "does not know type id 42 (tl2)"),
        (model("bitnet-b1.58", "i2_s"), NEW, WRONG, "its bitnet-b1.58 graph computes silu, the model has relu2"),
        (model("bitnet-b1.58", "tl2", 39), NEW, REFUSES, "takes type id 39, tl2 here, for mxfp4"),
        (model("bitnet-b1.58", "tl2", 42), NEW, REFUSES, "it crashes on tl2"),
        (model("qwen3", "i2_s", projection_norms=True), OLD, REFUSES, "it has no graph for qwen3"),
        (model("qwen3", "i2_s", projection_norms=True), NEW, RIGHT, "with norms before its linears"),
        (model("bitnet-b1.58", "i2_s", tied=False), OLD, WRONG, "ignores a separate output head"),
        (model("llama", "i2_s", int8_activations=False), OLD, WRONG, "this model keeps them float"),
        (model("llama", "tq2_0"), PRISM_OLD, RIGHT, ""),
        (model("llama", "tq2_0", scales_apart=True), PRISM_OLD, WRONG, "by the tensor attn_output.scale twice"),
        (model("bitnet", "tq2_0", scales_apart=True), PRISM_OLD, RIGHT, ""),
        (model("qwen3", "q2_0"), PRISM_OLD, REFUSES, "takes type id 42, q2_0 here, for pq2_0"),
        (model("bitnet-b1.58", "i2_s"), LLAMA, REFUSES, "does not know type id 36 (i2_s)"),
        (model("bitnet-b1.58", "t2"), LLAMA, REFUSES, "it has no BitNet graph with squared ReLU"),
        (model("bitnet", "tq2_0", activation="relu2"), LLAMA, WRONG, "no other graph for BitNet"),
        (model("bitnet", "tq2_0"), LLAMA, RIGHT, "in blocks of 256, the model has one scale a token"),
        (model("llama", "q2_0", int8_activations=False), LLAMA, RIGHT, "in blocks of 32, the model has float"),
        (model("qwen3", "pq2_0", 42), LLAMA, REFUSES, "takes type id 42, pq2_0 here, for q2_0"),
        (model("bitnet", "tq2_0", missing=("tokenizer.ggml.pre",)), LLAMA, WRONG, "cuts text into other tokens"),
        (model("qwen35", "q2_0", rotated=True), LLAMA, WRONG, "talks nonsense"),
        (model("qwen35", "q2_0"), LLAMA, RIGHT, ""),
        (model("qwen35", "pq2_0", rotated=True), LLAMA, REFUSES, "does not know type id 142"),
        (model("qwen35", "ptq1_0", rotated=True), PRISM_NEW, RIGHT, "not on SYCL"),
        (model("qwen35", "pq2_0", 42, rotated=True), PRISM_OLD, WRONG, "does not know the rotated basis"),
        (model("qwen35", "pq2_0", 42), PRISM_OLD, RIGHT, ""),
        (model("qwen35", "pq2_0", 42), PRISM_NEW, REFUSES, "takes type id 42, pq2_0 here, for q2_0"),
        (model("qwen35", "q2_0", rotated=True), IK, REFUSES, "it has no q2_0"),
        (model("qwen35", "t2", container="checkpoint", storage="mlx", rotated=True), "transformers", REFUSES,
         "prism_hadamard_qwen35"),
        (model("qwen35", "t2", container="checkpoint", storage="exact"), "transformers", RIGHT, ""),
        (model("qwen35", "t2", container="checkpoint", storage="mlx", rotated=True), "vLLM", REFUSES, "prism_hadamard"),
        (model("qwen35", "t2", container="checkpoint", storage="mlx", rotated=True, int8_activations=False), "MLX",
         RIGHT, "since mlx-lm 0.32.2"),
        (model("qwen35", "t2", container="checkpoint", storage="mlx", int8_activations=False), "MLX", RIGHT, ""),
        (model("bitnet-b1.58", "i2_s"), IK, WRONG, "loads i2_s without a word"),
        (model("bitnet-b1.58", "iq2_bn_r4", shortest_row=256), IK, RIGHT, "four scales a token, the model has one"),
        (model("bitnet-b1.58", "iq2_bn", shortest_row=256), IK, WRONG, "shorter than 512, and some here have 256"),
        (model("llama", "tq2_0"), IK, REFUSES, "it has no tq2_0"),
        (model("qwen3", "pq2_0", 42), PRISM_OLD, RIGHT, ""),
        (model("qwen3", "pq2_0", 42), PRISM_NEW, REFUSES, "takes type id 42, pq2_0 here, for q2_0"),
        (model("qwen3", "pq2_0"), PRISM_NEW, RIGHT, ""),
        (model("qwen3", "pq2_0"), PRISM_OLD, REFUSES, "does not know type id 142"),
        (model("qwen3", "stq1_0", 43), LLAMA, REFUSES, "does not know type id 43 (stq1_0)"),
        (model("bitnet-b1.58", "t2"), "tritpack", RIGHT, ""),
        (model("hymba", "i2_s", runnable=False, problem="no graph"), "tritpack", REFUSES, "no graph"),
        (model("llama", "i2_s"), "transformers", REFUSES, "does not know type id 36"),
        (model("qwen3", "tq2_0", int8_activations=False), "transformers", RIGHT, "it makes floats of all weights"),
        (model("llama", "tq2_0", container="checkpoint", storage="packed"), "transformers", RIGHT, ""),
        (model("llama", "tq2_0", container="checkpoint", storage="mlx"), "MLX", WRONG, "keeps activations float"),
        (model("llama", "tq2_0"), "vLLM", REFUSES, "it reads checkpoint folders"),
        (model("llama", "i2_s"), "bitnet.c", WRONG, "half a head apart"),
        (model("bitnet", "i2_s"), "bitnet.c", WRONG, "computes relu2, the model has silu"),
        (model("bitnet-b1.58", "tq1_0"), "bitnet.c", RIGHT, ""),
        (model("maple", "tq2_0"), LLAMA, REFUSES, "it has no graph for maple"),
    ],
)  # fmt: skip
def test_verdicts(described: PackedModel, engine: str, verdict: str, why: str) -> None:
    found = by_engine(described)[engine]
    assert (found.verdict, why in found.why) == (verdict, True), found
    assert found.evidence


def test_what_no_line_speaks_of_is_unknown() -> None:
    assert by_engine(model("gemma3", "iq2_bn", activation="gelu_pytorch_tanh"))[IK].verdict == UNKNOWN


def test_a_missing_key_is_mended_in_place() -> None:
    found = by_engine(model("bitnet", "tq2_0", missing=("tokenizer.ggml.pre",), file="a b.gguf"))
    assert found[LLAMA].command == "tritpack metadata fix 'a b.gguf'"
    assert found[IK].command.startswith("tritpack repack 'a b.gguf' -o"), "more than the key is wrong there"


def test_commands_make_a_file_that_the_engine_runs(demo_gguf: Path, tmp_path: Path) -> None:
    """Each command is run as it is printed, and the file it makes is judged again."""
    file = GgufFile(demo_gguf)
    found = by_engine(engines.describe(file, model_metadata.from_gguf(file)))
    assert found[LLAMA].command == ""
    assert found[LLAMA].impossible == "it has no BitNet graph with squared ReLU, whatever the layout"
    with pytest.raises(Unsupported) as refused:
        repack(demo_gguf, tmp_path / "refused.gguf", target=LLAMA)
    assert "llama.cpp has no BitNet graph with squared ReLU, whatever the layout" in (refused.value.hint or "")
    words = found[IK].command.split()
    assert words[:2] == ["tritpack", "repack"] and words[-2:] == ["--for", IK]
    made = tmp_path / "made.gguf"
    repack(demo_gguf, made, target=IK)
    again = GgufFile(made)
    assert by_engine(engines.describe(again, model_metadata.from_gguf(again)))[IK].verdict == RIGHT


def failing(found: dict[str, Verdict]) -> list[str]:
    """The commands that do not run as they are printed; both versions of an engine name the same output."""
    commands = [verdict.command for verdict in found.values() if verdict.command]
    return [command for command in commands if run(*shlex.split(command)[1:], "--force").exit_code]


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("hf1bit_llama3_8b", {LLAMA: "--for llama.cpp", PRISM_NEW: "--for prism --allow-scale-rounding"}),
        ("trilm_unpacked", {LLAMA: "", PRISM_NEW: ""}),
        ("onebitllm_large", {"vLLM": ""}),
        ("bitnet_embedding_qwen3", {"vLLM": ""}),
    ],
)
def test_commands_run_for_every_shape_and_scale(
    name: str, offered: dict[str, str], shared: Path, tmp_path: Path
) -> None:
    """A float32 scale per tensor; two scales of 96 columns; rows of 328; norms before the linears."""
    convert(shared / "checkpoints" / name, path := tmp_path / "m.gguf")
    file = GgufFile(path)
    found = by_engine(engines.describe(file, model_metadata.from_gguf(file)))
    for engine, end in offered.items():
        assert found[engine].command.endswith(end) and bool(found[engine].command) == bool(end), engine
        assert bool(found[engine].impossible) != bool(end), engine
    assert not failing(found)


@pytest.mark.parametrize("name", ["bonsai_hybrid_unpacked", "bonsai2_rotated_mlx"])
def test_every_command_for_a_hybrid_runs(name: str, shared: Path, tmp_path: Path) -> None:
    """Heads of the first are narrower than a group of 128, so that its groups are torn where GGUF orders heads."""
    path = tmp_path / "hybrid.gguf"
    convert(shared / "checkpoints" / name, path)
    file = GgufFile(path)
    found = by_engine(engines.describe(file, model_metadata.from_gguf(file)))
    rotated = "rotated" in name
    assert {name for name, verdict in found.items() if verdict.command} == (
        {PRISM_NEW, "MLX"} if rotated else {LLAMA, PRISM_NEW, "transformers", "MLX"}
    )
    assert not failing(found)
    why = "knows no model_type" if rotated else "export --to compressed-tensors does not write architecture qwen35"
    assert why in found["vLLM"].impossible
    if not rotated:
        assert found[PRISM_OLD].impossible == "none of its layouts (pq2_0) holds one scale per 64 weights"
    layouts = {tensor.layout for tensor in GgufFile(tmp_path / "hybrid-prismml.gguf").tensors.values()}
    assert ("pq2_0" if rotated else "q2_0") in layouts


def test_a_described_file_is_what_was_converted(checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = tmp_path / "bonsai.gguf"
    convert(checkpoints("bonsai_tied").folder, path, outtype="t2")
    file = GgufFile(path)
    described = engines.describe(file, model_metadata.from_gguf(file))
    assert (described.architecture, described.layouts, described.ternary_tables) == ("qwen3", ("t2",), True)
    assert described.int8_activations is False and described.ternary and not described.missing
    assert {grid.cols // grid.blocks[1] for grid in described.grids} == {128}, "weights of a scale"
    assert described.types == ((1582, "t2"),) and described.dialects == ("tritpack",) and described.file == str(path)


@pytest.mark.parametrize("outtype", ["t2", "pq2_0"])
def test_only_layouts_that_hold_the_scales_are_offered(outtype: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A model with a scale per 128 weights: scales in a table of their own, and within the blocks."""
    path = tmp_path / "bonsai.gguf"
    convert(checkpoints("bonsai_tied").folder, path, outtype=outtype)
    file = GgufFile(path)
    found = by_engine(engines.describe(file, model_metadata.from_gguf(file)))
    for name, layouts in ((IK, "iq2_bn_r4, iq2_bn, iq1_bn"), ("bitnet.c", "i2_s, tq2_0, tq1_0")):
        assert found[name].command == "", name
        assert found[name].impossible == f"none of its layouts ({layouts}) holds one scale per 128 weights", name
    assert found[LLAMA].command.endswith("--for llama.cpp")
    assert found[PRISM_OLD].command.endswith("--outtype pq2_0 --pq2-id 42")
    made = tmp_path / "made.gguf"
    repack(path, made, outtype="pq2_0", pq2_id=42)
    again = GgufFile(made)
    assert by_engine(engines.describe(again, model_metadata.from_gguf(again)))[PRISM_OLD].verdict == RIGHT


@pytest.mark.parametrize(
    ("type_id", "nbytes", "layout", "dialect"),
    [
        (42, 42, "stq1_0", "llama.cpp PR 22836 until mid 2026"),
        (43, 42, "stq1_0", "llama.cpp PR 22836"),
        (253, 42, "stq1_0", "a fork of llama.cpp"),
        (42, 72, "q2_0", "llama.cpp"),
        (42, 68, "pq2_0", "PrismML until mid 2026, and CAT-Q"),
    ],
)
def test_sound_files_of_each_dialect_are_named(
    tmp_path: Path, type_id: int, nbytes: int, layout: str, dialect: str
) -> None:
    """nbytes: per 256 weights."""
    file = ternary_file(tmp_path, type_id, rows=64, nbytes=64 * nbytes)
    described = engines.describe(file, None)
    assert described.layouts == (layout,) and described.dialects == (dialect,) and described.ternary
    assert not described.ambiguous


def test_a_file_of_bitnet_t5b_is_named(tmp_path: Path) -> None:
    file = ternary_file(tmp_path, 43, rows=64, nbytes=64 * 64 + 32)
    assert engines.describe(file, None).layouts == ("t5b",)
    for refused in (lambda: repack(file.path, tmp_path / "x.gguf"), lambda: verify(file.path)):
        with pytest.raises(Unsupported, match="is stored as t5b, the ternary layout of bitnet-t5b"):
            refused()


def test_two_readings_of_one_size_are_both_given(tmp_path: Path) -> None:
    """One row of 256 is 72 bytes as Q2_0 and 68 as PQ2_0, and padding hides the difference."""
    [sentence] = engines.describe(ternary_file(tmp_path, 42, rows=1, nbytes=72), None).ambiguous
    assert "q2_0 (llama.cpp) or pq2_0 (PrismML until mid 2026, and CAT-Q)" in sentence
    assert sentence in inspect(tmp_path / "file.gguf")["problems"]


def test_another_tensor_of_the_file_decides_between_two_readings(tmp_path: Path) -> None:
    """The same row beside a tensor that can only be PQ2_0."""
    sizes = {"blk.0.ffn_up.weight": (1, 68), "blk.0.ffn_gate.weight": (64, 64 * 68)}
    file = _written(tmp_path, {name: TensorPlan(name, (rows, 256), 42, size) for name, (rows, size) in sizes.items()})
    described = engines.describe(file, None)
    assert described.layouts == ("pq2_0",) and not described.ambiguous
    assert file.tensors["blk.0.ffn_up.weight"].nbytes == 68


def ternary_file(folder: Path, type_id: int, *, rows: int, nbytes: int) -> GgufFile:
    """A file with one linear of 256 columns, stored as zeros, and a norm after it."""
    plan = TensorPlan("blk.0.ffn_up.weight", (rows, 256), type_id, nbytes)
    return _written(folder, {plan.name: plan})


def _written(folder: Path, plans: dict[str, TensorPlan]) -> GgufFile:
    norm = TensorPlan("output_norm.weight", (8,), 0, 32)
    tensors = [*plans.values(), norm]
    pieces = ([np.zeros(plan.nbytes, np.uint8)] for plan in tensors)
    write_gguf(folder / "file.gguf", {"general.architecture": "llama"}, tensors, pieces)
    return GgufFile(folder / "file.gguf")


def test_every_line_says_how_it_is_known() -> None:
    for row in table.rows():
        for version in row.all_versions():
            for line in lines.lines(version):
                recorded = row.target is not None and line.verdict == "note"
                assert line.evidence or recorded, (version.name, line)
                assert line.file and line.verdict, version.name
                assert "{" not in line.why, f"{version.name}: a sentence with a field of a file needs `general`: {line}"


def test_the_page_says_which_models_an_engine_runs_in_which_layout() -> None:
    said = {row.name: lines.what_it_takes(row) for row in table.rows()}
    assert said[LLAMA].startswith("It needs tq2_0, tq1_0 or q2_0. Right for bitnet_b1_58-large")
    assert "Not for BitNet b1.58 2B-4T (squared ReLU)" in said[LLAMA]
    assert "Not for Ternary-Bonsai" in said[IK], "its layouts have no scale per 128 weights"
    assert "Not for Ternary-Bonsai-2" in said["vLLM"] and "Not tried with BitNet b1.58 2B-4T" in said["vLLM"]


def test_conditions_read_as_words() -> None:
    assert in_words({"architecture": ["a", "b"], "tied": False}) == "architecture a or b, an output head of its own"
    assert in_words({"layouts_not": "q2_0", "shortest_row_below": 512}) == "not q2_0, rows shorter than 512"


def test_the_command_lists_engines() -> None:
    result = CliRunner().invoke(cli, ["engines", "ik_llama"])
    assert result.exit_code == 0 and "8337e4cd" in result.output and "bitnet.cpp" not in result.output
    assert CliRunner().invoke(cli, ["engines", "vlmm"]).exception is not None


def test_an_exact_name_wins_and_programs_with_an_engine_inside_lead_to_it() -> None:
    exact = CliRunner().invoke(cli, ["engines", "LLAMA.cpp"]).output
    assert exact.startswith("llama.cpp ") and "\nik_llama.cpp " not in exact and "Not for BitNet b1.58 2B-4T" in exact
    inside = CliRunner().invoke(cli, ["engines", "Ollama"])
    assert inside.exit_code == 0 and "note: ollama runs models with llama.cpp" in inside.stderr
    assert inside.stdout == exact

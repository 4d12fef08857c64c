"""diff: what is one model in two files, and how two models are told apart."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.converter.verify.breakages import (
    Edit,
    arrays,
    bos_twice,
    codes,
    drop,
    exchanged,
    key,
    metadata,
    norm,
    renamed_architecture,
    scales,
    swap_two_tokens,
    tensors_as,
    untie,
    without,
    written_by_another_tool,
)
from tests.make.checkpoints import edited_gguf, split_gguf
from tests.make.families import FAMILIES, Checkpoints
from tests.make.remote import serving
from tritpack.converter.convert import convert
from tritpack.converter.diff.diff import diff
from tritpack.converter.release.bundle.create import create_bundle
from tritpack.converter.repack import repack
from tritpack.formats import float_types
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan
from tritpack.formats.model_metadata import from_gguf
from tritpack.formats.names import ExitCode
from tritpack.formats.ternary import TernaryTensor

UP, Q = "blk.0.ffn_up.weight", "blk.0.attn_q.weight"
TABLE = "token_embd.weight"


def broken(good: Path, folder: Path, edit: Edit) -> dict[str, Any]:
    return diff(good, edit(good, folder / "b.gguf"))


def sentences(result: dict[str, Any], part: str = "tensors") -> str:
    return "\n".join(row["sentence"] for row in result["differences"] if row["part"] == part)


# -- the same model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["t2", "t158", "tl2", "tq2_0", "iq2_bn_r4", "ptq1_0"])
def test_another_layout_is_the_same_model(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path, layout: str) -> None:
    other = tmp_path / "b.gguf"
    repack(tiny_gguf, other, outtype=layout)
    result = diff(tiny_gguf, other)
    assert result["verdict"] == "same" and result["differences"] == []
    assert result["summary"]["ternary"]["equal"] == 14 and result["metadata"]["by_nature"]
    row = next(row for row in result["tensors"] if row["name"] == UP)
    assert row["layout"] == {"a": "i2_s", "b": layout} and row["codes"]["differing"] == 0
    assert row["codes"]["codes_sha256"]["a"] == row["codes"]["codes_sha256"]["b"]
    assert result["schema"] == "tritpack.diff/1" and json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("family", ["falcon3", "bonsai_mlx", "gemma3_ternary_floats", "ms_2b4t_online"])
def test_a_checkpoint_is_the_model_of_its_file(checkpoints: Checkpoints, tmp_path: Path, family: str) -> None:
    folder, quantize = checkpoints(family).folder, FAMILIES[family].quantize
    convert(folder, tmp_path / "b.gguf", quantize=quantize)
    result = diff(folder, tmp_path / "b.gguf", quantize=quantize)
    assert result["differences"] == [] and result["a"]["kind"] == "checkpoint"
    assert {row["verdict"] for row in result["tensors"]} == {"equal"}


def test_a_split_set_is_the_model_of_the_whole(tiny_gguf: Path, tmp_path: Path) -> None:
    count = len(GgufFile(tiny_gguf).tensors)
    first = split_gguf(tiny_gguf, tmp_path, [0, 5, count])[0]
    assert diff(tiny_gguf, first)["verdict"] == "same"


def test_a_bundle_and_a_repository_are_the_models_that_they_hold(
    tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    shutil.copy(tiny_gguf, tmp_path / "release" / "m.gguf")
    create_bundle(tmp_path / "release", tmp_path / "m.tar.zst")
    with serving({"org/tiny": tiny_checkpoint}, tmp_path / "cache", monkeypatch):
        result = run("diff", "org/tiny", tmp_path / "m.tar.zst", "-q", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == ExitCode.GOOD and document["verdict"] == "same"
    assert {row["part"] for row in document["differences"]} <= {"description"}  # a repository has a name
    assert [document[side]["path"] for side in "ab"] == ["org/tiny", str(tmp_path / "m.tar.zst")]


def test_rows_that_two_files_order_differently_are_compared_in_one_order(tiny_gguf: Path, tmp_path: Path) -> None:
    renamed = metadata(renamed_architecture)(tiny_gguf, tmp_path / "llama.gguf")
    order = from_gguf(GgufFile(renamed)).row_order(Q)
    assert order is not None
    permuted = codes(lambda matrix: matrix[order], *(f"blk.{i}.attn_q.weight" for i in range(2)))(
        renamed, tmp_path / "q.gguf"
    )
    result = diff(tiny_gguf, permuted)
    rows = {row["name"]: row for row in result["tensors"]}
    assert rows[Q]["verdict"] == "equal" and rows["blk.0.attn_k.weight"]["verdict"] == "differs"
    for hashes, same in (("codes_sha256", False), ("codes_sha256_hf", True)):
        a, b = rows[Q]["codes"][hashes].values()
        assert (a == b) == same, hashes
    assert "codes_sha256_hf" not in rows[UP]["codes"]
    assert "rotates pairs" in sentences(result, "model")


def test_what_describes_a_model_counts_only_with_strict(tiny_gguf: Path, tmp_path: Path) -> None:
    other = key("general.name", "Another")(tiny_gguf, tmp_path / "b.gguf")
    result = diff(tiny_gguf, other)
    assert result["verdict"] == "same" and result["conclusion"].endswith(
        "; only the name differs, which does not count"
    )
    [row] = result["metadata"]["description"]
    assert row["key"] == "general.name" and row["change"] == "changed" and row["b"] == "'Another'"
    assert diff(tiny_gguf, other, strict=True)["verdict"] == "different"


def test_a_file_of_another_tool_is_completed_from_the_other_side(tiny_gguf: Path, tmp_path: Path) -> None:
    def silent(pairs: dict[str, Any]) -> None:
        written_by_another_tool(pairs)
        pairs.pop("tritpack.activation_quantization")

    result = broken(tiny_gguf, tmp_path, metadata(silent))
    assert not [row for row in result["differences"] if row["part"] in ("model", "tensors")]
    [note] = result["notes"]
    assert note.startswith("no key of B says how activations are quantised; taken to be as on the other side")
    [note] = diff(tmp_path / "b.gguf", tmp_path / "b.gguf")["notes"]
    assert note.startswith("no key of A or B says")


def test_the_conclusion_says_in_what_ways(tiny_gguf: Path, tmp_path: Path) -> None:
    """Activations of one side only; and several kinds of differences in one model."""
    other = key("tritpack.activation_quantization", "none")
    assert broken(tiny_gguf, tmp_path, other)["conclusion"] == (
        "A and B hold the same weights, and compute otherwise: activations are rounded to int8 in A only"
    )
    changed = codes(lambda matrix: -matrix)(tiny_gguf, tmp_path / "codes.gguf")
    result = diff(tiny_gguf, norm("output_norm.weight", lambda values: values * 2)(changed, tmp_path / "both.gguf"))
    told = "the signs of all codes are flipped in all 14 ternary tensors; in 1, its values differ"
    assert result["conclusion"] == f"A and B hold different models: {told}"


def test_of_models_of_different_sizes_no_mistake_is_guessed(tiny_gguf: Path, tmp_path: Path) -> None:
    def narrow(plans: list[tuple[TensorPlan, np.ndarray]]) -> list[tuple[TensorPlan, np.ndarray]]:
        name, other = "blk.1.ffn_up.weight", next(plan for plan, _ in plans if plan.name == "blk.1.attn_q.weight")
        data = next(data for plan, data in plans if plan.name == other.name)
        return [(replace(other, name=name), data) if plan.name == name else (plan, old) for plan, old in plans]

    permuted_rows = codes(permuted(0), "blk.0.ffn_down.weight")(tiny_gguf, tmp_path / "rows.gguf")
    assert "permuted" in sentences(diff(tiny_gguf, permuted_rows))
    smaller = tensors_as(narrow)(permuted_rows, tmp_path / "smaller.gguf")
    result = diff(tiny_gguf, smaller)
    assert "its shape is" in sentences(result) and "permuted" not in sentences(result)


@pytest.mark.parametrize("family", ["falcon3", "gemma3_packed"])  # byte-level and sentencepiece
def test_habits_of_another_tool_are_notes(checkpoints: Checkpoints, tmp_path: Path, family: str) -> None:
    def other_habits(pairs: dict[str, Any]) -> None:
        written_by_another_tool(pairs)
        for name in [name for name in pairs if name.startswith("general.source.")]:
            pairs.pop(name)
        pairs["tokenizer.ggml.padding_token_id"] = 1

    good = tmp_path / "a.gguf"
    convert(checkpoints(family).folder, good)
    other = metadata(other_habits)(good, tmp_path / "b.gguf")
    convert(other, tmp_path / "c.gguf")
    for name in "bc":
        result = diff(good, tmp_path / f"{name}.gguf")
        assert not [row for row in result["differences"] if row["kind"] == "key_differs"], name
        assert "padding_token_id is" in "".join(result["notes"]), name


# -- other models ------------------------------------------------------------------------------------------------------


def permuted(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda matrix: np.random.default_rng(3).permutation(matrix, axis=axis)


def of_all(tensors: dict[str, np.ndarray]) -> None:
    tensors[TABLE] = permuted(0)(tensors[TABLE].reshape(-1, 512)).reshape(-1)


DIFFERENCES: dict[str, tuple[Edit, str, str]] = {
    "inverted": (scales(lambda t: 1 / t.scales), "scale_inverted", "the scales are inverted in all 14 ternary tensors"),
    "shrunk": (
        scales(lambda t: t.scales * np.count_nonzero(t.codes) / t.codes.size),
        "scale_absmean_twice",
        "shrunk: B's is A's times 0.",
    ),
    "by one factor": (scales(lambda t: 3 * t.scales), "scale_differs", "every scale of B is 3 times as large, in all"),
    "flipped": (codes(lambda c: -c), "codes_negated", "the signs of all codes are flipped in all 14 ternary tensors"),
    "rows permuted": (codes(permuted(0)), "rows_reordered", "the rows are permuted in all 14 ternary tensors"),
    "columns permuted": (codes(permuted(1), UP), "columns_reordered", "columns permuted: B has A's columns"),
    "another tensor": (exchanged(UP, "blk.0.ffn_gate.weight"), "codes_of_other_tensor", "A has in 'blk.0.ffn_gate"),
    "other weights": (
        codes(lambda c: np.random.default_rng(5).integers(-1, 2, c.shape, np.int8), UP),
        "codes_differ",
        "nothing in common",
    ),
    "a norm": (norm("output_norm.weight", lambda v: v + 1), "norm_plus_one", "1 was added"),
    "rows of the table": (arrays(of_all), "table_rows_reordered", "rows permuted: B has A's rows"),
    "a tensor less": (drop("blk.1.ffn_down"), "tensor_missing", "only A has it"),
    "a tensor more": (tensors_as(untie), "tensor_unexpected", "only B has it"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_named(name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    edit, kind, words = DIFFERENCES[name]
    result = broken(tiny_gguf, tmp_path, edit)
    assert result["verdict"] == "different" and words in sentences(result)
    assert kind in [row["kind"] for row in result["differences"] if row["part"] == "tensors"]
    differing = [row for row in result["tensors"] if row["verdict"] != "equal"]
    assert differing and all(row["sentence"] and row["kind"] for row in differing)


def test_a_shrunk_side_is_named_whichever_it_is(tiny_gguf: Path, tmp_path: Path) -> None:
    shrunk = DIFFERENCES["shrunk"][0](tiny_gguf, tmp_path / "b.gguf")
    assert "shrunk: A's is B's times 0." in sentences(diff(shrunk, tiny_gguf))


def test_figures_of_a_single_code(tiny_gguf: Path, tmp_path: Path) -> None:
    def flip(matrix: np.ndarray) -> np.ndarray:
        matrix[5, 7] = 1 - abs(matrix[5, 7])
        return matrix

    before = GgufFile(tiny_gguf).ternary(GgufFile(tiny_gguf).tensors[UP])
    assert before is not None
    result = broken(tiny_gguf, tmp_path, codes(flip, UP))
    figures = next(row for row in result["tensors"] if row["name"] == UP)["codes"]
    assert (figures["differing"], figures["rows"], figures["columns"]) == (1, 1, 1)
    a = int(before.codes[5, 7])
    assert figures["first"] == {"row": 5, "column": 7, "a": a, "b": 1 - abs(a)}
    assert figures["codes_sha256"]["a"] == before.codes_sha256() != figures["codes_sha256"]["b"]
    assert "single code" in result["conclusion"]


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q6_k"])
def test_a_rounded_table_counts_unless_it_is_ignored(tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    convert(tiny_checkpoint, tmp_path / "a.gguf", embedding_type="f32")
    convert(tiny_checkpoint, tmp_path / "b.gguf", embedding_type=kind)

    def uneven(tensors: dict[str, np.ndarray]) -> None:  # values that no type survives
        tensors[TABLE].view(np.float32)[:] *= np.float32(1.0037)

    edited_gguf(tmp_path / "a.gguf", tmp_path / "c.gguf", tensors=uneven)
    file = GgufFile(tmp_path / "c.gguf")
    info = file.tensors[TABLE]
    values = float_types.decode("f32", file.bytes_of(info), info.rows, info.cols)
    edited_gguf(
        tmp_path / "b.gguf", tmp_path / "d.gguf", tensors=lambda t: t.update({TABLE: float_types.encode(kind, values)})
    )
    result = diff(tmp_path / "c.gguf", tmp_path / "d.gguf")
    [row] = result["differences"]
    assert row["part"] == "rounding" and f"B is A rounded to {kind}" in row["sentence"]
    assert result["verdict"] == "different" and "rounded" in result["conclusion"]
    assert result["tensors"][0]["verdict"] == "rounded"
    assert diff(tmp_path / "d.gguf", tmp_path / "c.gguf", ignore=["rounding"])["verdict"] == "same"


def template(change: Callable[[str], str]) -> Edit:
    name = "tokenizer.chat_template"
    return metadata(lambda pairs: pairs.update({name: change(pairs[name])}))


def merges(change: Callable[[list[str]], list[str]]) -> Edit:
    name = "tokenizer.ggml.merges"
    return metadata(lambda pairs: pairs.update({name: change([*pairs[name]])}))


def other_type(pairs: dict[str, Any]) -> None:
    types = np.array(pairs["tokenizer.ggml.token_type"])
    types[np.flatnonzero(types == 3)[-1]] = 4  # a control token becomes a user-defined one
    pairs["tokenizer.ggml.token_type"] = types


def test_templates_that_all_refuse_are_compared(tiny_gguf: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for path, word in zip(paths, ("no", "never")):
        key("tokenizer.chat_template", "{{ raise_exception('" + word + "') }}")(tiny_gguf, path)
    result = diff(*paths)
    assert result["verdict"] == "different" and "the chat templates differ" in sentences(result, "tokenizer")


def test_a_scale_rounded_to_float16_is_a_rounding(tiny_gguf: Path, tmp_path: Path) -> None:
    odd = scales(lambda t: t.scales * np.float32(1.0003))(tiny_gguf, tmp_path / "a.gguf")
    half = scales(lambda t: t.scales.astype(np.float16))(odd, tmp_path / "b.gguf")
    repack(half, tmp_path / "c.gguf", outtype="t2")
    result = diff(odd, tmp_path / "c.gguf")
    assert [row["part"] for row in result["differences"]] == ["rounding"]
    assert "rounded to float16" in sentences(result, "rounding")
    result = diff(odd, half, ignore=["rounding"])  # both i2_s: no type rounded it
    assert result["verdict"] == "different" and "which no type explains: both are stored as i2_s" in sentences(result)


def test_every_scale_has_to_be_rounded(tiny_gguf: Path, tmp_path: Path) -> None:
    rows = scales(lambda t: np.linspace(0.1, 0.2, len(t.codes), dtype=np.float32)[:, None], UP)

    def but_the_first(tensor: TernaryTensor) -> np.ndarray:
        larger: np.ndarray = tensor.scales * np.float32(1.5)
        larger[0] = tensor.scales[0].astype(np.float16)
        return larger

    repack(tiny_gguf, tmp_path / "t158.gguf", outtype="t158")
    repack(tiny_gguf, tmp_path / "t2.gguf", outtype="t2")
    a, same = rows(tmp_path / "t158.gguf", tmp_path / "a.gguf"), rows(tmp_path / "t2.gguf", tmp_path / "same.gguf")
    assert diff(a, same)["verdict"] == "same"
    b = scales(but_the_first, UP)(same, tmp_path / "b.gguf")
    result = diff(a, b, ignore=["rounding"])
    assert result["verdict"] == "different" and "rounded" not in sentences(result)


@pytest.mark.parametrize(
    ("kind", "values"),
    [("f32", (1.0, 1.0000001)), ("bf16", (1.0, 1.0078125)), ("f32", (0.0, -0.0)), ("q8_0", (1.0, 0.98))],
    ids=["f32", "bf16", "signed zero", "q8_0"],
)
def test_one_type_is_compared_to_the_last_bit(
    tiny_checkpoint: Path, tmp_path: Path, kind: str, values: tuple[float, float]
) -> None:
    convert(tiny_checkpoint, tmp_path / "m.gguf", embedding_type=kind)
    info = GgufFile(tmp_path / "m.gguf").tensors[TABLE]
    for name, value in zip("ab", values):
        table = np.ones((info.rows, info.cols), np.float32)
        table[3, 5] = value
        data = float_types.encode(kind, table)
        edited_gguf(tmp_path / "m.gguf", tmp_path / name, tensors=lambda t, data=data: t.update({TABLE: data}))
    result = diff(tmp_path / "a", tmp_path / "b", ignore=["rounding"])
    assert result["verdict"] == "different" and "first at [3, 5]" in sentences(result)
    assert result["summary"]["floats"]["differs"] == 1


@pytest.mark.parametrize("shape", [(), (0, 4), (4, 0), (2, 3, 4)], ids=str)
def test_odd_shapes_are_compared(tiny_gguf: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.arange(math.prod(shape), dtype=np.float32)
    paths = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for path in paths:
        data = np.frombuffer(values.tobytes(), np.uint8)
        added = TensorPlan("x", shape, 0, data.size), data
        tensors_as(lambda rows, added=added: [*rows, added])(tiny_gguf, path)
        if values.size:
            values = values.copy()
            values[-1] = 99
    assert diff(paths[0], paths[0])["verdict"] == "same"
    assert diff(*paths)["verdict"] == ("different" if values.size else "same")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (metadata(swap_two_tokens), "2 tokens differ, first that of id 70"),
        (metadata(bos_twice), "a chat is rendered as"),
        (template(lambda text: text + "{% if tools %}X{% endif %}"), "2 chats show no difference"),
        (merges(lambda rows: rows[:-4]), "the merges of the tokenizer differ"),
        (merges(lambda rows: [*rows[:-2], rows[-1], rows[-2]]), "the merges of the tokenizer differ"),
        (key("tokenizer.ggml.pre", "gpt-2"), "tokenizer.ggml.pre is"),
        (key("tokenizer.ggml.add_eos_token", True), "tokenizer.ggml.add_eos_token is"),
        (metadata(other_type), "the types of 1 tokens differ, first"),
        (key("tokenizer.ggml.bos_token_id", 3), "the token that begins a text is"),
        (key("tritpack.tokenizer.stop_token_ids", np.array([5], np.int32)), "[5] in B"),
        (key("tokenizer.ggml.eos_token_id", 10**6), "the tokenizer of B: tokenizer.ggml.eos_token_id is 1000000"),
        (without("tokenizer.ggml.tokens"), "B has no tokenizer"),
    ],
    ids=[
        "tokens",
        "chat",
        "template",
        "a merge less",
        "order of merges",
        "pre",
        "end",
        "types",
        "bos",
        "stops",
        "invalid",
        "none",
    ],
)
def test_another_tokenizer_is_named(tiny_gguf: Path, tmp_path: Path, edit: Edit, words: str) -> None:
    other = edit(tiny_gguf, tmp_path / "b.gguf")
    result = diff(tiny_gguf, other)
    assert words in sentences(result, "tokenizer") and result["verdict"] == "different"
    assert diff(tiny_gguf, other, ignore=["tokenizer"])["verdict"] == "same"


def test_ids_that_differ_are_shown(tiny_gguf: Path, tmp_path: Path) -> None:
    def other_letters(pairs: dict[str, Any]) -> None:
        tokens = list(pairs["tokenizer.ggml.tokens"])
        e, o = tokens.index("e"), tokens.index("o")
        tokens[e], tokens[o] = tokens[o], tokens[e]
        pairs["tokenizer.ggml.tokens"] = tokens

    result = broken(tiny_gguf, tmp_path, metadata(other_letters))
    example = result["tokenizer"]["examples"][0]
    assert example["a"] != example["b"] and result["tokenizer"]["differing"] >= 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("bitnet-b1.58.hidden_activation", "silu", "activation is 'relu2' in A and 'silu' in B"),
        ("bitnet-b1.58.rope.freq_base", 1e4, "rope_theta is"),
        ("bitnet-b1.58.final_logit_softcapping", 30.0, "softcapping is missing in A and 30.0 in B"),
        ("bitnet-b1.58.some_switch", 1, "some_switch is missing in A and 1 in B"),
        ("bitnet-b1.58.attention.key_length", 7, "key_length is"),
        ("general.architecture", "unknown", "general.architecture is 'bitnet-b1.58' in A and 'unknown' in B"),
    ],
)  # fmt: skip
def test_another_hyperparameter_is_named(tiny_gguf: Path, tmp_path: Path, name: str, value: Any, words: str) -> None:
    assert words in sentences(broken(tiny_gguf, tmp_path, key(name, value)), "model")


def test_a_key_with_its_usual_value_is_a_note_where_it_is_missing(tiny_gguf: Path, tmp_path: Path) -> None:
    result = broken(tiny_gguf, tmp_path, without("bitnet-b1.58.hidden_activation"))
    assert result["verdict"] == "same"
    [note] = result["notes"]
    assert note.startswith("other engines may read") and "hidden_activation is 'relu2' in A and missing in B" in note


def test_a_tensor_that_cannot_be_decoded_is_a_difference(tiny_gguf: Path, tmp_path: Path) -> None:
    def three(tensors: dict[str, np.ndarray]) -> None:
        tensors[UP][5] = 0xFF

    result = broken(tiny_gguf, tmp_path, arrays(three))
    [row] = [row for row in result["tensors"] if row["verdict"] == "differs"]
    assert row["damage"].keys() == {"b"} and "code 3" in row["damage"]["b"]
    assert "cannot be decoded, in B: " in row["sentence"] and row["sentence"].count(UP) == 1
    assert result["conclusion"].startswith(f"B is damaged: {UP} cannot be decoded")


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command(tiny_gguf: Path, tmp_path: Path) -> None:
    flipped = codes(lambda c: -c)(tiny_gguf, tmp_path / "b.gguf")
    result = run("diff", tiny_gguf, flipped, "--tensors", "--metadata")
    assert result.exit_code == ExitCode.CHECK_FAILED
    assert result.stdout.splitlines()[2].startswith("DIFFERENT: A and B hold different models: the signs of all codes")
    assert result.stdout.count("flipped: every sign is the other one") == 15  # 14 tensors, and the first in the summary
    shutil.copy(tiny_gguf, tmp_path / "c.gguf")
    result = run("diff", tiny_gguf, tmp_path / "c.gguf")
    assert result.exit_code == ExitCode.GOOD and result.stdout.splitlines()[2].startswith("SAME: ")
    printed = run("diff", tiny_gguf, flipped, "--json")
    document = json.loads(printed.stdout)
    assert printed.exit_code == ExitCode.CHECK_FAILED and document["a"]["path"] == str(tiny_gguf)
    assert document["tensors"][1].keys() >= {"name", "verdict", "shape", "layout", "nbytes", "kind", "sentence"}


def test_what_cannot_be_compared(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:5000])
    assert exit_code_of(run("diff", tiny_gguf, tmp_path / "cut.gguf")) == ExitCode.UNREADABLE
    assert exit_code_of(run("diff", tiny_gguf, tmp_path / "absent.gguf")) == ExitCode.UNREADABLE
    assert exit_code_of(run("diff", tiny_gguf, tiny_gguf, "--ignore", "layout")) == ExitCode.USAGE

"""The mutation bench: files broken in every way that converters break them. Each is caught, by the lowest rung that can
see it, with the right diagnosis; and good files are accused by none, over all families and layouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf
from tests.make.families import FAMILIES, Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.options import ConvertOptions
from tritpack.converter.plan import make_plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify import RUNGS, verify
from tritpack.formats.errors import Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.layouts.catalog import REPAIRABLE
from tritpack.formats.names import LAYOUTS, ExitCode
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime.library import Library, library

ARCH = "bitnet-b1.58"
Metadata = dict[str, Any]
Arrays = dict[str, np.ndarray]
Edit = Callable[[Path, Path], Path]
"""(good file, where to write) -> the broken file."""


@dataclasses.dataclass(frozen=True)
class Mutation:
    """edit: how the file of `family` is broken. rung: the lowest that can see it. words: of the diagnosis."""

    rung: str
    words: tuple[str, ...]
    edit: Edit
    family: str = "ms_2b4t_packed"


# -- ways to break -----------------------------------------------------------------------------------------------------


def metadata(change: Callable[[Metadata], object]) -> Edit:
    return lambda good, bad: edited_gguf(good, bad, metadata=change)


def key(name: str, value: object) -> Edit:
    return metadata(lambda pairs: pairs.update({name: value}))


def without(*names: str) -> Edit:
    return metadata(lambda pairs: [pairs.pop(name) for name in names])


def arrays(change: Callable[[Arrays], object]) -> Edit:
    """Of the stored bytes of tensors."""
    return lambda good, bad: edited_gguf(good, bad, tensors=change)


def norm(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    def edit(tensors: Arrays) -> None:
        floats = tensors[name].view(np.float32)
        floats[:] = change(floats.copy())

    return arrays(edit)


def ternary(change: Callable[[TernaryTensor], TernaryTensor], *names: str) -> Edit:
    """Codes and scales of tensors, packed again; all linears if none is named."""

    def edit(good: Path, bad: Path) -> Path:
        file = GgufFile(good)

        def repack(tensors: Arrays) -> None:
            for name, info in file.tensors.items():
                if (names and name not in names) or (found := file.ternary(info)) is None:
                    continue
                layout = file.layout_of(info)
                assert layout is not None
                tensors[name] = layout.pack(change(found))

        return edited_gguf(good, bad, tensors=repack)

    return edit


def codes(change: Callable[[np.ndarray], np.ndarray], *names: str) -> Edit:
    return ternary(
        lambda tensor: TernaryTensor(np.ascontiguousarray(change(tensor.codes.copy())), tensor.scales), *names
    )


def scales(change: Callable[[TernaryTensor], Any], *names: str) -> Edit:
    return ternary(lambda tensor: TernaryTensor(tensor.codes, np.float32(change(tensor)).reshape(-1, 1)), *names)


def tensors_as(change: Callable[[list[tuple[TensorPlan, np.ndarray]]], list[tuple[TensorPlan, np.ndarray]]]) -> Edit:
    """The tensor table itself."""

    def edit(good: Path, bad: Path) -> Path:
        file = GgufFile(good)
        table = [
            (TensorPlan(info.name, info.shape, info.type_id, info.nbytes), file.bytes_of(info).copy())
            for info in file.tensors.values()
        ]
        table = change(table)
        write_gguf(bad, file.metadata, [plan for plan, _ in table], ([data] for _, data in table))
        return bad

    return edit


def drop(part: str) -> Edit:
    return tensors_as(lambda table: [row for row in table if part not in row[0].name])


def retyped(part: str, type_id: int, nbytes: Callable[[int, int], int]) -> Edit:
    def change(table: list[tuple[TensorPlan, np.ndarray]]) -> list[tuple[TensorPlan, np.ndarray]]:
        result = []
        for plan, data in table:
            if part in plan.name:
                size = nbytes(*plan.shape)
                plan, data = dataclasses.replace(plan, type_id=type_id, nbytes=size), np.zeros(size, np.uint8)
            result.append((plan, data))
        return result

    return tensors_as(change)


def untie(table: list[tuple[TensorPlan, np.ndarray]]) -> list[tuple[TensorPlan, np.ndarray]]:
    plan, data = next(row for row in table if row[0].name == "token_embd.weight")
    return [*table, (dataclasses.replace(plan, name="output.weight"), np.roll(data, 2))]


def renamed_architecture(pairs: Metadata) -> None:
    for name in [name for name in pairs if name.startswith(f"{ARCH}.")]:
        pairs[name.replace(ARCH, "llama", 1)] = pairs.pop(name)
    pairs["general.architecture"] = "llama"


def swap_two_tokens(pairs: Metadata) -> None:
    tokens = list(pairs["tokenizer.ggml.tokens"])
    tokens[70], tokens[71] = tokens[71], tokens[70]
    pairs["tokenizer.ggml.tokens"] = tokens


def written_by_another_tool(pairs: Metadata) -> None:
    """Without what GGUF has no keys for: llama.cpp knows its own rules by name, and no normaliser."""
    for name in [name for name in pairs if name.startswith("tritpack.tokenizer.")]:
        pairs.pop(name)
    pairs.pop("tritpack.version")


def bos_twice(pairs: Metadata) -> None:
    pairs["tokenizer.chat_template"] = "{{ bos_token }}" + pairs["tokenizer.chat_template"]


def exchanged(first: str, second: str) -> Edit:
    def change(tensors: Arrays) -> None:
        tensors[first], tensors[second] = tensors[second], tensors[first]

    return arrays(change)


def stale_scale(tensors: Arrays) -> None:
    """Repacked codes with the trailer of the tensor that stood there before."""
    tensors["blk.1.ffn_up.weight"][-32:] = tensors["blk.0.ffn_up.weight"][-32:]


def in_order_of(layout: str) -> Edit:
    """What bitnet.cpp writes on another machine under the same type id."""

    def change(good: Path, bad: Path) -> Path:
        file = GgufFile(good)

        def repack(tensors: Arrays) -> None:
            for name, info in file.tensors.items():
                if (found := file.ternary(info)) is not None:
                    tensors[name] = REPAIRABLE[layout].pack(found)

        return edited_gguf(good, bad, tensors=repack)

    return change


def flip_one(tensor: np.ndarray) -> np.ndarray:
    tensor[3, 77] = (int(tensor[3, 77]) + 2) % 3 - 1
    return tensor


def rotary(codes_: np.ndarray, head_dim: int = 64) -> np.ndarray:
    rows = len(codes_)
    return codes_[np.arange(rows).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)]


def unrotary(codes_: np.ndarray, head_dim: int) -> np.ndarray:
    rows = len(codes_)
    return codes_[np.argsort(np.arange(rows).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1))]


def absmean_again(tensor: TernaryTensor) -> float:
    return float(np.abs(tensor.dequantize()).mean(dtype=np.float64))


def shifted(codes_: np.ndarray) -> np.ndarray:
    return np.roll(codes_.reshape(-1), 128).reshape(codes_.shape)


def nan(values: np.ndarray) -> np.ndarray:
    values[3] = np.nan
    return values


def truncated(good: Path, bad: Path) -> Path:
    bad.write_bytes(good.read_bytes()[:-5000])
    return bad


Q, UP, GATE, DOWN = (f"blk.{part}.weight" for part in ("0.attn_q", "1.ffn_up", "1.ffn_gate", "1.ffn_down"))
MUTATIONS: dict[str, Mutation] = {
    # what the metadata says
    "SiLU for squared ReLU": Mutation(
        "structure", ("activation is 'silu', the source has 'relu2'",), key(f"{ARCH}.hidden_activation", "silu")
    ),
    "another eps": Mutation(
        "structure", ("norm_eps is 1e-06",), key(f"{ARCH}.attention.layer_norm_rms_epsilon", 1e-6)
    ),
    "another rope base": Mutation("structure", ("rope_theta is 10000.0",), key(f"{ARCH}.rope.freq_base", 10000.0)),
    "head_dim from hidden / heads": Mutation(
        "structure", ("head_dim is 32", "the source has 64"), key("gemma3.rope.dimension_count", 32), "gemma3_packed"
    ),
    "NORM rope for NEOX": Mutation(
        "structure", ("llama turns rotary pairs (2 i, 2 i + 1)", "NEOX"), metadata(renamed_architecture)
    ),
    "rope scaling lost": Mutation(
        "structure", ("rope_scaling is None",),
        metadata(lambda pairs: [pairs.pop(name) for name in list(pairs) if "rope.scaling" in name]),
        "bonsai_untied_yarn",
    ),
    "embedding scale lost": Mutation(
        "structure", ("embedding_scale is 1.0",), key("gemma3.embedding_scale", 1.0), "gemma3_packed"
    ),
    "activations no longer int8": Mutation(
        "structure", ("int8_activations is False",), key("tritpack.activation_quantization", "none")
    ),
    "pooling by mean": Mutation("structure", ("pooling is 'mean'",), key("qwen3.pooling_type", 1), "embedding_qwen3"),
    "the file type of another fork": Mutation(
        "structure", ("general.file_type is 41, expected 40",), key("general.file_type", 41)
    ),
    "a scale that only other engines read": Mutation(
        "structure", ("minicpm.logit_scale is 1.0, expected",), key("minicpm.logit_scale", 1.0), "bitcpm"
    ),
    "an attention factor that only other engines read": Mutation(
        "structure", ("rope.scaling.attn_factor is 3.0",), key("minicpm.rope.scaling.attn_factor", 3.0),
        "bitcpm_longrope",
    ),
    "a head size that engines would guess": Mutation(
        "structure", ("gemma3.attention.key_length is missing",), without("gemma3.attention.key_length"),
        "gemma3_packed",
    ),
    "a mixture of experts": Mutation(
        "structure", ("llama.expert_count is 8, and the source has nothing like it",), key("llama.expert_count", 8),
        "falcon3",
    ),
    "one part of a split file": Mutation("structure", ("split.count is 2",), key("split.count", 2)),
    "end tokens hidden behind a second GGUF": Mutation(
        "structure", ("do not stop generation", "tokens [3] stop generation"),
        metadata(lambda pairs: pairs.update({
            "general.source.format": "gguf", "tritpack.tokenizer.stop_token_ids": np.array([3], np.int32),
        })),
    ),
    # the tensor table
    "a sub-norm lost": Mutation(
        "structure", ("attn_sub_norm is missing in all of the 2 layers: the norm was lost",), drop("attn_sub_norm")
    ),
    "norms before projections lost": Mutation(
        "structure", ("attn_q_norm_in is missing in all",), drop("_norm_in"), "embedding_qwen3"
    ),
    "head untied": Mutation(
        "structure", ("'output.weight' is not part of this model (the source ties the head",), tensors_as(untie)
    ),
    "head lost": Mutation("structure", ("tied is True", "'output.weight' is missing"), drop("output."), "falcon3"),
    "F16 under the name of I2_S": Mutation(
        "structure", ("is stored as f16, expected a ternary layout",), retyped("ffn_up", 1, lambda r, c: 2 * r * c)
    ),
    "TL2's number read as MXFP4": Mutation(
        "structure", ("is stored as mxfp4",), retyped("ffn_up", 39, lambda r, c: r * c // 32 * 17)
    ),
    "the last tensor truncated": Mutation("structure", ("needs", "are there"), truncated),
    # the tokenizer's keys
    "the template of another model": Mutation(
        "structure", ("tokenizer.chat_template is '<|im_start|>",),
        key("tokenizer.chat_template", "<|im_start|>{{ messages[0].content }}<|im_end|>"),
    ),
    "BOS twice in a chat": Mutation("structure", ("a chat begins with", "twice"), metadata(bos_twice)),
    "BOS added twice": Mutation(
        "structure", ("add_bos_token is True, the source has False",), key("tokenizer.ggml.add_bos_token", True),
        "falcon3",
    ),
    "eos missing": Mutation(
        "structure", ("tokenizer.ggml.eos_token_id is missing",), without("tokenizer.ggml.eos_token_id")
    ),
    "the chat's end does not stop": Mutation(
        "structure", ("end tokens", "do not stop generation"),
        key("tritpack.tokenizer.stop_token_ids", np.array([3], np.int32)),
    ),
    "the pre-tokenizer lost": Mutation(
        "structure", ("tokenizer.ggml.pre is 'default', the source has 'llama-bpe'",),
        key("tokenizer.ggml.pre", "default"),
    ),
    "two tokens swapped": Mutation(
        "structure", ("tokenizer.ggml.tokens differs from the source, first at element 70",), metadata(swap_two_tokens)
    ),
    # scales
    "the scale inverted": Mutation("weights", ("(inverted)",), scales(lambda t: 1 / t.scales[0, 0])),
    "absmean taken twice": Mutation("weights", ("absmean was taken twice",), scales(absmean_again)),
    "the scale lost": Mutation("weights", ("its scale is 1,", "(the scale was lost)"), scales(lambda t: 1.0)),
    "the scale rounded to float16": Mutation(
        "weights", ("(rounded to float16)",), scales(lambda t: np.float16(t.scales[0, 0])), "ms_2b4t_online"
    ),
    "a stale scale after a repack": Mutation(
        "weights", (UP, "(the scale of blk.0.ffn_up.weight: stale, or from another tensor)"), arrays(stale_scale)
    ),
    "127 left in the scale": Mutation("weights", ("(127 times as large)",), scales(lambda t: 127 * t.scales[0, 0], Q)),
    # codes
    "one trit flipped": Mutation("weights", (UP, "1 of 32768 codes differ", "[3, 77]"), codes(flip_one, UP)),
    "signs flipped": Mutation("weights", ("(every sign is flipped)",), codes(lambda c: -c)),
    "transposed": Mutation("weights", (Q, "(the matrix is transposed)"), codes(lambda c: c.T, Q)),
    "q and k permuted though NEOX": Mutation(
        "weights", (Q, "(the rows are in the rotary order of GGUF's llama, which this model must not have)"),
        codes(lambda c: rotary(c, 32), Q, "blk.0.attn_k.weight"),
    ),
    "q and k not permuted though NORM": Mutation(
        "weights", (Q, "(the rows are not in the rotary order of GGUF's llama, which this architecture needs)"),
        codes(lambda c: unrotary(c, 32), Q, "blk.0.attn_k.weight"), "falcon3",
    ),
    "the checkpoint's packing taken for neighbours": Mutation(
        "weights", ("a quarter of the matrix apart, were taken for neighbours)",),
        codes(lambda c: c.reshape(4, -1, c.shape[1]).swapaxes(0, 1).reshape(c.shape), UP),
    ),
    "a row too far": Mutation("weights", ("(the rows lie 1 further down",), codes(lambda c: np.roll(c, 1, 0), UP)),
    "columns reversed": Mutation("weights", ("(the columns are in reverse order)",), codes(lambda c: c[:, ::-1], UP)),
    "codes for other values": Mutation(
        "weights", ("are mapped in a circle)",), codes(lambda c: (c + 2) % 3 - 1, UP)
    ),
    "rows in another order": Mutation("weights", ("(the same rows in another order)",), codes(lambda c: c[::-1], UP)),
    "ARM's order of blocks": Mutation("weights", ("in the order of i2_s_arm", "--read-as"), in_order_of("i2_s_arm")),
    "four rows in a byte": Mutation("weights", ("in the order of i2_s_rows4",), in_order_of("i2_s_rows4")),
    "gate and up swapped": Mutation(
        "weights", (f"tensor {GATE!r}", f"(these are the codes of {UP})", f"tensor {UP!r}"), exchanged(GATE, UP)
    ),
    "the tensor of another layer": Mutation(
        "weights", (UP, "(these are the codes of blk.0.ffn_up.weight)"),
        arrays(lambda tensors: tensors.update({UP: tensors["blk.0.ffn_up.weight"].copy()})),
    ),
    "off by a tile": Mutation(
        "weights", (DOWN, "(all of them from there on lie 128 places further", "a tile is wrong"), codes(shifted, DOWN)
    ),
    "an empty tensor": Mutation("weights", (UP, "(all of them are zero: an empty tensor)"), codes(np.zeros_like, UP)),
    "a code of 3": Mutation(
        "weights", (UP, "code 3 at row 0"), arrays(lambda tensors: tensors[UP].__setitem__(0, 0xFF))
    ),
    # floats
    "1 added to norms that are not Gemma's": Mutation(
        "weights", ("(1 was added, as Gemma's norms have it",), norm("blk.0.ffn_norm.weight", lambda v: v + 1)
    ),
    "1 not added to Gemma's norms": Mutation(
        "weights", ("(1 was not added, as Gemma's norms need)",), norm("blk.0.ffn_norm.weight", lambda v: v - 1),
        "gemma3_packed",
    ),
    "two norms exchanged": Mutation(
        "weights", tuple(f"(these are the values of blk.0.{part}_norm.weight)" for part in ("attn", "ffn")),
        exchanged("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"),
    ),
    "the scale squared": Mutation("weights", ("(squared: it was",), scales(lambda t: t.scales[0, 0] ** 2)),
    "a norm of ones": Mutation("weights", ("the norm was lost)",), norm("output_norm.weight", np.ones_like)),
    "a norm that is no number": Mutation("weights", ("(it is not finite)",), norm("output_norm.weight", nan)),
    "embedding rows shifted": Mutation(
        "weights", ("token_embd.weight", "(the rows lie 1 further down than they should)"),
        arrays(lambda t: t.update({"token_embd.weight": np.roll(t["token_embd.weight"], 2 * 128)})),
    ),
    "an embedding of zeros": Mutation(
        "weights", ("token_embd.weight", "(it is all zeros)"), arrays(lambda t: t["token_embd.weight"].fill(0))
    ),
    # what the tokenizer does
    "the normaliser lost": Mutation(
        "tokenizer", ("'ﬁ ligature", "the source's gives", "(the normaliser NFC is missing)"),
        metadata(written_by_another_tool), "qwen3_packed",
    ),
    "a rule for blanks lost": Mutation(
        "tokenizer", ("'  two  spaces", "the source's gives"), metadata(written_by_another_tool), "gemma3_packed"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def good_files(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's checkpoint, converted once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "good.gguf"
            convert(checkpoints(name).folder, made[name], quantize=FAMILIES[name].quantize)
        return made[name]

    return get


@pytest.mark.parametrize("name", MUTATIONS)
def test_caught_by_the_lowest_rung_with_the_right_diagnosis(
    name: str, checkpoints: Checkpoints, good_files: Callable[[str], Path], tmp_path: Path
) -> None:
    mutation = MUTATIONS[name]
    bad = mutation.edit(good_files(mutation.family), tmp_path / "bad.gguf")
    folder = checkpoints(mutation.family).folder
    result = run("verify", bad, "--source", folder, "--level", mutation.rung)
    if name == "the last tensor truncated":  # no file that could be judged
        assert exit_code_of(result) == ExitCode.UNREADABLE
        said = str(result.exception)
    else:
        assert exit_code_of(result) == ExitCode.CHECK_FAILED, result.output
        report = verify(bad, folder, level=mutation.rung)
        assert [rung.name for rung in report.rungs if rung.verdict == "fail"] == [mutation.rung]
        assert report.conclusion == "the file is wrong"
        said = "\n".join(report[mutation.rung].findings)
    for word in mutation.words:
        assert word in said


def test_a_wrong_kernel_is_not_the_files_fault(
    checkpoints: Checkpoints, good_files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row of one kernel is off by one, as an untested tail would be."""
    right = Library.integer_product

    def off_by_one(self: Library, kernel: Any, tensor: Any, q: Any) -> Any:
        found = right(self, kernel, tensor, q)
        if kernel.symbol == victim:
            found[0, 5] += 1
        return found

    kernels = [kernel for kernel in library().kernels() if kernel.available and kernel.op == "matvec"]
    victim = [kernel.symbol for kernel in kernels if kernel.layout == "i2_s"][-1]
    good, folder = good_files("ms_2b4t_packed"), checkpoints("ms_2b4t_packed").folder
    monkeypatch.setattr(Library, "integer_product", off_by_one)
    report = verify(good, folder, level="tokenizer")
    assert [rung.name for rung in report.rungs if rung.verdict == "fail"] == ["kernels"]
    assert victim in report["kernels"].findings[0] and "row 5" in report["kernels"].findings[0]
    assert report.conclusion == "a kernel is wrong on this machine, not the file"


RUNTIMES: dict[str, tuple[str, object, str, str]] = {
    "SiLU for squared ReLU": ("ACTIVATION_IDS", {"relu2": 1}, "ms_2b4t_packed", "the activation function of layer 0"),
    "NORM rope for NEOX": ("INTERLEAVED_ROPE", (ARCH,), "ms_2b4t_packed", "query norm or rotary embedding of layer 0"),
    "NEOX rope for NORM": ("INTERLEAVED_ROPE", (), "falcon3", "query norm or rotary embedding of layer 0"),
}
"""What is wrong in the library's face: a name there, its wrong value, the family, the first step that deviates."""


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_wrong_runtime_is_located(
    name: str, checkpoints: Checkpoints, good_files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is right, and what computes it is not: said by the logits, with the step where it begins."""
    attribute, value, family, step = RUNTIMES[name]
    good, folder = good_files(family), checkpoints(family).folder
    monkeypatch.setattr(f"tritpack.runtime.library.{attribute}", value)
    report = verify(good, folder, level="logits")
    assert next(rung.name for rung in report.rungs if rung.verdict == "fail") == "logits"
    assert step in report["logits"].findings[0]
    assert report.conclusion == "the file holds what the source holds, but what runs it computes something else"


# -- no false alarm ----------------------------------------------------------------------------------------------------


def fitting_layouts(folder: Path, quantize: str | None) -> list[str]:
    """Layouts that hold a checkpoint exactly."""
    fitting = []
    for outtype in LAYOUTS:
        try:
            make_plan(CheckpointFolder(folder), ConvertOptions(outtype=outtype, quantize=quantize))
        except Unsupported:
            continue
        fitting.append(outtype)
    return fitting


@pytest.mark.parametrize("name", FAMILIES)
def test_good_files_are_accused_by_no_rung(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints(name)
    quantize = made.family.quantize
    layouts = fitting_layouts(made.folder, quantize)
    assert "t2" in layouts
    for layout in layouts:
        path = tmp_path / f"{layout}.gguf"
        convert(made.folder, path, outtype=layout, quantize=quantize)
        report = verify(path, made.folder, quantize=quantize)
        assert report.verdict == "pass", (layout, [rung.findings for rung in report.rungs])
        assert tuple(rung.name for rung in report.rungs) == RUNGS

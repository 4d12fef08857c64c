"""verify: good files pass, every kind of damage is found and named, and mistakes of the converter cannot hide."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DEMO
from tests.make.checkpoints import Tensors, edited_checkpoint, edited_gguf
from tests.make.families import FAMILIES, Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.sources.source_tensors import CheckpointTensor
from tritpack.converter.verify.compare.tolerances import TEXT_LIMITS
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Report
from tritpack.converter.verify.rungs import RUNGS
from tritpack.converter.verify.rungs.generation import check_generation
from tritpack.converter.verify.rungs.logits import find_safe_prompts
from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime.model import Model


def findings(report: Report) -> str:
    return "\n".join(f"{rung.name}: {finding}" for rung in report.rungs for finding in rung.sentences)


def kinds(report: Report) -> list[Kind]:
    return [kind for rung in report.rungs for kind in rung.kinds]


def test_packed_and_online_checkpoints_pass(
    tiny_checkpoint: Path, tiny_gguf: Path, online_checkpoint: Path, tmp_path: Path
) -> None:
    report = verify(tiny_gguf, tiny_checkpoint)
    assert report.verdict == "pass", findings(report)
    assert tuple(rung.name for rung in report.rungs) == RUNGS
    assert report["logits"].figures["method"] == "safe prompts"
    assert report["logits"].figures["worst_position"] <= 1e-5
    convert(online_checkpoint, tmp_path / "o.gguf")
    report = verify(tmp_path / "o.gguf", online_checkpoint)
    assert report.verdict == "pass", findings(report)


def test_the_demo_passes(demo_gguf: Path) -> None:
    report = verify(demo_gguf, DEMO / "checkpoint", text=DEMO / "heldout.txt")
    assert report.verdict == "pass", findings(report)
    text = next(rung for rung in report.rungs if rung.name == "text")
    assert text.skipped is None and text.figures["positions"] >= 500


def test_values_that_are_not_finite_are_found(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def poison(tensors: dict[str, np.ndarray]) -> None:
        tensors["token_embd.weight"][:2] = (0x00, 0x7E)  # float16 NaN

    bad = edited_gguf(tiny_gguf, tmp_path / "nan.gguf", tensors=poison)
    report = verify(bad, tiny_checkpoint, level="weights")
    assert report["weights"].kinds == [Kind.NOT_FINITE] and report["weights"].findings[0].tensor == "token_embd.weight"


@pytest.mark.parametrize("kind", ["q8_0", "q6_k", "q4_k", "f32", "bf16"])
def test_rounded_embeddings_are_no_deviation(tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    convert(tiny_checkpoint, tmp_path / "e.gguf", embedding_type=kind)
    report = verify(tmp_path / "e.gguf", tiny_checkpoint)
    assert report.verdict == "pass", findings(report)
    assert (report["weights"].figures["token_embd_rounding"] > 0) == (kind in ("q8_0", "q6_k", "q4_k"))


def flip_code(tensors: dict[str, np.ndarray]) -> None:
    """One code of one tensor: the first byte's highest pair becomes another legal code."""
    data = tensors["blk.1.ffn_up.weight"]
    old = data[0] >> 6
    data[0] = (data[0] & 0x3F) | ((old + 1) % 3) << 6


def flip_scale_bit(tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.attn_v.weight"][-32] ^= 1


def change_norm(tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.ffn_sub_norm.weight"].view(np.float32)[17] *= np.float32(1.0001)


def change_embedding(tensors: dict[str, np.ndarray]) -> None:
    tensors["token_embd.weight"][1000] ^= 1


def swap_gate_and_up(tensors: dict[str, np.ndarray]) -> None:
    a, b = "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"
    tensors[a], tensors[b] = tensors[b], tensors[a]


def swap_tokens(metadata: dict) -> None:
    tokens = list(metadata["tokenizer.ggml.tokens"])
    tokens[300], tokens[301] = tokens[301], tokens[300]
    metadata["tokenizer.ggml.tokens"] = tokens


def key(name: str, value: object) -> Callable[[dict], None]:
    return lambda metadata: metadata.update({name: value})


MUTATIONS: dict[str, tuple[dict, Kind, list[str]]] = {
    "a code": ({"tensors": flip_code}, Kind.CODE_DIFFERS, ["weights:", "'blk.1.ffn_up.weight'", "1 of", "[0, 0]"]),
    "a scale bit": ({"tensors": flip_scale_bit}, Kind.SCALE_DIFFERS, ["'blk.0.attn_v.weight'", "scale"]),
    "a norm value": ({"tensors": change_norm}, Kind.NORM_DIFFERS, ["'blk.0.ffn_sub_norm.weight'", "value 17"]),
    "an embedding value": ({"tensors": change_embedding}, Kind.TABLE_DIFFERS, ["'token_embd.weight'", "row 1 "]),
    "gate and up": (
        {"tensors": swap_gate_and_up},
        Kind.CODES_OF_OTHER_TENSOR,
        ["'blk.0.ffn_gate.weight'", "'blk.0.ffn_up.weight'"],
    ),
    "the activation": (
        {"metadata": key("bitnet-b1.58.hidden_activation", "silu")},
        Kind.MODEL_DIFFERS,
        ["structure:", "activation", "silu"],
    ),
    "an unknown activation": (
        {"metadata": key("bitnet-b1.58.hidden_activation", "mish")},
        Kind.METADATA_INVALID,
        ["structure:", "mish"],
    ),
    "the rope base": (
        {"metadata": key("bitnet-b1.58.rope.freq_base", 10000.0)},
        Kind.MODEL_DIFFERS,
        ["rope_theta is 10000.0"],
    ),
    "the norm eps": (
        {"metadata": key("bitnet-b1.58.attention.layer_norm_rms_epsilon", 1e-6)},
        Kind.MODEL_DIFFERS,
        ["norm_eps is 1e-06"],
    ),
    "the recorded hash": (
        {"metadata": key("general.source.sha256", "0" * 64)},
        Kind.SOURCE_HASH_DIFFERS,
        ["general.source.sha256"],
    ),
    "the listed hashes": (
        {"metadata": key("tritpack.source.files", ["0  config.json"])},
        Kind.SOURCE_HASH_DIFFERS,
        ["tritpack.source.files"],
    ),
    "end tokens": (
        {"metadata": key("tritpack.tokenizer.stop_token_ids", np.array([3], np.int32))},
        Kind.END_TOKENS_MISSING,
        ["structure: tokenizer: end tokens"],
    ),
    "merges": (
        {"metadata": lambda m: m.update({"tokenizer.ggml.merges": []})},
        Kind.KEY_DIFFERS,
        ["structure: tokenizer:"],
    ),
    "two tokens": ({"metadata": swap_tokens}, Kind.KEY_DIFFERS, ["tokenizer.ggml.tokens", "element 300"]),
    "the template": (
        {"metadata": key("tokenizer.chat_template", "{{ messages }}")},
        Kind.KEY_DIFFERS,
        ["tokenizer.chat_template"],
    ),
    "no template": (
        {"metadata": lambda m: m.pop("tokenizer.chat_template")},
        Kind.KEY_MISSING,
        ["tokenizer.chat_template is missing"],
    ),
    "bos": (
        {"metadata": key("tokenizer.ggml.bos_token_id", 5)},
        Kind.KEY_DIFFERS,
        ["tokenizer.ggml.bos_token_id is 5"],
    ),
    "add_bos": (
        {"metadata": key("tokenizer.ggml.add_bos_token", False)},
        Kind.KEY_DIFFERS,
        ["tokenizer.ggml.add_bos_token is False"],
    ),
    "the pre-tokenizer": (
        {"metadata": key("tokenizer.ggml.pre", "default")},
        Kind.KEY_DIFFERS,
        ["tokenizer.ggml.pre is 'default'"],
    ),
    "no pre-tokenizer": (
        {"metadata": lambda m: m.pop("tokenizer.ggml.pre")},
        Kind.KEY_MISSING,
        ["tokenizer.ggml.pre is missing"],
    ),
    "rope scaling": (
        {"metadata": lambda m: m.update({"bitnet-b1.58.rope.scaling.type": "yarn"})},
        Kind.METADATA_INVALID,
        ["structure: metadata: metadata key bitnet-b1.58.rope.scaling.original_context_length is missing"],
    ),
    "key_length": ({"metadata": key("bitnet-b1.58.attention.key_length", 32)}, Kind.KEY_DIFFERS, ["key_length is 32"]),
    "the file type": ({"metadata": key("general.file_type", 1)}, Kind.KEY_DIFFERS, ["general.file_type is 1"]),
    "activation quantisation": (
        {"metadata": key("tritpack.activation_quantization", "none")},
        Kind.MODEL_DIFFERS,
        ["int8_activations is False"],
    ),
    "a text for a number": (
        {"metadata": key("bitnet-b1.58.embedding_length", "many")},
        Kind.METADATA_INVALID,
        ["embedding_length"],
    ),
    "billions of layers": (
        {"metadata": key("bitnet-b1.58.block_count", 2**31 - 1)},
        Kind.METADATA_INVALID,
        ["block_count"],
    ),
    "no number of positions": (
        {"metadata": key("bitnet-b1.58.context_length", 0)},
        Kind.METADATA_INVALID,
        ["context_length"],
    ),
    "tokens that are none": ({"metadata": key("tokenizer.ggml.tokens", 7)}, Kind.TOKENIZER_INVALID, ["tokenizer"]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_damage_is_found_and_named(name: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    change, kind, words = MUTATIONS[name]
    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", **change), tiny_checkpoint, level="weights")
    assert kind in kinds(report)
    assert [word for word in words if word not in findings(report)] == []


def convert_with(monkeypatch: pytest.MonkeyPatch, source: Path, target: Path, mistake: Callable) -> Path:
    real = CheckpointTensor.ternary
    monkeypatch.setattr(CheckpointTensor, "ternary", lambda self: mistake(real(self)))
    convert(source, target)
    return target


def inverted_scale(tensor: TernaryTensor) -> TernaryTensor:
    return TernaryTensor(tensor.codes, np.float32(1) / tensor.scales)


def second_absmean(tensor: TernaryTensor) -> TernaryTensor:
    """What the usual converter does: dequantise what is ternary already, and take absmean of it."""
    weights = tensor.dequantize()
    mean = np.float32(np.abs(weights).mean(dtype=np.float64))
    return TernaryTensor.per_tensor(np.clip(np.rint(weights / mean), -1, 1).astype(np.int8), mean)


def permuted_rows(tensor: TernaryTensor) -> TernaryTensor:
    """The q/k permutation of GGUF's `llama`, which has no place in bitnet-b1.58."""
    rows, cols = tensor.shape
    heads = tensor.codes.reshape(rows // 64, 2, 32, cols)
    return TernaryTensor(np.ascontiguousarray(heads.swapaxes(1, 2).reshape(rows, cols)), tensor.scales)


def negated(tensor: TernaryTensor) -> TernaryTensor:
    return TernaryTensor(-tensor.codes, tensor.scales)


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        (inverted_scale, Kind.SCALE_INVERTED),
        (second_absmean, Kind.SCALE_ABSMEAN_TWICE),
        (permuted_rows, Kind.ROWS_REORDERED),
        (negated, Kind.CODES_NEGATED),
    ],
)
def test_mistakes_of_the_converter_are_caught_twice(
    mistake: Callable, kind: Kind, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the weights, with a diagnosis; and by the logits alone, which read no stored weight."""
    wrong = convert_with(monkeypatch, tiny_checkpoint, tmp_path / "wrong.gguf", mistake)
    report = verify(wrong, tiny_checkpoint, level="logits")
    assert kind in kinds(report)
    assert {rung.name: rung.verdict for rung in report.rungs} == {
        "structure": "pass",
        "weights": "fail",
        "kernels": "pass",
        "tokenizer": "pass",
        "logits": "fail",
        "text": "fail",
    }


def test_wide_models_are_judged_with_near_ties_followed(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no safe prompt exists the logits rung must still decide, both ways."""
    monkeypatch.setattr("tritpack.converter.verify.rungs.logits.find_safe_prompts", lambda oracle: [])
    good = verify(tiny_gguf, tiny_checkpoint, level="logits")
    assert good["logits"].figures["method"] == "near-ties followed" and good.verdict == "pass"
    # Not one flipped code: where its gate is closed for all six tokens, no logit can tell.
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=swap_gate_and_up)
    assert verify(bad, tiny_checkpoint, level="logits")["logits"].verdict == "fail"


def test_a_flip_on_a_prompt_that_was_not_safe_accuses_nobody(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long prompts are sure to hold a flip: reported for a good file, no excuse for a wrong one."""
    prompts = np.random.default_rng(3).integers(0, 512, (4, 200)).tolist()
    monkeypatch.setattr("tritpack.converter.verify.rungs.logits.find_safe_prompts", lambda oracle: prompts)
    good = verify(tiny_gguf, tiny_checkpoint, level="logits")["logits"]
    assert good.verdict == "pass" and good.figures["flips"] > 0 and "all rounding" in good.notes[0]
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=swap_gate_and_up)
    assert verify(bad, tiny_checkpoint, level="logits")["logits"].verdict == "fail"


def test_safe_prompts_are_really_safe(tiny_checkpoint: Path) -> None:
    oracle = Oracle(tiny_checkpoint)
    prompts = find_safe_prompts(oracle)
    assert len(prompts) == 3
    margins: list[float] = []
    oracle.logits(prompts, observe=lambda seen: margins.append(float(seen.margins.min())))
    assert min(margins) > 1e-6


def test_what_cannot_be_judged(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:-5000])
    with pytest.raises(Unreadable, match="needs"):
        verify(cut, tiny_checkpoint)
    with pytest.raises(Unreadable):
        verify(tiny_gguf, tmp_path / "none")
    with pytest.raises(Unreadable, match="UTF-8"):
        verify(tiny_gguf, tiny_checkpoint, text=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c["quantization_config"].update(linear_class="other"), Unsupported),
        (lambda c: c.update(rope_scaling={"type": "dynamic", "factor": 2}), Unsupported),
        (lambda c: c.update(attention_bias=True), Unsupported),
        (lambda c: c.pop("vocab_size"), Unreadable),
        (lambda c: c.update(hidden_size="x"), Unreadable),
    ],
    ids=["linear class", "rope scaling", "bias", "no vocabulary size", "a text for a size"],
)
def test_a_source_that_cannot_be_judged(
    change: Callable, error: type[Exception], tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    with pytest.raises(error):
        verify(tiny_gguf, edited_checkpoint(tiny_checkpoint, tmp_path / "c", config=change))


@pytest.mark.parametrize("level", ["weights", "full"])
def test_an_illegal_code_is_a_finding_not_an_unreadable_file(
    level: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    def three(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.1.attn_k.weight"][9] = 0xFF

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=three), tiny_checkpoint, level=level)
    [finding] = report["weights"].findings
    assert (finding.kind, finding.tensor) == (Kind.TENSOR_INVALID, "blk.1.attn_k.weight")
    assert "'blk.1.attn_k.weight'" in finding.sentence and "i2_s: code 3" in finding.sentence


def test_a_norm_that_is_no_number_fails_every_rung_it_reaches(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    def nan(tensors: dict[str, np.ndarray]) -> None:
        tensors["output_norm.weight"].view(np.float32)[3] = np.nan

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=nan), tiny_checkpoint, level="logits")
    assert [report[name].verdict for name in ("weights", "logits", "text")] == ["fail", "fail", "fail"]


def test_bytes_behind_the_last_tensor_are_mentioned(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.gguf"
    longer.write_bytes(tiny_gguf.read_bytes() + bytes(1000))
    report = verify(longer, tiny_checkpoint, level="weights")
    assert report.verdict == "pass" and any("1000 bytes after" in note for note in report["structure"].notes)


def test_a_missing_tensor_stops_the_climb_without_a_crash(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    def drop(tensors: dict[str, np.ndarray]) -> None:
        del tensors["blk.1.attn_norm.weight"]

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=drop), tiny_checkpoint)
    [finding] = [finding for finding in report["structure"].findings if finding.tensor is not None]
    assert (finding.kind, finding.tensor) == (Kind.TENSOR_MISSING, "blk.1.attn_norm.weight")
    assert {rung.name for rung in report.rungs if rung.verdict == "skipped"} == set(RUNGS[2:]) - {"tokenizer"}


def test_an_untied_head_of_another_type(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Embedding f16, head bf16: each is judged as its own type rounds it."""

    def untie(tensors: Tensors) -> None:
        dtype, shape, data = tensors["model.embed_tokens.weight"]
        bits = np.frombuffer(data, "<u2").copy()
        bits[::7] = 0x2EDB  # about 1e-10, which f16 would flush to zero
        tensors["lm_head.weight"] = (dtype, shape, bits.tobytes())

    folder = edited_checkpoint(
        tiny_checkpoint, tmp_path / "c", tensors=untie, config=lambda c: c.update(tie_word_embeddings=False)
    )
    result = convert(folder, tmp_path / "u.gguf")
    assert {t.output.name: t.kind for t in result.plan.tensors}["output.weight"] == "bf16"
    assert any("separate output head" in warning for warning in result.warnings)
    report = verify(tmp_path / "u.gguf", folder)
    assert report.verdict == "pass", findings(report)


CONFIGS: dict[str, Callable[[dict], object]] = {
    "widened float32": lambda c: c.update(rms_norm_eps=9.999999747378752e-06, rope_theta=500000.123),
    "rope_parameters": lambda c: c.update(rope_parameters={"rope_type": "default", "rope_theta": c.pop("rope_theta")}),
    "theta beside rope_parameters": lambda c: c.update(rope_parameters={"rope_type": "default"}, rope_theta=10000),
    "dtype for torch_dtype": lambda c: c.update(dtype=c.pop("torch_dtype")),
    "a short context": lambda c: c.update(max_position_embeddings=16),
    "no key-value heads": lambda c: c.update(num_key_value_heads=2),
    "silu": lambda c: c.update(hidden_act="silu"),
    "dividing scales": lambda c: c["quantization_config"].pop("linear_class"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_honest_variants_are_not_accused(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c", config=CONFIGS[name])
    convert(folder, tmp_path / "v.gguf")
    report = verify(tmp_path / "v.gguf", folder)
    assert report.verdict == "pass", findings(report)


def test_padding_and_truncation_of_the_tokenizer_file_do_not_count(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c")
    document = json.loads((folder / "tokenizer.json").read_text())
    document["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    convert(folder, tmp_path / "t.gguf")
    assert verify(tmp_path / "t.gguf", folder, level="weights").verdict == "pass"


def test_files_that_hold_floats_where_codes_belong(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """A plain F16 file under an I2_S name: the usual silent downgrade."""
    file = GgufFile(tiny_gguf)
    name = "blk.0.attn_q.weight"
    plans, data = [], []
    for tensor in file.tensors.values():
        stored = file.bytes_of(tensor)
        if tensor.name == name:
            stored = np.zeros(2 * tensor.rows * tensor.cols, np.uint8)
        plans.append(TensorPlan(tensor.name, tensor.shape, 1 if tensor.name == name else tensor.type_id, stored.size))
        data.append([stored])
    write_gguf(tmp_path / "f.gguf", file.metadata, plans, data)
    report = verify(tmp_path / "f.gguf", tiny_checkpoint)
    assert report.verdict == "fail" and f"{name!r} is stored as f16" in findings(report)


def test_what_was_found_is_told_even_if_nothing_can_run(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise MissingRequirement("the C library is not built")

    monkeypatch.setattr("tritpack.runtime.model.Model.__init__", missing)
    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=flip_code), tiny_checkpoint)
    assert report.verdict == "fail" and report["logits"].skipped == "the C library is not built"
    with pytest.raises(MissingRequirement):
        verify(tiny_gguf, tiny_checkpoint)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_step_through_the_layers_agrees(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """All trace points of the C graph are known to the reference, and mean the same there."""
    made = checkpoints(name)
    convert(made.folder, tmp_path / "m.gguf", quantize=made.family.quantize)
    series = verify(tmp_path / "m.gguf", made.folder, level="logits", quantize=made.family.quantize)["logits"].series
    points = [point for point, layer in zip(series["point"], series["layer"]) if layer == 1]
    assert len(points) >= 17 and {"attn_q", "attn_out", "ffn_mul", "layer_out"} <= set(points)
    assert max(series["step_error"]) < 1e-5


def test_a_token_after_a_near_tie_is_noted_and_accuses_nobody(
    tiny_checkpoint: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge whose likeliest token is the runtime's second: within rounding it is a note, beyond it a finding."""

    class Judge(Oracle):
        push = np.float32(0)

        def outputs(self, sequences: list[list[int]], **options: object) -> list[np.ndarray]:
            tables = super().outputs(sequences, **options)
            for table in tables if not options else ():
                rows, order = np.arange(len(table)), np.argsort(table, axis=-1)
                gap = table[rows, order[:, -1]] - table[rows, order[:, -2]]
                table[rows, order[:, -2]] += gap + self.push
            return tables

    model, judge, oracle = Model(tiny_gguf), Judge(tiny_checkpoint), Oracle(tiny_checkpoint)
    monkeypatch.setattr("tritpack.converter.verify.rungs.generation.THREADS", (1,))
    judge.push = np.float32(1e-3)
    monkeypatch.setitem(TEXT_LIMITS, "worst_position", 1.0)
    near = check_generation(model, oracle, judge, {"text": [1, 2, 3]})
    assert near.verdict == "pass" and near.figures["prompts_equal"] == 0
    assert all("a near-tie" in note for note in near.notes) and len(near.notes) == 2
    monkeypatch.setitem(TEXT_LIMITS, "worst_position", 0.0)  # as for deep models: rounding does not explain this
    judge.push = np.float32(10)
    far = check_generation(model, oracle, judge, {"text": [1, 2, 3]})
    assert far.verdict == "fail" and far.kinds == [Kind.TOKEN_DIFFERS] * 2


# -- what reviewers found ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "general.architecture", "general.file_type", "general.source.format", "general.source.sha256",
        "tokenizer.ggml.pre", "tokenizer.chat_template", "tokenizer.ggml.eos_token_id",
        "bitnet-b1.58.attention.key_length", "bitnet-b1.58.hidden_activation", "tritpack.source.files",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [np.array([1, 2], np.int32), "text", 7, True, ["a", "b"]])
def test_values_of_any_type_are_findings(
    name: str, value: object, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", metadata=key(name, value))
    report = verify(bad, tiny_checkpoint, level="weights")
    json.dumps(report.as_json())
    if name != "general.source.format":
        assert report["structure"].verdict == "fail"


def test_an_undecodable_tensor_is_no_kernels_fault(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    def three(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.1.attn_k.weight"][9] = 0xFF

    report = verify(edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=three), tiny_checkpoint, level="kernels")
    assert report["kernels"].verdict == "pass" and "blk.1.attn_k" in report["kernels"].notes[0]
    assert report["kernels"].figures["tensors_run"] == report["kernels"].figures["of_tensors"] - 1
    assert report.conclusion == "the file is wrong"


def test_a_norm_under_a_ternary_number_is_a_finding(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("bitnet_ternary_floats").folder
    convert(folder, tmp_path / "good.gguf")
    file = GgufFile(tmp_path / "good.gguf")
    plans, data = [], []
    for info in file.tensors.values():
        norm = info.name == "output_norm.weight"
        stored = np.zeros(info.cols // 4 + 32, np.uint8) if norm else file.bytes_of(info)
        plans.append(TensorPlan(info.name, info.shape, 36 if norm else info.type_id, stored.size))
        data.append([stored])
    write_gguf(tmp_path / "bad.gguf", file.metadata, plans, data)
    report = verify(tmp_path / "bad.gguf", folder, level="weights")
    [finding] = [finding for finding in report["structure"].findings if finding.kind is Kind.TYPE_DIFFERS]
    assert finding.tensor == "output_norm.weight" and finding.figures == {"layout": "i2_s"}


def test_a_damaged_source_is_not_the_files_fault(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    def nan(tensors: Tensors) -> None:
        dtype, shape, data = tensors["model.norm.weight"]
        tensors["model.norm.weight"] = (dtype, shape, b"\xc0\x7f" + data[2:])

    source = edited_checkpoint(tiny_checkpoint, tmp_path / "source", tensors=nan)
    with pytest.raises(Unreadable, match="not finite"):
        verify(tiny_gguf, source, level="weights")


def test_a_source_gguf_that_names_no_source(tiny_gguf: Path, tmp_path: Path) -> None:
    def anonymous(metadata: dict) -> None:
        for name in [name for name in metadata if "source" in name]:
            metadata.pop(name)

    source = edited_gguf(tiny_gguf, tmp_path / "source.gguf", metadata=anonymous)
    report = verify(tiny_gguf, source)
    assert report.verdict == "pass", findings(report)
    assert any("does not say from which" in note for note in report["structure"].notes)


@pytest.mark.parametrize("positions", [1, 2, 4, 8])
def test_models_of_few_positions(positions: int, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = edited_checkpoint(
        tiny_checkpoint, tmp_path / "c", config=lambda config: config.update(max_position_embeddings=positions)
    )
    convert(folder, tmp_path / "m.gguf")
    report = verify(tmp_path / "m.gguf", folder)
    assert report.verdict == "pass", findings(report)


def test_added_tokens_that_only_the_settings_name(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(DEMO / "checkpoint", folder)
    document = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    added = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in document["added_tokens"]}
    settings["added_tokens_decoder"] = added
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] < max(map(int, added)) - 2]
    assert len(document["added_tokens"]) < len(added)
    (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    convert(folder, tmp_path / "m.gguf")
    report = verify(tmp_path / "m.gguf", folder, level="tokenizer")
    assert report.verdict == "pass", findings(report)


def test_a_text_without_tokens(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("falcon3").folder
    convert(folder, tmp_path / "m.gguf")
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(UsageError, match="holds no text"):
        verify(tmp_path / "m.gguf", folder, text=tmp_path / "empty.txt")


def test_end_tokens_of_a_nested_config(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Gemma's text model inside another config: its end tokens are known all the same."""
    folder = tmp_path / "c"
    shutil.copytree(checkpoints("gemma3_packed").folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] = {"vocab_size": config.pop("vocab_size"), "eos_token_id": [config.pop("eos_token_id"), 7]}
    (folder / "config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "m.gguf")
    report = verify(tmp_path / "m.gguf", folder, level="tokenizer")
    assert report.verdict == "pass", findings(report)

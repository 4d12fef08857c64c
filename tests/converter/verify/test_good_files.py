"""Good files pass: every family's own variants, odd sizes and settings accuse nobody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DEMO
from tests.converter.verify.reports import findings
from tests.make.checkpoints import Tensors, edited_checkpoint, edited_gguf
from tests.make.families import FAMILIES, Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.verify.context import Context, Options
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.rung import Report
from tritpack.converter.verify.rungs import RUNGS, weights
from tritpack.formats.gguf_reader import GgufFile


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


@pytest.mark.parametrize("kind", ["q8_0", "q6_k", "q4_k", "f32", "bf16"])
def test_rounded_embeddings_are_no_deviation(tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    convert(tiny_checkpoint, tmp_path / "e.gguf", embedding_type=kind)
    report = verify(tmp_path / "e.gguf", tiny_checkpoint)
    assert report.verdict == "pass", findings(report)
    assert (report["weights"].figures["token_embd_rounding"] > 0) == (kind in ("q8_0", "q6_k", "q4_k"))


@pytest.mark.parametrize("everything", [False, True])
def test_the_oracle_takes_only_tables_that_are_right(tiny_checkpoint: Path, tmp_path: Path, everything: bool) -> None:
    convert(tiny_checkpoint, tmp_path / "good.gguf", embedding_type="q6_k")

    def change_the_last_row(tensors: dict[str, np.ndarray]) -> None:
        tensors["token_embd.weight"].reshape(-1)[-300] ^= 1

    edited_gguf(tmp_path / "good.gguf", tmp_path / "bad.gguf", tensors=change_the_last_row)
    rows = {}
    for name in ("good", "bad"):
        path = tmp_path / f"{name}.gguf"
        options = Options(everything=everything)
        with Context(GgufFile(path), tiny_checkpoint, options, Report(str(path), None, [])) as context:
            assert weights.run(context).verdict == ("pass" if name == "good" else "fail"), name
            assert context.right_tables == ({"token_embd.weight"} if name == "good" else set()), name
            rows[name] = context.oracle.embedding(np.arange(context.exact.spec.vocab_size))
    assert np.array_equal(rows["good"], rows["bad"])


@pytest.mark.parametrize(("count", "verdict"), [(0, "pass"), (1, "pass"), (2, "fail")])
def test_a_merged_file_may_keep_the_keys_of_its_parts(
    count: int, verdict: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    """llama-gguf-split sets the count to 0; with another one llama.cpp would look for the parts."""
    keys = {"split.no": 0, "split.count": count, "split.tensors.count": 24}
    path = edited_gguf(tiny_gguf, tmp_path / "m.gguf", metadata=lambda pairs: pairs.update(keys))
    report = verify(path, tiny_checkpoint, level="structure")
    assert report.verdict == verdict, findings(report)


def test_bytes_behind_the_last_tensor_are_mentioned(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.gguf"
    longer.write_bytes(tiny_gguf.read_bytes() + bytes(1000))
    report = verify(longer, tiny_checkpoint, level="weights")
    [note] = [note for note in report["structure"].notes if "bytes after" in note]
    after = int(note.partition(" bytes after")[0].split()[-1].replace(",", ""))
    assert report.verdict == "pass" and 1000 <= after < 1064, "the file's own padding counts too"


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


@pytest.mark.parametrize("name", FAMILIES)
def test_every_step_through_the_layers_agrees(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """All trace points of the C graph are known to the reference, and mean the same there."""
    made = checkpoints(name)
    convert(made.folder, tmp_path / "m.gguf", quantize=made.family.quantize)
    series = verify(tmp_path / "m.gguf", made.folder, level="logits", quantize=made.family.quantize)["logits"].series
    points = [point for point, layer in zip(series["point"], series["layer"]) if layer == 1]
    assert len(points) >= 17 and {"attn_q", "attn_out", "ffn_mul", "layer_out"} <= set(points)
    assert max(series["step_error"]) < 1e-5


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

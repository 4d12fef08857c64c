"""verify without a source: what a file alone can show, and that it never claims more."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.converter.verify.breakages import (
    ARCH,
    Edit,
    arrays,
    bos_twice,
    codes,
    drop,
    key,
    metadata,
    nan,
    norm,
    scales,
    without,
    written_by_another_tool,
)
from tests.make.checkpoints import edited_gguf
from tritpack.converter.report.render import schema, write_report
from tritpack.converter.verify.alone import ALONE, language
from tritpack.converter.verify.alone.context import AloneContext
from tritpack.converter.verify.alone.language import Score, judge, texts
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.rung import Report, Rung
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.json_text import json_text
from tritpack.formats.names import ExitCode
from tritpack.runtime.perplexity import Estimate

UP, TABLE = "blk.0.ffn_up.weight", "token_embd.weight"


@pytest.fixture(scope="module")
def demo_report(demo_gguf: Path) -> Report:
    return verify(demo_gguf)


@pytest.fixture(scope="module")
def random_report(tiny_gguf: Path) -> Report:
    """Of a model with random weights."""
    return verify(tiny_gguf)


# -- the verdict -------------------------------------------------------------------------------------------------------


def test_a_good_file_is_unproved(demo_gguf: Path, demo_report: Report) -> None:
    assert demo_report.verdict == "unproved" and demo_report.source is None
    assert [(rung.name, rung.verdict) for rung in demo_report.rungs] == [(name, "pass") for name in ALONE]
    assert demo_report["language"].figures["outcome"] == "language"
    assert demo_report["integrity"].figures["tensors"] == 46
    assert any("scale" in question for question in demo_report.not_proved)


def test_the_last_line_and_the_exit_code(tiny_gguf: Path) -> None:
    result = run("verify", tiny_gguf, "--level", "weights")
    assert result.exit_code == ExitCode.GOOD, result.output
    assert result.stdout.splitlines()[-1] == "not proved: no source"
    assert "UNPROVED: " in result.stdout and "checks passed: structure, weights, integrity" in result.stdout


def test_json_follows_the_schema(tiny_gguf: Path, random_report: Report) -> None:
    printed = json.loads(run("verify", tiny_gguf, "--level", "weights", "--json").stdout)
    for document, verdict in ((printed, "unproved"), (json.loads(json_text(random_report.as_json())), "fail")):
        jsonschema.validate(document, schema())
        assert document["source"] is None and "source_sha256" not in document["provenance"], verdict
        assert document["verdict"] == verdict, verdict
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, "verdict": "pass"}, schema())


def test_reports_say_what_is_not_proved(demo_report: Report, tmp_path: Path) -> None:
    texts = {path.name: path.read_text("utf-8") for path in write_report(tmp_path, demo_report)}
    for name in ("report.md", "report.html"):
        assert "UNPROVED" in texts[name] and "there is no source" in texts[name], name
        assert "None" not in texts[name], name
    assert 'failures="0"' in texts["junit.xml"]


def test_nothing_unproved_is_attested(tiny_gguf: Path, tmp_path: Path) -> None:
    result = run("verify", tiny_gguf, "--level", "structure", "--attest", tmp_path / "a.intoto.json")
    assert exit_code_of(result) == ExitCode.USAGE and "--attest is for what was compared" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": "logits"}, "--level logits compares with a source"),
        ({"level": "absent"}, "--level absent is unknown"),
        ({"strict": True}, "--strict is for comparing with a source"),
        ({"oracle": "transformers"}, "--oracle is for comparing"),
        ({"prompt": ["a"]}, "--prompt is for comparing"),
        ({"revision": "main"}, "--revision is for comparing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_need_a_source(tiny_gguf: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        verify(tiny_gguf, **options)


# -- files that are wrong ----------------------------------------------------------------------------------------------


def another_code(tensors: dict[str, np.ndarray]) -> None:
    tensors[UP][9] ^= 0b01010101 if tensors[UP][9] in (0, 0b10101010) else 0
    tensors[UP][9:11] = tensors[UP][9:11][::-1]


def three(tensors: dict[str, np.ndarray]) -> None:
    tensors[UP][5] = 0xFF


def damaged(change: Callable[[dict[str, np.ndarray]], None]) -> Edit:
    """Tensors that were changed after their hashes were recorded."""
    return lambda good, bad: edited_gguf(good, bad, tensors=change, damaged=True)


WRONG: dict[str, tuple[Edit, str, Kind, str]] = {
    "an impossible size": (key(f"{ARCH}.attention.head_count_kv", 3), "structure", Kind.METADATA_INVALID, "heads"),
    "a tensor less": (drop("blk.1.ffn_down"), "structure", Kind.TENSOR_MISSING, "blk.1.ffn_down"),
    "a mixture of experts": (
        key(f"{ARCH}.expert_count", 8),
        "structure",
        Kind.KEY_UNEXPECTED,
        "the model that it describes has no such key",
    ),
    "a cap in another tool's file": (
        metadata(
            lambda pairs: (written_by_another_tool(pairs), pairs.update({f"{ARCH}.final_logit_softcapping": 30.0}))
        ),
        "structure",
        Kind.KEY_UNEXPECTED,
        "final_logit_softcapping is 30.0",
    ),
    "an illegal code": (arrays(three), "weights", Kind.TENSOR_INVALID, "code 3"),
    "an empty tensor": (codes(np.zeros_like, UP), "weights", Kind.CODES_ZERO, "all of its weights are zero"),
    "a norm without numbers": (norm("output_norm.weight", nan), "weights", Kind.NOT_FINITE, "not a finite number"),
    "other codes than recorded": (damaged(another_code), "integrity", Kind.INTEGRITY_DIFFERS, UP),
    "an end token that is none": (
        key("tritpack.tokenizer.stop_token_ids", np.array([3, 9999], np.int32)),
        "tokenizer",
        Kind.TOKENIZER_INVALID,
        "names 9999",
    ),
    "an unknown pre-tokenizer": (
        metadata(lambda pairs: (pairs.pop("tritpack.tokenizer.pipeline"), pairs.update({"tokenizer.ggml.pre": "x"}))),
        "tokenizer",
        Kind.TOKENIZER_INVALID,
        "'x' (tokenizer.ggml.pre) is unknown",
    ),
    "a chat that begins twice": (metadata(bos_twice), "tokenizer", Kind.BOS_TWICE, "twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    edit, rung, kind, words = WRONG[name]
    report = verify(edit(tiny_gguf, tmp_path / "bad.gguf"), level="tokenizer")
    assert report.verdict == "fail" and report.not_proved
    assert [failed.name for failed in report.rungs if failed.verdict == "fail"] == [rung]
    assert kind in report[rung].kinds and words in "\n".join(report[rung].sentences)


def test_a_wrong_structure_is_not_run(tiny_gguf: Path, tmp_path: Path) -> None:
    report = verify(drop("blk.1.ffn_down")(tiny_gguf, tmp_path / "bad.gguf"))
    assert report["kernels"].skipped == report["language"].skipped == "the file's structure is wrong"


def test_a_missing_embedding_is_a_finding(tiny_gguf: Path, tmp_path: Path) -> None:
    """Not an error of the estimate of what the checks will cost."""
    path = edited_gguf(tiny_gguf, tmp_path / "x.gguf", tensors=lambda tensors: tensors.pop("token_embd.weight"))
    result = run("verify", path)
    assert result.exit_code == 1 and "'token_embd.weight' is missing" in result.stdout, result.output
    assert run("verify", path, "--level", "kernels").exit_code == 1


def foreign(pairs: dict[str, Any]) -> None:
    """Describe the model as one of an architecture that only other programs run."""
    pairs |= {name.replace(ARCH, "phi3"): pairs.pop(name) for name in [*pairs] if name.startswith(f"{ARCH}.")}
    pairs["general.architecture"] = "phi3"


def test_an_architecture_of_other_programs_is_no_fault(tiny_gguf: Path, tmp_path: Path) -> None:
    other = metadata(foreign)(tiny_gguf, tmp_path / "other.gguf")
    result = run("verify", other)
    assert result.exit_code == ExitCode.UNSUPPORTED, result.output
    end = "UNSUPPORTED: {}: tritpack cannot run architecture 'phi3', so it cannot check this file; nothing wrong was "
    assert result.stdout.splitlines()[-1].startswith(end.format(other))
    report = verify(other)
    assert (report.verdict, report["weights"].verdict, report["language"].verdict) == ("unsupported", "pass", "skipped")
    jsonschema.validate(json.loads(json_text(report.as_json())), schema())
    assert list(write_report(tmp_path / "report", report))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        pytest.param(key("general.architecture", "phi3"), "architecture 'phi3' cannot be run", id="no keys of it"),
        pytest.param(without("general.architecture"), "general.architecture is missing", id="missing"),
    ],
)
def test_a_wrong_architecture_is_a_fault(tiny_gguf: Path, tmp_path: Path, edit: Edit, told: str) -> None:
    report = verify(edit(tiny_gguf, tmp_path / "bad.gguf"), level="structure")
    assert report.verdict == "fail" and told in report["structure"].sentences[0]


def test_damage_counts_in_a_file_of_another_architecture(tiny_gguf: Path, tmp_path: Path) -> None:
    other = metadata(foreign)(tiny_gguf, tmp_path / "other.gguf")
    report = verify(norm("blk.0.attn_norm.weight", nan)(other, tmp_path / "bad.gguf"), level="weights")
    assert report.verdict == "fail" and report.conclusion == "the file is wrong"


def test_a_file_without_hashes_says_so(tiny_gguf: Path, tmp_path: Path) -> None:
    bare = scales(lambda t: t.scales)(tiny_gguf, tmp_path / "bare.gguf")
    report = verify(bare, level="weights")
    assert report.verdict == "unproved" and "records no hashes" in str(report["integrity"].skipped)
    assert any("integrity was skipped" in question for question in report.not_proved)


def test_notes_for_other_readers(tiny_gguf: Path, tmp_path: Path) -> None:
    edit = without(f"{ARCH}.hidden_activation", "tokenizer.ggml.pre", "tritpack.version")
    report = verify(edit(tiny_gguf, tmp_path / "bare.gguf"), level="tokenizer")
    notes = "\n".join(note for rung in report.rungs for note in rung.notes)
    assert "hidden_activation is missing: taken to be relu2" in notes and "tokenizer.ggml.pre is missing" in notes
    assert report.verdict == "unproved"


# -- language ----------------------------------------------------------------------------------------------------------


def language_of(path: Path, words: str | None = None) -> Rung:
    """The check `language` of a file, by itself."""
    with AloneContext(GgufFile(path), Report(str(path), None, []), words) as context:
        return language.run(context)


def test_random_weights_are_no_language(random_report: Report) -> None:
    assert random_report["language"].kinds == [Kind.NO_LANGUAGE]
    assert "weights are random" in random_report["language"].sentences[0]
    assert random_report.conclusion.startswith("the model does not produce language; nothing else is wrong")


def table_permuted(tensors: dict[str, np.ndarray]) -> None:
    rows = tensors[TABLE].reshape(2048, -1)
    tensors[TABLE] = np.random.default_rng(3).permutation(rows).reshape(-1)


@pytest.mark.parametrize(
    "edit",
    [codes(lambda c: np.random.default_rng(2).permutation(c)), arrays(table_permuted)],
    ids=["rows permuted", "embedding permuted"],
)
def test_a_broken_model_is_no_language(demo_gguf: Path, tmp_path: Path, edit: Edit) -> None:
    rung = language_of(edit(demo_gguf, tmp_path / "bad.gguf"))
    assert rung.kinds == [Kind.NO_LANGUAGE] and rung.figures["outcome"] == "nonsense"


@pytest.mark.parametrize(
    "edit",
    [scales(lambda t: 1 / t.scales), key(f"{ARCH}.hidden_activation", "silu")],
    ids=["scales inverted", "SiLU for squared ReLU"],
)
def test_a_model_may_be_wrong_and_produce_language(demo_gguf: Path, tmp_path: Path, edit: Edit) -> None:
    """Sub-norms divide a wrong scale away. That is why a file without a source is never more than unproved."""
    rung = language_of(edit(demo_gguf, tmp_path / "bad.gguf"))
    assert rung.figures["outcome"] == "language" and rung.verdict == "pass"


def test_scales_of_no_trained_model_are_noted(demo_gguf: Path, tmp_path: Path) -> None:
    bad = scales(lambda t: 1 / t.scales)(demo_gguf, tmp_path / "bad.gguf")
    assert "larger than in any trained model" in verify(bad, level="weights")["weights"].notes[0]


def test_a_clear_text_is_judged_by_its_first_tokens(random_report: Report, demo_report: Report) -> None:
    for report in (random_report, demo_report):
        assert report["language"].figures["scored"] == language.ENGLISH[0] - 1, report.file


def test_an_unclear_text_is_read_further(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few tokens nobody can say that a guess is worse: so the others are scored too."""
    monkeypatch.setattr(language, "ENGLISH", (40, 200))
    assert language_of(demo_gguf, texts()["German"]).figures["scored"] > 100


def scored(own: float, gain: float | None) -> Score:
    return Score("a text", Estimate(own, 0.1, 500), 5.0, None if gain is None else Estimate(gain, 0.1, 500))


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ([scored(4.9, None)], "language"),
        ([scored(9.0, 0.0), scored(4.9, None)], "language"),
        ([scored(6.0, 1.0)], "unclear"),
        ([scored(9.0, 0.0), scored(6.0, 1.0)], "unclear"),
        ([scored(6.0, 0.2)], "nonsense"),  # it knows frequencies, and nothing of order
        ([scored(7.7, 5.0)], "nonsense"),  # equally likely tokens are a better guess
        ([scored(math.nan, math.nan)], "nonsense"),
    ],
)
def test_the_criterion(scores: list[Score], outcome: str) -> None:
    rung = Rung("language", "file")
    judge(rung, scores, 2000)
    assert rung.figures["outcome"] == outcome
    assert rung.verdict == {"language": "pass", "unclear": "skipped", "nonsense": "fail"}[outcome]


def test_a_language_of_which_the_model_knows_little_is_unclear(demo_gguf: Path) -> None:
    """German, which the demo model has never read, has some words that look English."""
    rung = language_of(demo_gguf, texts()["German"])
    assert rung.verdict == "skipped" and str(rung.skipped).startswith("unclear: perplexity")
    assert rung.figures["text"] == "the given text" and "--text takes text" in str(rung.skipped)


def test_a_given_text_is_the_only_one(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(texts()["Chinese"], "utf-8")
    rung = verify(tiny_gguf, text=tmp_path / "text.txt")["language"]
    assert rung.figures["texts_tried"] == 1 and rung.figures["outcome"] == "nonsense"
    assert "predicts the given text no better than chance" in rung.sentences[0]

"""Who may say what is right: recorded outputs, transformers, pinned tokens, a second file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import DEMO, exit_code_of, run
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.golden import parse_golden
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.oracle import judges
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.names import ExitCode
from tritpack.runtime.model import Model

CHECKPOINT = DEMO / "checkpoint"
TOKENS = [1, 5, 9, 300, 41]


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Path]:
    """Outputs of the numpy oracle as a file, spoilt if asked."""

    def write(folder: Path, tokens: list[int], spoil: Callable[[np.ndarray], Any] = lambda table: table) -> Path:
        [table] = Oracle(folder).outputs([tokens])
        np.save(tmp_path / "recorded.npy", spoil(table))
        return tmp_path / "recorded.npy"

    return write


# -- recorded outputs --------------------------------------------------------------------------------------------------


def test_recorded_logits_of_a_float_model(checkpoints: Checkpoints, recorded: Callable, tmp_path: Path) -> None:
    """Nothing is rounded there: every position decides."""
    folder = checkpoints("trilm").folder
    convert(folder, tmp_path / "m.gguf")
    options: dict[str, Any] = {"level": "logits", "tokens": TOKENS}
    rung = verify(tmp_path / "m.gguf", folder, oracle=str(recorded(folder, TOKENS)), **options)["logits"]
    assert rung.verdict == "pass" and rung.figures["positions_before_a_near_tie"] == len(TOKENS)
    assert rung.figures["worst_position"] <= 1e-5

    def one_value(table: np.ndarray) -> np.ndarray:
        table[3, 7] += 1e-3 * np.abs(table).max()
        return table

    rung = verify(tmp_path / "m.gguf", folder, oracle=str(recorded(folder, TOKENS, one_value)), **options)["logits"]
    assert rung.kinds == [Kind.OUTPUTS_DIFFER] and "before any int8 code is near" in rung.sentences[0]


def test_recorded_logits_after_a_near_tie_are_judged_by_tolerance(
    tiny_checkpoint: Path, tiny_gguf: Path, recorded: Callable
) -> None:
    tokens = np.random.default_rng(3).integers(0, 512, 450).tolist()
    options: dict[str, Any] = {"level": "logits", "tokens": tokens}
    rung = verify(tiny_gguf, tiny_checkpoint, oracle=str(recorded(tiny_checkpoint, tokens)), **options)["logits"]
    assert rung.verdict == "pass" and rung.figures["positions_before_a_near_tie"] < 450
    assert any("after a near-tie" in note for note in rung.notes)
    other = str(recorded(tiny_checkpoint, tokens, lambda table: np.roll(table, 1, axis=1)))
    assert verify(tiny_gguf, tiny_checkpoint, oracle=other, **options)["logits"].verdict == "fail"
    for spoil in (lambda table: table * 1.03, lambda table: table + 0.01 * np.roll(table, 1, axis=1)):
        near = str(recorded(tiny_checkpoint, tokens, spoil))
        rung = verify(tiny_gguf, tiny_checkpoint, oracle=near, **options)["logits"]
        assert rung.kinds == [Kind.OUTPUTS_DIFFER], spoil
    for spoil in (
        lambda table: np.where(table > 0, np.nan, table),
        lambda table: 0 * table,
        lambda table: table * 1e39,
    ):
        with pytest.raises(Unreadable, match="not finite, or nothing but zeros"):
            verify(tiny_gguf, tiny_checkpoint, oracle=str(recorded(tiny_checkpoint, tokens, spoil)), **options)


def test_recorded_outputs_that_are_none(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    def attempt(path: Path, **options: Any) -> None:
        verify(tiny_gguf, tiny_checkpoint, level="logits", oracle=str(path), **options)

    np.save(tmp_path / "small.npy", np.zeros((5, 7), np.float32))
    np.save(tmp_path / "whole.npy", np.zeros((5, 512), np.int64))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("small.npy", "whole.npy", "text.npy", "none.npy"):
        with pytest.raises(Unreadable, match=name):
            attempt(tmp_path / name, tokens=TOKENS)
    with pytest.raises(UsageError, match="belong together"):
        attempt(tmp_path / "small.npy")
    with pytest.raises(UsageError, match="outside the vocabulary"):
        attempt(tmp_path / "small.npy", tokens=[1, 512])
    with pytest.raises(UsageError, match="unknown"):
        verify(tiny_gguf, tiny_checkpoint, oracle="tarot")


def _npy(header: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(16)


@pytest.mark.parametrize(
    "data",
    [
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 2)}\n"),
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 2)}\n"),
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2\n"),
        _npy(b"{'descr': '<f4'"),
        _npy(b"(" * 9000),
        _npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}\n"),
        b"PK\3\4",
        b"",
    ],
    ids=["beyond_memory", "negative", "open_bracket", "cut", "nested", "objects", "archive", "empty"],
)
def test_a_hostile_record_gets_one_sentence(tiny_gguf: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.npy").write_bytes(data)
    with Model(tiny_gguf) as model, pytest.raises(Unreadable, match=r"r\.npy: it "):
        judges.read_recorded(tmp_path / "r.npy", [1, 2], model)


def test_our_own_logits_command_records(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    ids = ",".join(map(str, TOKENS))
    assert run("logits", tiny_gguf, "--tokens", ids, "-o", tmp_path / "l.npy").exit_code == 0
    options = ("--source", tiny_checkpoint, "--level", "logits", "--oracle", tmp_path / "l.npy", "--tokens", ids)
    result = run("verify", tiny_gguf, *options, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["rungs"][4]["figures"]["worst_position"] == 0.0


# -- pinned tokens, a second file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[{"prompt": "a", "greedy": [Infinity]}]',
        '[{"tokens": [1e400], "greedy": [1]}]',
        '[{"prompt": "a", "greedy": [1.5]}]',
        '[{"prompt": "a", "greedy": "1"}]',
        '[{"prompt": "\\ud800", "greedy": [1]}]',
        '[{"prompt": "", "greedy": [1]}]',
        '{"prompt": "a"}',
    ],
)
def test_golden_tokens_that_are_none_get_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(Unreadable, match=r"g\.json: it is not a list of golden tokens: "):
        parse_golden(tmp_path / "g.json")


def test_golden_tokens(demo_gguf: Path, tmp_path: Path) -> None:
    with Model(demo_gguf) as model:
        prompt = model.tokenizer.encode("Once upon a time")
        greedy = [int(model.eval(prompt).argmax())]
        for _ in range(5):
            greedy.append(int(model.eval(greedy[-1:]).argmax()))
    golden = tmp_path / "golden.json"
    golden.write_text(
        json.dumps([{"prompt": "Once upon a time", "greedy": greedy}, {"tokens": prompt, "greedy": greedy}])
    )
    report = verify(demo_gguf, CHECKPOINT, level="generation", golden=golden)
    assert report.verdict == "pass" and report["generation"].figures["prompts"] == 4
    golden.write_text(json.dumps([{"tokens": prompt, "greedy": [*greedy[:3], greedy[3] + 1, *greedy[4:]]}]))
    report = verify(demo_gguf, CHECKPOINT, level="generation", golden=golden)
    [finding] = report["generation"].findings
    assert finding.kind is Kind.PINNED_TOKEN_DIFFERS
    assert finding.figures == {"prompt": "golden 0", "index": 3, "token": greedy[3], "pinned": greedy[3] + 1}
    assert "pinned" in report.conclusion and report.verdict == "fail"
    for text in (
        "{",
        "[1]",
        '[{"prompt": "x"}]',
        '[{"tokens": [], "greedy": [1]}]',
    ):
        golden.write_text(text)
        result = run("verify", demo_gguf, "--source", CHECKPOINT, "--level", "generation", "--golden", golden)
        assert exit_code_of(result) == ExitCode.UNREADABLE, text
    golden.write_text('[{"tokens": [99999], "greedy": [1]}]')
    with pytest.raises(UsageError, match="outside the vocabulary"):
        verify(demo_gguf, CHECKPOINT, level="generation", golden=golden)


def test_given_prompts(demo_gguf: Path) -> None:
    options = ("--source", CHECKPOINT, "--prompt", "The king", "--prompt", "They lived in", "--json")
    document = json.loads(run("verify", demo_gguf, *options, "--level", "generation").stdout)
    figures = document["rungs"][-1]["figures"]
    assert document["verdict"] == "pass" and figures["prompts"] == 4
    assert [each["prompt"] for each in figures["greedy"]] == ["text", "prompt 0", "prompt 1", "chat"]
    assert exit_code_of(run("verify", demo_gguf, *options, "--level", "text")) == ExitCode.USAGE
    with pytest.raises(UsageError, match="do not fit"):
        verify(demo_gguf, CHECKPOINT, level="generation", prompt=["word " * 3000])


def test_against_a_second_file(demo_gguf: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    convert(CHECKPOINT, tmp_path / "q8.gguf", embedding_type="q8_0")
    report = verify(demo_gguf, CHECKPOINT, against=tmp_path / "q8.gguf")
    figures = report["perplexity"].figures["against"]
    assert report.verdict == "pass" and 0 < figures["kl"]["value"] < 0.01 and figures["same_top_p"]["value"] > 0.95
    with pytest.raises(UsageError, match="vocabulary of 512"):
        verify(demo_gguf, CHECKPOINT, against=tiny_gguf)
    with pytest.raises(UsageError, match="stops before it"):
        verify(demo_gguf, CHECKPOINT, against=tmp_path / "q8.gguf", level="logits")
    with pytest.raises(Unreadable):
        verify(demo_gguf, CHECKPOINT, against=tmp_path / "none.gguf")


# -- transformers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def transformers() -> Any:
    reason = "transformers and torch (extra `oracles`) are not installed"
    pytest.importorskip("torch", reason=reason)
    pytest.importorskip("accelerate", reason=reason)
    return pytest.importorskip("transformers", reason=reason)


def test_transformers_judges_the_demo(transformers: Any, demo_gguf: Path) -> None:
    report = verify(demo_gguf, CHECKPOINT, oracle="transformers", text=DEMO / "heldout.txt")
    assert report.verdict == "pass", [rung.sentences for rung in report.rungs]
    for name in ("logits", "text", "generation", "perplexity"):
        assert transformers.__version__ in report[name].compares, name
    assert report["logits"].figures["worst_position"] <= 1e-5
    assert transformers.__version__ in report.provenance["oracle"]


@pytest.mark.parametrize("name", ["ms_2b4t_packed", "falcon3", "trilm", "bonsai_untied_yarn", "gemma3_packed"])
def test_transformers_judges_families(transformers: Any, name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints(name).folder
    convert(folder, tmp_path / "m.gguf", embedding_type="q8_0" if name == "trilm" else "auto")
    rung = verify(tmp_path / "m.gguf", folder, oracle="transformers", level="logits")["logits"]
    assert rung.verdict == "pass" and rung.figures["method"] == "safe prompts", rung.findings


@pytest.mark.parametrize("name", ["onebitllm", "embedding_qwen3", "falcon_e_prequantized"])
def test_transformers_is_not_a_judge_of_what_it_loads_wrongly(
    transformers: Any, name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    made = checkpoints(name)
    quantize = made.family.quantize
    convert(made.folder, tmp_path / "m.gguf", quantize=quantize)
    with pytest.raises(Unsupported, match="judge another model"):
        verify(tmp_path / "m.gguf", made.folder, oracle="transformers", level="logits", quantize=quantize)


def test_transformers_judges_folders_only(demo_gguf: Path) -> None:
    with pytest.raises(UsageError, match="the source is a GGUF"):
        verify(demo_gguf, demo_gguf, oracle="transformers", level="logits")


def test_a_judge_that_differs_from_both_is_heard(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runtime and reference agree, and another oracle says something else: that is no rounding."""

    class Other(judges.Transformers):
        def __init__(self, folder: Path, oracle: Oracle) -> None:
            self.name, self._oracle = "another", oracle

        def outputs(self, sequences: Any) -> list[np.ndarray]:
            return [table + np.float32(0.5) * np.roll(table, 1, -1) for table in self._oracle.outputs(sequences)]

    monkeypatch.setattr("tritpack.converter.verify.context.Transformers", Other)
    report = verify(demo_gguf, CHECKPOINT, oracle="transformers")
    assert report["logits"].verdict == report["text"].verdict == "fail"
    assert "another is" in report["text"].sentences[0]

"""`verify FILE --engine PATH` with a small engine over our own runtime, which is right or wrong on purpose."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import REPOSITORY
from tests.converter.verify.engine.fake_engine import install
from tritpack.converter.cli.main import cli
from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.engine import command_line, mistakes
from tritpack.converter.verify.engine.command_line import Choice
from tritpack.converter.verify.engine.program import Deadline, EngineFailed
from tritpack.converter.verify.engine.report import FILE_WRONG, OTHER_MODEL, RIGHT, EngineReport
from tritpack.converter.verify.engine.server import _Server
from tritpack.converter.verify.engine.verify_engine import verify_engine
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.model import Model

BY_TOKEN, IN_BATCH = "token by token", "prompt in one batch"
SILU = "it computes SiLU instead of squared ReLU"


def ask(file: Path, folder: Path, *habits: str, name: str = "llama-server", timeout: float = 60) -> EngineReport:
    program = install(folder, name, REPOSITORY)
    return verify_engine(file, program, engine_arg=habits, engine_timeout=timeout, threads=1)


@pytest.mark.parametrize("arguments", [("--form", "new"), ("--form", "old", "--habit", "float")])
def test_a_right_server_is_right(demo_gguf: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """With the probabilities of servers before and after December 2024; float activations are a habit."""
    report = ask(demo_gguf, tmp_path, *arguments)
    assert report.verdict == RIGHT and report.conclusion == "file right, engine right"
    assert report.runs.keys() == {BY_TOKEN, IN_BATCH} and report.runs[BY_TOKEN].equal == report.runs[BY_TOKEN].positions
    exact = "float" not in arguments
    assert (report.runs[BY_TOKEN].distance < 1e-6) is exact and report.runs[BY_TOKEN].distance <= report.habit + 1e-6
    assert report.program is not None and report.program.version == "version: 1 (fake)"


def test_another_activation_function_is_named(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "READ_AS", ())  # test_mistakes.py makes those, which take longer
    report = ask(demo_gguf, tmp_path, "--habit", "silu")
    assert report.verdict == OTHER_MODEL and report.reasons[0] == SILU
    assert report.mistakes[SILU] < 1e-6 < report.runs[BY_TOKEN].distance
    written = json.loads(json.dumps(report.as_json()))
    assert written["schema"] == "tritpack.verify-engine/1" and written["verdict"] == "other_model"


@pytest.mark.parametrize(
    ("habit", "told"),
    [
        ("crash", ["was ended by SIGABRT", "GGML_ASSERT(something) failed"]),
        ("hang", ["did not answer within 1 seconds"]),
    ],
)
def test_a_server_that_fails_on_the_way(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, habit: str, told: list[str]
) -> None:
    if habit == "hang":  # the time is short for the answers, not for the start

        def ready(server: _Server, wait: Callable[[_Server], None] = _Server.wait_until_ready) -> None:
            wait(server)
            server._deadline = Deadline(1)

        monkeypatch.setattr(_Server, "wait_until_ready", ready)
    report = ask(demo_gguf, tmp_path, "--habit", habit)
    assert report.verdict == OTHER_MODEL and all(words in report.conclusion for words in told), report.conclusion


@pytest.mark.parametrize(
    ("habit", "told"),
    [("refuse", "ended with the status 1"), ("flood", "more than 8 MiB")],
)
def test_a_server_that_never_answers(demo_gguf: Path, tmp_path: Path, habit: str, told: str) -> None:
    with pytest.raises(EngineFailed, match=told) as caught:
        ask(demo_gguf, tmp_path, "--habit", habit)
    if habit == "refuse":
        assert "invalid ggml type 36" in (caught.value.hint or "")


def test_llama_perplexity_whose_numbers_fail_in_batches(demo_gguf: Path, tmp_path: Path) -> None:
    report = ask(demo_gguf, tmp_path, "--habit", "nan-batch", name="llama-perplexity")
    assert report.verdict == OTHER_MODEL and "right token by token, and gives NaN" in report.reasons[0]
    assert report.runs[BY_TOKEN].positions == 15 and report.runs[BY_TOKEN].not_finite == 0
    assert report.runs[IN_BATCH].not_finite == 15


def test_a_program_that_gives_text_alone(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "MOST", 3)
    monkeypatch.setattr(mistakes, "READ_AS", ())
    report = ask(demo_gguf, tmp_path, "--habit", "silu", name="llama-completion")
    assert report.verdict == OTHER_MODEL and report.reasons[0] == SILU


def test_questions_tell_each_mistake_from_the_right_model(demo_gguf: Path) -> None:
    with Model(demo_gguf, threads=1) as model:
        tokens = model.tokenizer.encode(read_text(None)[:800])
        ours = Choice.of(model.logits(tokens))
        shifted = Choice(np.roll(ours.token, 1), ours.lead)
        asked = command_line.questions(model.tokenizer, tokens, ours, {"shifted": shifted, "same": ours}, 0.05)
    assert len(asked) == command_line.PER_MISTAKE
    for question in asked:
        assert question.others["shifted"] != question.expected == question.others["same"], question.prompt


def test_a_damaged_file_is_wrong_whatever_the_engine_says(demo_gguf: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    shutil.copy(demo_gguf, damaged)
    tensor = GgufFile(demo_gguf).tensors["blk.0.ffn_up.weight"]
    with open(damaged, "r+b") as file:
        file.seek(tensor.file_offset)
        file.write(b"\x00")
    report = ask(damaged, tmp_path)
    assert report.verdict == FILE_WRONG and "blk.0.ffn_up.weight" in report.findings[0]


def test_a_path_that_is_no_engine_is_refused(demo_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a program"):
        verify_engine(demo_gguf, tmp_path / "llama-server")
    other = tmp_path / "true"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    with pytest.raises(UsageError, match="is not llama-server, llama-cli or llama-perplexity"):
        verify_engine(demo_gguf, other)


def test_the_command(demo_gguf: Path, tmp_path: Path) -> None:
    program = install(tmp_path, "llama-server", REPOSITORY)
    arguments = ["verify", str(demo_gguf), "--engine", str(program), "--engine-arg=--habit", "--engine-arg=nan-batch"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 4 and "gives NaN" in result.stdout.splitlines()[-1], result.output
    without = CliRunner().invoke(cli, ["verify", str(demo_gguf), "--engine-arg=x"])
    assert isinstance(without.exception, UsageError)

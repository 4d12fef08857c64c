"""The program as a user types it: output, JSON, exit codes, and one sentence with a hint for each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY, exit_code_of, program, run
from tests.converter.verify.breakages import flip_code
from tests.make.checkpoints import edited_gguf
from tritpack.formats.errors import MissingRequirement
from tritpack.runtime.library import available_isas


def test_convert_inspect_verify(tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    plan = json.loads(run("convert", tiny_checkpoint, "-o", target, "--dry-run", "--json").stdout)
    assert not target.exists() and plan["dry_run"]
    done = json.loads(run("convert", tiny_checkpoint, "-o", target, "--outtype", "i2_s", "--json", "-q").stdout)
    assert done["output_bytes"] == plan["output_bytes"] == target.stat().st_size
    shown = json.loads(run("inspect", target, "--stats", "--json").stdout)
    assert shown["problems"] == [] and len(shown["tensors"]) == len(plan["tensors"])
    text = run("inspect", target, "--tensors").stdout
    assert "blk.0.attn_q.weight" in text and "i2_s" in text
    result = run("verify", target, "--source", tiny_checkpoint, "--json")
    report = json.loads(result.stdout)
    assert exit_code_of(result) == 0 and report["verdict"] == "pass" and report["schema"] == "tritpack.verify/1"
    assert all({"name", "verdict", "figures", "findings"} <= set(rung) for rung in report["rungs"])


def test_a_checkpoint_folder_serves_as_file(tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    folder, file = (run("tokenize", path, "-p", "Hi", "--json").stdout for path in (tiny_checkpoint, tiny_gguf))
    assert json.loads(folder)["ids"] == json.loads(file)["ids"]


def test_verify_fails_with_one(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=flip_code)
    result = program("verify", bad, "--source", tiny_checkpoint, "--level", "weights")
    assert result.returncode == 1
    assert "blk.1.ffn_up.weight" in result.stdout and "FAIL" in result.stdout and result.stderr == ""


def test_generate_is_the_same_for_every_isa_and_thread_count(tiny_gguf: Path) -> None:
    outputs = {}
    for isa in available_isas():
        for threads in ("1", "2"):
            result = run("generate", tiny_gguf, "--tokens", "1,2,3", "-n", "12", "--isa", isa, "-t", threads, "--json")
            answer = json.loads(result.stdout)
            outputs[isa, threads] = (answer["ids"], answer["text"])
            assert f"matvec_i2_s_{isa}" in answer["kernels"], (isa, threads)
    assert len(set(map(str, outputs.values()))) == 1


def test_sampling_is_reproducible(tiny_gguf: Path) -> None:
    def ids(*options: str) -> list[int]:
        result = run("generate", tiny_gguf, "-p", "a", "-n", "8", "--temp", "20", "--top-k", "40", "--json", *options)
        return json.loads(result.stdout)["ids"]

    assert ids("--seed", "5") == ids("--seed", "5") != ids("--seed", "6")


def test_logits(tiny_gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "l.npy"
    result = json.loads(run("logits", tiny_gguf, "--tokens", "1,2,3", "-o", target, "--json").stdout)
    values = np.load(target)
    assert values.dtype == np.float32 and list(values.shape) == result["shape"] == [3, 512]
    assert result["ids"] == [1, 2, 3] and result["kernels"]
    # One token at a time gives the same bits as the batch.
    run("logits", tiny_gguf, "--tokens", "1", "-o", tmp_path / "one.npy")
    assert np.array_equal(np.load(tmp_path / "one.npy")[0], values[0])


def test_tokenize(tiny_gguf: Path, tmp_path: Path) -> None:
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps([{"role": "user", "content": "Hi "}]))
    result = json.loads(run("tokenize", tiny_gguf, "--chat", chat, "--json").stdout)
    assert result["text"] == "<|begin_of_text|>User: Hi<|eot_id|>Assistant: "
    assert result["ids"][0] == 480
    plain = json.loads(run("tokenize", tiny_gguf, "-p", "Hi", "--json").stdout)["ids"]
    bare = json.loads(run("tokenize", tiny_gguf, "-p", "Hi", "--no-special", "--json").stdout)["ids"]
    assert plain == [480, *bare]


def test_chat_answers_line_by_line(demo_gguf: Path) -> None:
    result = program("chat", demo_gguf, "-n", "8", stdin="Tell me a story.\n/clear\nAnd another.\n\n")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) >= 2


def test_doctor_runs_every_kernel() -> None:
    result = json.loads(run("doctor", "--json").stdout)
    assert result["verdict"] == "pass"
    assert {kernel["state"] for kernel in result["kernels"]} <= {"ok", "not on this CPU"}
    assert any(kernel["symbol"] == "matvec_i2_s_scalar" for kernel in result["kernels"])
    active = [kernel["symbol"] for kernel in result["kernels"] if kernel["active"]]
    assert f"matvec_i2_s_{result['best_isa']}" in active
    assert len({symbol.rsplit("_", 1)[0] for symbol in active}) == len(active)


def test_doctor_is_short_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"name": "a model, end to end", "verdict": "pass", "detail": "it ran"}
    monkeypatch.setattr("tritpack.converter.tools.doctor._model_check", lambda level: model)
    short, long = run("doctor"), run("doctor", "-v")
    assert short.exit_code == long.exit_code == 0
    assert len(short.stdout.splitlines()) < 10 and "passed    a model, end to end" in short.stdout
    assert "matvec_i2_s_scalar" not in short.stdout and "matvec_i2_s_scalar" in long.stdout


def test_doctor_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise MissingRequirement("the C library is not there", hint="run `make lib`")

    monkeypatch.setattr("tritpack.converter.tools.doctor.library", library)
    shown = run("doctor", "--json")
    result = json.loads(shown.stdout)
    assert shown.exit_code == 7 and result["verdict"] == "fail" and result["missing"] == "the C library is not there"
    assert [check["verdict"] for check in result["checks"]] == ["skipped", "pass"]
    assert "missing   the C library is not there\nhint: run `make lib`" in run("doctor", "-v").stdout


def test_doctor_shows_what_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritpack.converter.tools.make_dummy", None)
    shown = run("doctor")
    assert shown.exit_code == 1 and "failed    a model, end to end: import of tritpack.converter" in shown.stdout
    assert "packages  numpy" in shown.stdout


MISTAKES = {
    "no such command": (["frobnicate"], 2, "no command 'frobnicate'"),
    "no output": (["convert", "x"], 2, "--outfile"),
    "bad option value": (["convert", "x", "-o", "y", "--outtype", "f16"], 2, "outtype"),
    "no prompt": (["generate", "{gguf}"], 2, "-p"),
    "bad tokens": (["generate", "{gguf}", "--tokens", "1,x"], 2, "--tokens"),
    "token outside": (["generate", "{gguf}", "--tokens", "99999"], 2, "99999"),
    "bad temperature": (["generate", "{gguf}", "-p", "a", "--temp", "-1"], 2, "temperature"),
    "output exists": (["convert", "{checkpoint}", "-o", "{gguf}"], 2, "exists already"),
    "missing file": (["inspect", "{tmp}/none.gguf"], 3, "none.gguf"),
    "not a gguf": (["inspect", "{text}"], 3, "not with"),
    "missing checkpoint": (["convert", "{tmp}/none", "-o", "{tmp}/x.gguf"], 3, "does not exist"),
    "bad chat": (["tokenize", "{gguf}", "--chat", "{text}"], 2, "JSON"),
    "missing chat": (["tokenize", "{gguf}", "--chat", "{tmp}/none.json"], 3, "none.json"),
    "source without weights": (["verify", "{gguf}", "--source", "{plain}"], 3, "safetensors"),
    "empty tokens": (["generate", "{gguf}", "--tokens", ""], 2, "--tokens"),
    "huge token": (["logits", "{gguf}", "--tokens", "9" * 30, "-o", "{tmp}/l.npy"], 2, "--tokens"),
    "dry run, no folder": (["convert", "{checkpoint}", "-o", "{tmp}/no/x.gguf", "--dry-run"], 5, "does not exist"),
    "no folder": (["convert", "{checkpoint}", "-o", "{tmp}/no/x.gguf"], 5, "does not exist"),
    "isa of another cpu": (["generate", "{gguf}", "-p", "a", "--isa", "{foreign}"], 7, "{foreign}"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_sentence(name: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    arguments, code, words = MISTAKES[name]
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text("{}")
    text = tmp_path / "text"
    text.write_text("hello, this is no model at all")
    places = {
        "gguf": tiny_gguf, "checkpoint": tiny_checkpoint, "tmp": tmp_path, "text": text, "plain": plain,
        "foreign": "neon" if "avx2" in available_isas() or "neon" not in available_isas() else "avx2",
    }  # fmt: skip
    result = program(*(argument.format(**places) for argument in arguments))
    assert result.returncode == code, result.stderr
    assert words.format(**places) in result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""
    assert result.stderr.startswith("error: ")


def test_isa_from_the_environment(tiny_gguf: Path) -> None:
    result = program("generate", tiny_gguf, "--tokens", "1", "-n", "2", "--json", env={"TRITPACK_ISA": "scalar"})
    assert "matvec_i2_s_scalar" in json.loads(result.stdout)["kernels"]


def test_prompt_longer_than_the_context(tiny_gguf: Path) -> None:
    result = program("generate", tiny_gguf, "-p", "a " * 50, "-c", "8")
    assert result.returncode == 2 and "context of 8" in result.stderr


def test_json_is_strict_even_about_nan(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("a")
    result = program("verify", tiny_gguf, "--source", tiny_checkpoint, "--text", short, "--json", "--level", "full")
    rungs = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["rungs"]
    assert rungs[-1]["figures"]["perplexity_error"] is None and rungs[-1]["verdict"] == "skipped"


@pytest.mark.parametrize(("feed", "expected"), [(b"", 0), (b"h\xe9llo\n", 2)], ids=["no_input", "not_utf8"])
def test_chat_with_input_that_is_not_text(demo_gguf: Path, feed: bytes, expected: int) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "tritpack", "chat", str(demo_gguf), "-n", "2"]
    result = subprocess.run(command, cwd=REPOSITORY, input=feed, capture_output=True, env=env)
    assert result.returncode == expected and b"Traceback" not in result.stderr

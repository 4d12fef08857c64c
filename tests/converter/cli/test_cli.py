"""The program as a user types it: output, JSON, exit codes, and one sentence with a hint for each mistake."""

from __future__ import annotations

import importlib
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
from tritpack.converter.inspect.bandwidth import BUSY, MEASURED, Bandwidth
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


@pytest.mark.parametrize("command", [("tokenize",), ("generate", "-n", "1")])
def test_a_second_bos_is_warned_of(tiny_gguf: Path, command: tuple[str, ...]) -> None:
    name, *options = command
    twice = run(name, tiny_gguf, "-p", "<|begin_of_text|>Hi", "--json", *options)
    ids = json.loads(twice.stdout)["prompt_ids" if name == "generate" else "ids"]
    assert ids[:2] == [480, 480]
    assert "warning: the prompt begins with <|begin_of_text|>, and the tokenizer adds it once more" in twice.stderr
    for right in (["-p", "Hi"], ["-p", "<|begin_of_text|>Hi", "--no-special"]):
        assert "warning" not in run(name, tiny_gguf, *right, "--json", *options).stderr, right


def test_chat_answers_line_by_line(demo_gguf: Path) -> None:
    result = program("chat", demo_gguf, "-n", "8", stdin="Tell me a story.\n/clear\nAnd another.\n\n")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) >= 2


@pytest.mark.parametrize("name", ["chat", "generate", "logits", "perplexity", "embed", "eval"])
def test_only_conversations_take_the_smaller_cache(name: str) -> None:
    command = importlib.import_module(f"tritpack.converter.cli.{name}").command
    [option] = [option for option in command.params if option.name == "kv_type"]
    assert option.default == ("i16" if name == "chat" else "f32")
    assert f"The default is {option.default}" in option.help and "reference" in option.help


def test_doctor_runs_every_kernel() -> None:
    result = json.loads(run("doctor", "--json").stdout)
    assert result["verdict"] == "pass" and set(result["huge_pages"]) == {"file", "memory"}
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


def test_doctor_shows_the_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = "tritpack.converter.tools.doctor"
    monkeypatch.setattr(f"{doctor}._model_check", lambda level: {"name": "m", "verdict": "pass", "detail": ""})
    monkeypatch.setattr(f"{doctor}.measure_bandwidth", lambda: Bandwidth(4.75e10, MEASURED))
    assert "memory    47.5 GB/s, measured on this machine\n" in run("doctor").stdout
    monkeypatch.setattr(f"{doctor}.measure_bandwidth", lambda: Bandwidth(None, BUSY))
    monkeypatch.setattr(f"{doctor}.shares_here", lambda folder: {"file": None, "memory": 0.5})
    shown = run("doctor").stdout
    assert f"memory    {BUSY}\n" in shown
    pages = (
        "pages     pages of 2 MB hold an unknown part of a file written here, 50% of weights copied with --no-mmap\n"
    )
    assert pages in shown
    monkeypatch.setattr(f"{doctor}.shares_here", lambda folder: {"file": None, "memory": None})
    assert "2 MB" not in run("doctor").stdout


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
    "no such command": (["frobnicate"], 2, "unknown command 'frobnicate'"),
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


def chat_with(file: Path, feed: bytes, *options: str) -> tuple[int, int, str]:
    """Exit code, number of answers, and stderr of `chat`."""
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "tritpack", "chat", str(file), "-n", "1", *options]
    result = subprocess.run(command, cwd=REPOSITORY, input=feed, capture_output=True, env=env)
    return result.returncode, len(result.stdout.splitlines()), result.stderr.decode()


BAD_LINES = {
    "not UTF-8": (b"h\xe9llo", "not sent: the line is not UTF-8 text"),
    "too long": (b"word " * 3000, "not sent: the question has"),
    "a surrogate": ("\ud83d".encode("utf-8", "surrogatepass"), "not sent: the line is not UTF-8 text"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_does_not_end_a_chat(name: str, demo_gguf: Path) -> None:
    line, words = BAD_LINES[name]
    code, answers, said = chat_with(demo_gguf, b"Tell me a story.\n" + line + b"\nAnd then?\n" + line + b"\n")
    assert (code, answers) == (0, 2) and said.count(words) == 2 and "Traceback" not in said


def test_chat_without_input_or_with_a_long_system_message(demo_gguf: Path) -> None:
    assert chat_with(demo_gguf, b"") == (0, 0, "")
    code, answers, said = chat_with(demo_gguf, b"Hello\n", "--system", "word " * 3000)
    assert (code, answers) == (2, 0) and "system message" in said


def test_a_prompt_from_a_file_or_from_standard_input(tiny_gguf: Path, tmp_path: Path) -> None:
    words = "The king went to the sea. " * 6000  # more than one argument may have
    text = tmp_path / "text"
    text.write_text(words + "\n")
    by_file = json.loads(run("tokenize", tiny_gguf, "-f", text, "--json").stdout)["ids"]
    by_stdin = json.loads(program("tokenize", tiny_gguf, "-f", "-", "--json", stdin=words).stdout)["ids"]
    start = json.loads(run("tokenize", tiny_gguf, "-p", words[:2600], "--json").stdout)["ids"]
    assert len(words) > 150_000 and by_file == by_stdin and by_file[: len(start) - 4] == start[:-4]
    text.write_text("a b\n\n")
    ids = json.loads(run("generate", tiny_gguf, "-f", text, "-n", "1", "--json").stdout)["prompt_ids"]
    assert ids == json.loads(run("generate", tiny_gguf, "-p", "a b\n", "-n", "1", "--json").stdout)["prompt_ids"]
    for command, option, *more in (("logits", "-p"), ("embed", "-f", "--pooling", "last")):
        target = tmp_path / f"{command}.npy"
        shown = program(command, tiny_gguf, option, "-", "-o", target, "--json", *more, stdin="a b\n\n")
        assert set(ids) <= set(json.loads(shown.stdout)["ids"]), command
    chat = json.dumps([{"role": "user", "content": "Hi"}])
    assert program("tokenize", tiny_gguf, "--chat", "-", stdin=chat).stdout.startswith("<|begin_of_text|>User: Hi")


@pytest.mark.parametrize(
    ("options", "stdin", "code"),
    [(["-p", "a", "-f", "-"], "a", 2), ([], "a", 2), (["-f", "none"], "", 3), (["-f", "{tmp}"], "", 3)],
    ids=["both", "neither", "missing", "folder"],
)
def test_prompts_that_cannot_be_read(
    options: list[str], stdin: str, code: int, tiny_gguf: Path, tmp_path: Path
) -> None:
    result = program("generate", tiny_gguf, *(option.format(tmp=tmp_path) for option in options), stdin=stdin)
    assert result.returncode == code and result.stderr.startswith("error: ") and result.stdout == ""
    assert code == 3 or "-f" in result.stderr


def test_a_prompt_that_is_not_utf8(tiny_gguf: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"ca\xe9")
    result = program("tokenize", tiny_gguf, "-f", text)
    assert result.returncode == 3 and "UTF-8" in result.stderr

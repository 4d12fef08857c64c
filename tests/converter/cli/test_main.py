"""How the process ends when nobody reads, a stream cannot be written, a key is pressed, or tritpack itself is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DEMO, REPOSITORY, program
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.names import ExitCode

TRITPACK = [sys.executable, "-m", "tritpack"]


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $T is the command."""
    env = {**os.environ, "T": " ".join(TRITPACK), **variables}
    return subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, env=env)


@pytest.mark.parametrize(
    "command",
    ["inspect $FILE --stats", "verify $FILE --source $SOURCE --level weights -q", "families --json", "--help"],
)
def test_a_closed_pipe_ends_as_shells_expect(command: str, demo_gguf: Path) -> None:
    line = f"$T {command} | true; echo ${{PIPESTATUS[0]}}"
    result = shell(line, FILE=str(demo_gguf), SOURCE=str(DEMO / "checkpoint"))
    assert result.stdout == "141\n" and result.stderr == ""


def test_output_that_cannot_be_written(demo_gguf: Path) -> None:
    full = shell("$T inspect $FILE > /dev/full; echo $?; $T inspect $FILE >&-; echo $?", FILE=str(demo_gguf))
    assert full.stdout.split() == ["5", "5"]
    assert full.stderr.splitlines() == [
        "error: standard output: No space left on device", "error: standard output: Bad file descriptor",
    ]  # fmt: skip
    assert shell("$T inspect /no/such/file 2> /dev/full").returncode == 3


@pytest.mark.parametrize("encoding", ["cp1252", "koi8-r", "cp932", "ascii"])
def test_characters_that_the_terminal_does_not_have(encoding: str, demo_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "日本 ü ▁ 😀.gguf"
    file.symlink_to(demo_gguf)
    env = {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    command = [*TRITPACK, "inspect", str(file)]
    shown, document = (
        subprocess.run([*command, *more], cwd=REPOSITORY, capture_output=True, env={**os.environ, **env})
        for more in ([], ["--json"])
    )
    assert shown.returncode == document.returncode == 0, shown.stderr + document.stderr
    shown_as = "utf-8" if encoding == "ascii" else encoding  # click takes ASCII for a terminal that is set up wrongly
    assert b"2.54 MB" in shown.stdout and shown.stdout.decode(shown_as)
    assert json.loads(document.stdout.decode(encoding))["file"] == str(file)


def raising(error: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `tritpack tokenize` with a tokenizer that raises."""
    code = f"""
import sys
from tritpack.converter.cli import main
from tritpack.runtime.model import Model
from tritpack.runtime.tokenizer import Tokenizer
def broken(*args, **options):
    {error}
Tokenizer.from_metadata = broken
sys.argv = ["tritpack", "tokenize", "{DEMO / "demo.gguf"}", "-p", "a"]
import tritpack.formats.gguf_reader
tritpack.formats.gguf_reader.GgufFile = broken
main.main()
"""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, **variables}
    )


@pytest.mark.parametrize(
    "error",
    ["raise IndexError('list index out of range')", "raise type('PanicException', (BaseException,), {})('Onig')"],
)
def test_an_unexpected_exception_is_called_a_bug(error: str, tmp_path: Path) -> None:
    result = raising(error, TMPDIR=str(tmp_path))
    assert result.returncode == ExitCode.INTERNAL == 70
    first, hint = result.stderr.splitlines()
    assert first.startswith("error: this is a bug in tritpack: ")
    [report] = tmp_path.glob("tritpack-bug-*.txt")
    assert str(report) in hint
    text = report.read_text("utf-8")
    assert "Traceback (most recent call last)" in text and "tritpack 0." in text and "'tokenize'" in text
    shown = raising(error, TRITPACK_DEBUG="1", TMPDIR=str(tmp_path))
    assert shown.returncode == 70 and "Traceback" in shown.stderr and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("name", "code"), [("jinja2", 7), ("tokenizers.models", 7), ("tritpack.runtime.gone", 70)])
def test_a_missing_package_is_named(name: str, code: int, tmp_path: Path) -> None:
    result = raising(f"raise ModuleNotFoundError('No module', name={name!r})", TMPDIR=str(tmp_path))
    assert result.returncode == code
    named = f"error: the Python package {name} is not installed\nhint: install {name.partition('.')[0]}, or "
    assert result.stderr.startswith(named) == (code == 7)


@pytest.mark.parametrize("module", ["click", "tritpack.converter.cli.main", "tritpack.converter.cli.tokenize"])
def test_ctrl_c_during_an_import(module: str, demo_gguf: Path, tmp_path: Path) -> None:
    """The key is pressed when the module is looked for."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
""")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = program("tokenize", demo_gguf, "-p", "a", env={"PYTHONPATH": path})
    assert result.returncode in (128 + signal.SIGINT, -signal.SIGINT)  # the second is 130 for a shell
    assert result.stdout == "" and "Traceback" not in result.stderr


EVIL = "\x1b]0;PWNED\x07\x1b[2J\x1b[31mEVIL\x9b\u202e\nhint: all is well"


@pytest.fixture(scope="module")
def evil_gguf(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with terminal escapes in a key, the architecture's own keys, a tensor's name and the chat template."""
    file = GgufFile(demo_gguf)
    metadata = {**file.metadata, f"k{EVIL}": "v", "general.name": EVIL, "tokenizer.chat_template": f"{EVIL!s}"}
    name = next(iter(file.tensors))
    plans = [
        TensorPlan(f"{t.name}{EVIL if t.name == name else ''}", t.shape, t.type_id, t.nbytes)
        for t in file.tensors.values()
    ]
    path = tmp_path_factory.mktemp("evil") / "evil.gguf"
    kinds = {key: kind for key, kind in file.metadata_types.items() if key in metadata}
    write_gguf(path, metadata, plans, [[file.bytes_of(t)] for t in file.tensors.values()], types=kinds)
    return path


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["inspect", "{file}"], 1), (["inspect", "{file}", "--tensors"], 1), (["inspect", "{arch}"], None),
        (["tokenize", "{file}", "--chat", "{chat}"], 0), (["generate", "{file}", "-p", "a"], None),
        (["generate", "{file}", "-f", "{chat}{evil}"], 3), (["inspect", "{file}{evil}"], 3),
        (["convert", "{file}", "-o", "{file}.out", "--dry-run"], None),
        (["verify", "{file}", "--source", "{arch}"], None),
    ],
)  # fmt: skip
def test_text_of_a_file_cannot_control_the_terminal(
    options: list[str], code: int | None, evil_gguf: Path, tmp_path: Path
) -> None:
    file = GgufFile(evil_gguf)
    arch = tmp_path / "arch.gguf"
    write_gguf(arch, {**file.metadata, "general.architecture": EVIL}, [], [], types=file.metadata_types)
    chat = tmp_path / "chat.json"
    chat.write_text('[{"role": "user", "content": "Hi"}]')
    places = {"file": evil_gguf, "arch": arch, "chat": chat, "evil": EVIL}
    result = program(*(option.format(**places) for option in options))
    assert code in (None, result.returncode), result.stderr
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(result.stdout + result.stderr)
    assert "tokenize" in options or not any(
        line.startswith("hint: all is well") for line in (result.stdout + result.stderr).splitlines()
    )
    assert "Traceback" not in result.stderr


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    command = [*TRITPACK, "convert", str(DEMO / "checkpoint"), "-o", str(tmp_path / "o.gguf"), "-q", "--name"]
    result = subprocess.run([*map(os.fsencode, command), b"mod\xe8le"], cwd=REPOSITORY, capture_output=True)
    assert result.returncode == 2 and b"--name 'mod\\udce8le' is not valid Unicode" in result.stderr


def test_a_checkpoint_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/mod\xe8le"
    try:
        shutil.copytree(os.fsencode(DEMO / "checkpoint"), folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    command = [*map(os.fsencode, TRITPACK), b"convert", folder, b"-q", b"-o", folder + b".gguf"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True)
    assert result.returncode == 0 and os.path.exists(folder + b".gguf"), result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v and -s are needed together")
def test_a_thread_that_the_system_does_not_start(demo_gguf: Path) -> None:
    line = "ulimit -s 4000000 -v 6000000 || exit 99; $T generate $FILE --tokens 1,2 -n 2 -t 4"
    result = shell(line, FILE=str(demo_gguf), OPENBLAS_NUM_THREADS="1")
    if result.returncode == 99:
        pytest.skip("these limits cannot be set here")
    assert result.returncode == 7 and "a thread could not be started" in result.stderr

"""Files that are read: what is not a regular file, what is too large, what changes or is cut meanwhile."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import DEMO, REPOSITORY, exit_code_of, run
from tritpack.converter.convert import convert
from tritpack.converter.export.export import export
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.verify import built_in_text
from tritpack.formats import inputs
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.model import Model


def make_special(kind: str, path: Path) -> Path:
    """Put something under a name that is not a regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket may have 107 bytes
        server.bind(path.name)
        os.chdir(here)
        server.close()
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


SPECIAL = ("pipe", "socket", "folder", "device")
COMMANDS = {
    "inspect": ["inspect", "{special}"],
    "generate": ["generate", "{special}", "-p", "a"],
    "verify": ["verify", "{special}", "--source", "{demo}"],
    "repack": ["repack", "{special}", "-o", "{tmp}/o.gguf"],
    "kernel config": ["convert", "{demo}", "--kernel-config", "{special}", "-o", "{tmp}/o.gguf"],
    "golden": ["verify", "{gguf}", "--source", "{demo}", "--golden", "{special}"],
    "text": ["perplexity", "{gguf}", "--text", "{special}"],
    "chat": ["tokenize", "{gguf}", "--chat", "{special}"],
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_not_a_regular_file_is_not_waited_for(
    name: str, kind: str, demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PATIENCE", 0.1)
    special = make_special(kind, tmp_path / "special.gguf")
    places = {"special": special, "demo": DEMO / "checkpoint", "gguf": demo_gguf, "tmp": tmp_path}
    result = run(*(argument.format(**places) for argument in COMMANDS[name]))
    assert exit_code_of(result) == 3, result.output
    assert str(special) in str(result.exception)
    if not (kind == "folder" or (kind == "pipe" and name in ("text", "chat", "kernel config"))):
        assert f"is a {kind}, expected a" in str(result.exception)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_files_of_a_checkpoint_that_are_not_regular(kind: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(DEMO / "checkpoint", folder)
    (folder / name).unlink()
    make_special(kind, folder / name)
    with pytest.raises(Unreadable):
        convert(folder, tmp_path / "o.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_pipe_with_a_writer_is_read(demo_gguf: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    chat = '[{"role": "user", "content": "Hi"}]'
    writer = threading.Thread(target=lambda: pipe.write_text(chat))
    writer.start()
    result = run("tokenize", demo_gguf, "--chat", pipe)
    writer.join()
    assert result.exit_code == 0, result.output
    line = f"{sys.executable} -m tritpack tokenize {demo_gguf} --chat <(sleep 0.2; echo '{chat}')"
    shown = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, capture_output=True, text=True)
    assert shown.stdout == result.stdout, shown.stderr


def test_a_document_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with open(path, "wb") as stream:
        stream.truncate(inputs.LARGEST_DOCUMENT + 1)
    with pytest.raises(Unreadable, match="is larger than 128 MiB"):
        inputs.read_input(path)


# -- changes -----------------------------------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def halfway(action: Callable[[], None]) -> Callable[[str, int, int], None]:
    """A progress callback that acts once, in the middle."""
    actions = [action]

    def progress(tensor: str, done: int, total: int) -> None:
        if done > total // 2 and actions:
            actions.pop()()

    return progress


@pytest.mark.parametrize("change", [overwrite, replace, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_checkpoint_that_changes_is_noticed(change: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(DEMO / "checkpoint", folder)
    progress = halfway(lambda: change(folder / name))
    with pytest.raises(Unreadable, match=f"{name}: was changed while it was read"):
        convert(folder, tmp_path / "o.gguf", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("function", [convert, export])
def test_a_packed_file_that_changes_is_noticed(
    function: Callable[..., object], demo_gguf: Path, tmp_path: Path
) -> None:
    source = tmp_path / "a.gguf"
    source.write_bytes(demo_gguf.read_bytes())
    progress = halfway(lambda: os.utime(source, ns=(1, 1)))
    with pytest.raises(Unreadable, match=r"a\.gguf: was changed while it was read"):
        function(source, tmp_path / "out", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


CUT = """
import os, sys, threading
from tritpack.converter.cli import bus_error
from tritpack.formats.gguf_reader import GgufFile
bus_error.catch()
file = GgufFile(sys.argv[1])
os.truncate(sys.argv[1], 5000)
def read():
    {read}
{run}
print("read on")
"""
READS = {
    "numpy": "file.mapped[0].copy()",
    "python": "bytes(file.mapped[0][-9:])",
    "C library": "from tritpack.runtime.model import Model; Model(file, threads=2).logits([1] * 40)",
}


@pytest.mark.parametrize(
    "run_it", ["read()", "t = threading.Thread(target=read); t.start(); t.join()"], ids=["main", "thread"]
)
@pytest.mark.parametrize("name", READS)
def test_a_mapped_file_that_is_cut_ends_in_a_sentence(name: str, run_it: str, demo_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(demo_gguf.read_bytes())
    code = CUT.format(read=READS[name], run=run_it)
    result = subprocess.run([sys.executable, "-c", code, str(path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == f"error: {path}: was cut while it was read\n"


@pytest.mark.parametrize("data", [b"a\r\nb\n", b"\xff", b"x" * 1001], ids=["text", "not UTF-8", "too long"])
def test_standard_input_is_a_bounded_text(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "LARGEST_DOCUMENT", 1000)
    built_in_text._read_once.cache_clear()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    if data.startswith(b"a"):
        assert [built_in_text.read_text("-") for _ in range(2)] == ["a\nb\n"] * 2, "a command reads it twice"
    else:
        with pytest.raises(Unreadable, match="standard input: "):
            built_in_text.read_text("-")
    built_in_text._read_once.cache_clear()


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    writer = threading.Thread(target=lambda: pipe.write_text("words"))
    writer.start()
    assert [built_in_text.read_text(pipe) for _ in range(2)] == ["words"] * 2
    writer.join()


def test_unchanged_files_are_unchanged(demo_gguf: Path) -> None:
    GgufFile(demo_gguf).unchanged.check()


@pytest.mark.parametrize("name", ["a\0b", "a\0/b", "\ud800", "org/\udcff\ud800.gguf"])
@pytest.mark.parametrize("function", [inspect, Model, lambda name: convert(name, "never.gguf")])
def test_text_that_no_file_name_can_be(function: Callable[[str], object], name: str) -> None:
    with pytest.raises(Unreadable):
        function(name)


def test_a_missing_file_has_the_nearest_name_as_a_hint(tmp_path: Path) -> None:
    (tmp_path / "model-I2_S.gguf").touch()
    for name, hint in {
        "model-i2s.gguf": "did you mean model-I2_S.gguf?",
        "zzz": f"no file in {tmp_path} is called so",
        "x/m.gguf": f"there is no folder {tmp_path / 'x'}",
    }.items():
        with pytest.raises(Unreadable, match="No such file") as caught:
            inputs.open_input(tmp_path / name)
        assert hint in str(caught.value.hint), name

"""Output that is whole or absent: what is never replaced, what killed processes leave, names and modes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, exit_code_of, run
from tritpack.converter.convert import convert
from tritpack.converter.export.export import export
from tritpack.converter.repack import repack
from tritpack.formats.errors import UsageError
from tritpack.formats.files import atomic_output, partial_of, refuse_existing

WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from tritpack.formats.files import atomic_output
with atomic_output(Path(sys.argv[1]), 0, force=True) as stream:
    stream.write(b"half")
    stream.flush()
    print("ready", flush=True)
    time.sleep(600)
"""


def writer(path: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of writing `path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def write(path: Path, data: bytes = b"new") -> None:
    with atomic_output(path, len(data), force=True) as stream:
        stream.write(data)


@pytest.mark.parametrize("name", ["a.gguf", "x" * 251 + ".npy", "日本" * 41 + ".gguf", "[a]*.gguf"])
def test_what_a_killed_process_left_is_removed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    process = writer(path)
    process.kill()
    process.wait()
    assert len(list(tmp_path.iterdir())) == 1 and not path.exists()
    write(path)
    assert [left.name for left in tmp_path.iterdir()] == [name] and path.read_bytes() == b"new"


def test_what_a_running_process_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    process = writer(path)
    try:
        # In another container the number means nothing, and the lock tells.
        [partial] = tmp_path.iterdir()
        elsewhere = partial.rename(partial.with_name(partial.name.replace(str(process.pid), "999999999")))
        write(path)
        assert elsewhere.exists() and path.read_bytes() == b"new"
    finally:
        process.kill()
        process.wait()
    write(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_output_is_not_touched(tmp_path: Path) -> None:
    for name in (".b.gguf.999999999.partial", ".a.gguf.x.partial", ".a.gguf.999999999.partial2", "a.gguf.partial"):
        (tmp_path / name).write_bytes(b"mine")
    write(tmp_path / "a.gguf")
    assert len(list(tmp_path.iterdir())) == 5


def test_an_export_that_was_killed_leaves_nothing_for_long(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    left = folder.with_name(partial_of(folder).name.replace(str(os.getpid()), "999999999"))
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    replaced = tmp_path / ".out.999999999.old"
    replaced.mkdir()
    result = export(tiny_gguf, folder)
    assert sorted(tmp_path.iterdir()) == sorted([folder, replaced])  # what was the user's is named and kept
    assert any(str(replaced) in warning for warning in result.warnings)


def test_a_replaced_file_leaves_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write(path)
    assert path.stat().st_mode & 0o777 == 0o640 and path.read_bytes() == b"new"


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symlink", "hard link"])
def test_an_input_is_never_replaced(link, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = tmp_path / "model.gguf"
    model.write_bytes(b"model")
    output = model
    if link is not None:
        output = tmp_path / "other.gguf"
        link(model, output)
    with pytest.raises(UsageError, match="is an input of this command"):
        refuse_existing(output, force=True, inputs=[None, tmp_path / "absent", model])
    assert model.read_bytes() == b"model"


@pytest.mark.parametrize("name", ["a\0b", "a\0/b", "\ud800.gguf", "folder/a\0"])
@pytest.mark.parametrize("function", [convert, repack, export])
def test_an_output_that_no_file_can_be_called(function, name: str, tiny_gguf: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="cannot be the name of a file"):
        function(tiny_gguf, name)


COMMANDS = {
    "logits": ["logits", "{gguf}", "--tokens", "1", "-o", "{gguf}", "--force"],
    "embed": ["embed", "{gguf}", "--tokens", "1", "--pooling", "mean", "-o", "{gguf}", "--force"],
    "repack": ["repack", "{gguf}", "-o", "{gguf}", "--force"],
    "repack, rounding": ["repack", "{gguf}", "-o", "{gguf}", "--allow-scale-rounding", "--force"],
    "repack, reference": ["repack", "{other}", "--reference", "{gguf}", "-o", "{gguf}", "--force"],
    "convert a GGUF": ["convert", "{gguf}", "-o", "{gguf}", "--force"],
    "convert": ["convert", "{folder}", "-o", "{folder}/model.safetensors", "--force"],
    "convert, config": ["convert", "{folder}", "-o", "{folder}/config.json", "--force"],
    "convert, kernel config": ["convert", "{folder}", "--kernel-config", "{ini}", "-o", "{ini}", "--force"],
    "logits of a folder": ["logits", "{folder}", "--tokens", "1", "-o", "{folder}/model.safetensors", "--force"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_destroys_its_input(name: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    places = {
        "gguf": tmp_path / "a.gguf", "other": tmp_path / "b.gguf", "folder": tmp_path / "folder",
        "ini": tmp_path / "k.ini",
    }  # fmt: skip
    places["folder"].mkdir()
    for source in tiny_checkpoint.iterdir():
        (places["folder"] / source.name).write_bytes(source.read_bytes())
    for target in (places["gguf"], places["other"]):
        target.write_bytes(tiny_gguf.read_bytes())
    places["ini"].write_text("[a]\nm = 256\nk = 256\nbm = 128\nbk = 64\nbmm = 32\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run(*(argument.format(**places) for argument in COMMANDS[name]))
    assert exit_code_of(result) == 2 and "is an input of this command" in str(result.exception), result.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

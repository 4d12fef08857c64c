"""The tiny bad files of tests/hostile: one sentence, the right exit code, no traceback, in no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, run
from tests.fuzz.inputs import parsed, write_folder
from tests.hostile import generate
from tritpack.converter.convert import convert
from tritpack.formats.errors import TritpackError
from tritpack.runtime import untrusted

FOLDER = REPOSITORY / "tests" / "hostile"
CASES = json.loads((FOLDER / "cases.json").read_text("utf-8"))


def folder_of(data: bytes, path: Path) -> Path:
    path.mkdir()
    write_folder(parsed(data), path)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the checkpoint of which the bad ones are variants."""
    folder = tmp_path_factory.mktemp("sound")
    convert(folder_of(generate.checkpoint(), folder / "checkpoint"), folder / "sound.gguf")
    return folder / "sound.gguf"


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MEMORY", 400 << 20)  # less to fill


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_a_hostile_file_gets_one_sentence(
    case: dict[str, Any], tmp_path: Path, sound: Path, little_memory: None
) -> None:
    path, options = FOLDER / case["file"], []
    if path.suffix == ".json":
        path, options = folder_of(path.read_bytes(), tmp_path / "checkpoint"), ["-o", tmp_path / "out.gguf"]
    stands_for = {generate.SOUND: sound, "OUT": tmp_path / "out.gguf"}
    result = run(*(stands_for.get(word, word) for word in case["command"]), path, *options)
    error = result.exception
    assert isinstance(error, TritpackError), result.exc_info
    assert error.exit_code == case["exit_code"] and result.output == ""
    sentence = str(error)
    assert sentence.startswith((f"{path}: ", f"{path}/")) and "\n" not in sentence  # or a file of a folder
    for word in case["words"]:
        assert word in sentence, word
    assert not (tmp_path / "out.gguf").exists()


def test_the_checkpoint_is_sound_without_what_a_case_changes(sound: Path) -> None:
    result = run("verify", sound, "--source", sound.parent / "checkpoint", "--level", "tokenizer")
    assert result.exit_code == 0, result.output


def test_the_files_are_what_the_generator_writes() -> None:
    assert [case["file"] for case in CASES] == list(generate.FILES)
    for name, (data, _, _) in generate.FILES.items():
        assert (FOLDER / name).read_bytes() == data, name

"""The tiny bad files of tests/hostile: one sentence, the right exit code, no traceback, in no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, program
from tests.fuzz.inputs import parsed, write_folder
from tests.hostile import generate

FOLDER = REPOSITORY / "tests" / "hostile"
CASES = json.loads((FOLDER / "cases.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_a_hostile_file_gets_one_sentence(case: dict[str, Any], tmp_path: Path) -> None:
    path, options = FOLDER / case["file"], []
    if path.suffix == ".json":
        document, path = parsed(path.read_bytes()), tmp_path / "checkpoint"
        path.mkdir()
        write_folder(document, path)
        options = ["-o", tmp_path / "out.gguf"]
    done = program(*case["command"], path, *options)
    assert done.returncode == case["exit_code"], done.stderr
    [sentence] = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
    assert sentence.startswith((f"error: {path}: ", f"error: {path}/")) and done.stdout == ""  # or a file of a folder
    for word in case["words"]:
        assert word in sentence, word


def test_the_files_are_what_the_generator_writes() -> None:
    assert [case["file"] for case in CASES] == list(generate.FILES)
    for name, (data, _, _) in generate.FILES.items():
        assert (FOLDER / name).read_bytes() == data, name

"""The tiny bad files of tests/hostile: one sentence, the right exit code, no traceback, in no time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import REPOSITORY, program
from tests.hostile import generate

FOLDER = REPOSITORY / "tests" / "hostile"
CASES = json.loads((FOLDER / "cases.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_a_hostile_file_gets_one_sentence(case: dict[str, Any]) -> None:
    path = FOLDER / case["file"]
    done = program(*case["command"], path)
    assert done.returncode == case["exit_code"], done.stderr
    [sentence] = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
    assert sentence.startswith(f"error: {path}: ") and done.stdout == ""
    for word in case["words"]:
        assert word in sentence, word


def test_the_files_are_what_the_generator_writes() -> None:
    assert [case["file"] for case in CASES] == list(generate.FILES)
    for name, (data, _, _) in generate.FILES.items():
        assert (FOLDER / name).read_bytes() == data, name

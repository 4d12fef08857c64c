"""Every seed is read to the end, and what is no right answer is noticed. `make fuzz` does the rest."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.fuzz import mutate, replay, seeds_c, targets, watch
from tests.fuzz.__main__ import C_TARGETS, PYTHON_TARGETS, SEEDS
from tritpack.formats.errors import Unreadable

READ_ALL = """
import sys, tempfile
from pathlib import Path
from tests.fuzz import targets, watch
watch.limit_memory()
for path in sorted(Path(sys.argv[2]).iterdir()):
    with tempfile.TemporaryDirectory() as folder:
        targets.TARGETS[sys.argv[1]](path.read_bytes(), Path(folder))
"""


def test_every_target_has_seeds() -> None:
    assert sorted(path.name for path in SEEDS.iterdir()) == sorted((*PYTHON_TARGETS, *C_TARGETS))


@pytest.mark.parametrize("name", PYTHON_TARGETS)
def test_seeds_are_read_to_the_end(name: str) -> None:
    """No seed is refused, so that mutations begin behind the parsers. Each target has a process of limited memory."""
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, name, SEEDS / name], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", C_TARGETS)
def test_seeds_of_c_fuzzers_are_what_the_script_writes(name: str) -> None:
    seeds = seeds_c.SEEDS[name]()
    assert {path.name: path.read_bytes() for path in (SEEDS / name).iterdir()} == seeds


def test_errors_of_ours_are_right_answers_and_others_are_findings(tmp_path: Path) -> None:
    def refuses(data: bytes, folder: Path) -> None:
        raise Unreadable("no")

    def breaks(data: bytes, folder: Path) -> None:
        (folder / "file").write_bytes(data)
        raise KeyError(data)

    assert watch.finding(refuses, b"") is None
    error = watch.finding(breaks, b"a")
    assert isinstance(error, KeyError)
    watch.keep(tmp_path, "name", b"long", error)
    watch.keep(tmp_path, "name", b"a", error)
    watch.keep(tmp_path, "name", b"longer", error)
    [kept] = [path for path in tmp_path.iterdir() if path.suffix == ""]
    assert kept.read_bytes() == b"a"
    assert "KeyError" in kept.with_suffix(".txt").read_text("utf-8")


def test_a_finding_is_printed_so_that_it_can_be_run_again(tmp_path: Path) -> None:
    watch.keep(tmp_path, "option_files", b"{}", KeyError("a"))
    [path] = [path for path in tmp_path.iterdir() if path.suffix == ""]
    lines = replay.shown(path).splitlines()
    assert lines[0].strip() == "option_files: KeyError at tests" and str(path) in lines[1]
    [packed] = re.findall(r"<<<(\S+) \| gunzip > option_files-", lines[2])
    assert gzip.decompress(base64.b64decode(packed)) == b"{}"
    (tmp_path / "model-ended.txt").write_text("SUMMARY: AddressSanitizer: overflow\n")
    (tmp_path / "model-crash-0a").write_bytes(b"a")
    assert "model: crash: SUMMARY: AddressSanitizer: overflow" in replay.shown(tmp_path / "model-crash-0a")
    (tmp_path / "model-oom-0b").write_bytes(random.Random(0).randbytes(replay.LONGEST))
    assert replay.shown(tmp_path / "model-oom-0b").endswith("too long to print")


def test_a_replay_tells_a_finding_from_a_right_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_one_byte(data: bytes, folder: Path) -> int:
        return data[0]

    monkeypatch.setattr(watch, "limit_memory", lambda: None)
    monkeypatch.setitem(targets.TARGETS, "gguf", reads_one_byte)
    for data, expected in ((b"a", "None"), (b"", "IndexError")):
        (tmp_path / "gguf-0a").write_bytes(data)
        assert expected in str(replay.replay(tmp_path / "gguf-0a", tmp_path)), data


def test_slow_and_greedy_readers_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CPU_SECONDS", 0.05)

    def slow(data: bytes, folder: Path) -> None:
        start = time.process_time()
        while time.process_time() < start + 5:
            pass

    assert isinstance(watch.finding(slow, b""), watch.TooSlow)
    program = "from tests.fuzz import watch\nwatch.limit_memory()\n"
    program += "print(repr(watch.finding(lambda data, folder: bytearray(3 << 30), b'')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "MemoryError()\n"


@pytest.mark.parametrize("name", PYTHON_TARGETS)
def test_mutations_keep_the_structure(name: str) -> None:
    """Different inputs come out, of legal length, and most are still what the reader begins to parse."""
    seed = min(SEEDS.joinpath(name).iterdir()).read_bytes()
    mutation = mutate.MUTATIONS.get(name, mutate.json_mutation)
    results = [mutation(seed, 1 << 17, random.Random(i)) for i in range(20)]
    assert len(set(results)) > 10
    assert all(len(result) <= 1 << 17 for result in results)
    for result in results:
        if mutation is mutate.json_mutation:
            json.loads(result)
    assert sum(result[:4] == seed[:4] for result in results) > 10 or mutation is mutate.json_mutation

"""The C library built for another machine and run here: what tests/runtime/test_arm.py and test_wasm.py share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import REPOSITORY
from tritpack.converter.convert import convert
from tritpack.runtime.dump import dump
from tritpack.runtime.model import Model

CLANGS = ("clang", *(f"clang-{n}" for n in range(22, 10, -1)))
C_TESTS = ("test_kernels", "test_session")
PROMPT = "Once upon a time there was a little"
MODELS = {"i2_s": "auto", "t158": "q6_k", "tq1_0": "q8_0"}
"""Types of the linears -> of the embedding."""


def build(folder: Path, compiler: str, sanitizers: str = "") -> None:
    targets = [folder / "run_dump", *(folder / "asan" / name for name in C_TESTS)]
    flags = [f"CC={compiler}", f"BUILD={folder}", f"SANITIZERS={sanitizers}", f"-j{os.cpu_count()}"]
    command = ["make", "-f", "runtime/runtime.mk", *flags, *map(str, targets)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_c_test(run: Sequence[str], folder: Path, name: str, isas: Sequence[str]) -> None:
    # With an argument test_session tries fewer pairs of threads and batches: here instruction sets are what differs.
    done = subprocess.run([*run, folder / "asan" / name, "quick"], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("skipped")]
    skipped = {word.rstrip(":") for line in lines for word in line.split()}
    assert not skipped & set(isas), "what runs them has all of them"


def check_demo(run: Sequence[str], folder: Path, tmp_path: Path, outtype: str, isas: Sequence[str]) -> None:
    """Greedy tokens and all logits, bit by bit, on each instruction set there and on the best one here."""
    packed, dumped = tmp_path / "demo.gguf", tmp_path / "demo.dump"
    convert(REPOSITORY / "recipes/demo/checkpoint", packed, outtype=outtype, embedding_type=MODELS[outtype])
    with Model(packed) as model:
        prompt = model.tokenizer.encode(PROMPT)
        dump(model, dumped, prompt, 12)
        logits, ids, digest = model.logits(prompt), [], 14695981039346656037
        for _ in range(12):
            digest = _digest(digest, logits.tobytes())
            ids.append(int(logits[-1].argmax()))
            logits = model.eval([ids[-1]])[None]
        digest = _digest(digest, logits.tobytes())
    done = subprocess.run([*run, folder / "run_dump", dumped], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["scalar", *isas]
    for line in lines:
        assert list(map(int, line[2:])) == ids and int(line[1], 16) == digest


def _digest(value: int, data: bytes) -> int:
    """FNV-1a, as run_dump.c has it."""
    for byte in data:
        value = (value ^ byte) * 1099511628211 & 0xFFFFFFFFFFFFFFFF
    return value

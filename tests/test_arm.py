"""The C library for ARM, cross-compiled and run in an emulator: kernels against scalar, the demo against this machine.

Needs aarch64-linux-gnu-gcc and qemu-aarch64 (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static);
without them these tests skip and say so.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from converter.convert import convert
from runtime.dump import dump
from runtime.model import Model

REPOSITORY = Path(__file__).resolve().parents[1]
COMPILER = "aarch64-linux-gnu-gcc"
PROMPT = "Once upon a time there was a little"
MODELS = {"i2_s": "auto", "t158": "q6_k", "tq1_0": "q8_0"}


@pytest.fixture(scope="module")
def emulator() -> list[str]:
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None or shutil.which(COMPILER) is None:
        pytest.skip(f"needs {COMPILER} and qemu-aarch64: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static")
    return [found, "-L", "/usr/aarch64-linux-gnu"]


@pytest.fixture(scope="module")
def built(emulator: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    targets = [folder / "run_dump", folder / "asan/test_kernels", folder / "asan/test_session"]
    flags = [f"CC={COMPILER}", f"BUILD={folder}", "SANITIZERS=", f"-j{os.cpu_count()}"]
    command = ["make", "-f", "runtime/runtime.mk", *flags, *map(str, targets)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["test_kernels", "test_session"])
def test_c_tests_pass(emulator: list[str], built: Path, name: str) -> None:
    done = subprocess.run([*emulator, built / "asan" / name], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout
    skipped = {word for line in done.stdout.splitlines() if line.startswith("skipped") for word in line.split()}
    assert not skipped & {"neon:", "dotprod:", "i8mm:"}, "the emulated CPU has all of them"


@pytest.mark.parametrize("outtype", MODELS)
def test_the_demo_says_the_same(emulator: list[str], built: Path, tmp_path: Path, outtype: str) -> None:
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
    done = subprocess.run([*emulator, built / "run_dump", dumped], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["scalar", "neon", "dotprod", "i8mm"]
    for line in lines:
        assert list(map(int, line[2:])) == ids and int(line[1], 16) == digest


def _digest(value: int, data: bytes) -> int:
    """FNV-1a, as run_dump.c has it."""
    for byte in data:
        value = (value ^ byte) * 1099511628211 & 0xFFFFFFFFFFFFFFFF
    return value


@pytest.mark.skipif(platform.system() != "Linux", reason="builds a program with make and runs it here")
def test_a_dump_runs_here_too(tmp_path: Path) -> None:
    packed, dumped = tmp_path / "demo.gguf", tmp_path / "demo.dump"
    convert(REPOSITORY / "recipes/demo/checkpoint", packed)
    with Model(packed) as model:
        dump(model, dumped, model.tokenizer.encode(PROMPT), 5)
    build = os.environ.get("BUILD", str(REPOSITORY / "build"))
    made = subprocess.run(["make", "-f", "runtime/runtime.mk", f"BUILD={build}", f"{build}/run_dump"], cwd=REPOSITORY)
    assert made.returncode == 0
    assert subprocess.run([f"{build}/run_dump", dumped], capture_output=True).returncode == 0
    assert subprocess.run([f"{build}/run_dump", packed], capture_output=True).returncode == 2

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

from tests.make.other_machines import C_TESTS, MODELS, PROMPT, REPOSITORY, build, check_c_test, check_demo
from tritpack.converter.convert import convert
from tritpack.runtime.dump import dump
from tritpack.runtime.model import Model

COMPILER = "aarch64-linux-gnu-gcc"
ISAS = ("neon", "dotprod", "i8mm")


@pytest.fixture(scope="module")
def emulator() -> list[str]:
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None or shutil.which(COMPILER) is None:
        pytest.skip(f"needs {COMPILER} and qemu-aarch64: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static")
    return [found, "-L", "/usr/aarch64-linux-gnu"]


@pytest.fixture(scope="module")
def built(emulator: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    build(folder, COMPILER)
    return folder


@pytest.mark.parametrize("name", C_TESTS)
def test_c_tests_pass(emulator: list[str], built: Path, name: str) -> None:
    check_c_test(emulator, built, name, ISAS)


@pytest.mark.parametrize("outtype", MODELS)
def test_the_demo_says_the_same(emulator: list[str], built: Path, tmp_path: Path, outtype: str) -> None:
    check_demo(emulator, built, tmp_path, outtype, ISAS)


@pytest.mark.skipif(platform.system() != "Linux", reason="builds a program with make and runs it here")
def test_a_dump_runs_here_too(tmp_path: Path) -> None:
    packed, dumped = tmp_path / "demo.gguf", tmp_path / "demo.dump"
    convert(REPOSITORY / "recipes/demo/checkpoint", packed)
    with Model(packed) as model:
        dump(model, dumped, model.tokenizer.encode(PROMPT), 5)
    folder = os.environ.get("BUILD", str(REPOSITORY / "build"))
    made = subprocess.run(["make", "-f", "runtime/runtime.mk", f"BUILD={folder}", f"{folder}/run_dump"], cwd=REPOSITORY)
    assert made.returncode == 0
    assert subprocess.run([f"{folder}/run_dump", dumped], capture_output=True).returncode == 0
    cut = tmp_path / "cut.dump"
    cut.write_bytes(dumped.read_bytes()[:-1])
    for bad in (packed, cut, tmp_path / "missing.dump"):
        assert subprocess.run([f"{folder}/run_dump", bad], capture_output=True).returncode == 2, bad

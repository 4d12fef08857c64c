"""The C library for WebAssembly, run by node: kernels against scalar, the demo against this machine.

Needs node and a clang that links for wasm32-wasi (Debian: clang lld wasi-libc libclang-rt-dev-wasm32 nodejs); without
them these tests skip and say so.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.make.other_machines import C_TESTS, CLANGS, MODELS, REPOSITORY, build, check_c_test, check_demo

ISAS = ("simd128",)
UNDEFINED = "-fsanitize=undefined -fsanitize-trap=undefined"
"""No run-time library: what is undefined traps."""


@pytest.fixture(scope="module")
def node() -> list[str]:
    found = shutil.which("node")
    knows = found and subprocess.run(
        [found, "--input-type=module", "-e", "import 'node:wasi'; await 0"], capture_output=True
    )
    if not found or not knows or knows.returncode != 0:
        pytest.skip("needs node from 18.17 on: nodejs")
    return [found, "--no-warnings", str(REPOSITORY / "tests/c/wasi.mjs")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wasm")
    for compiler in (f"{clang} --target=wasm32-wasi" for clang in CLANGS if shutil.which(clang)):
        command = [*compiler.split(), "-x", "c", "-", "-o", folder / "linked"]
        text = b"#include <math.h>\nint main(int n, char **s) { return s != 0 && sqrt(n) < 0; }"
        if subprocess.run(command, input=text, capture_output=True).returncode == 0:
            build(folder, compiler, sanitizers=UNDEFINED)
            return folder
    pytest.skip("needs a clang that links for wasm32-wasi: clang lld wasi-libc libclang-rt-dev-wasm32")


@pytest.mark.parametrize("name", C_TESTS)
def test_c_tests_pass(node: list[str], built: Path, name: str) -> None:
    check_c_test(node, built, name, ISAS)


@pytest.mark.parametrize("outtype", MODELS)
def test_the_demo_says_the_same(node: list[str], built: Path, tmp_path: Path, outtype: str) -> None:
    check_demo(node, built, tmp_path, outtype, ISAS)

"""Checkpoints and files the tests share. Nothing is downloaded: checkpoints are made here or lie in the repository."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.make.families import Checkpoints, Made, make
from tritpack.converter.cli.main import LazyGroup, cli
from tritpack.converter.convert import convert
from tritpack.converter.inspect import bandwidth
from tritpack.converter.tools.make_dummy import make_dummy
from tritpack.formats import c_blocks
from tritpack.formats.errors import TritpackError
from tritpack.formats.layouts import c_packers

# A job that a shell started in the background ignores Ctrl-C, and so would every program that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
GOLDEN = REPOSITORY / "tests" / "golden"
DEMO = REPOSITORY / "recipes" / "demo"
LONGEST = ("runtime/test_arm.py", "runtime/test_wasm.py", "test_packaging.py", "runtime/test_kernels.py")
"""Files that take minutes, of the folder tests: begun last, they would keep one core busy while the others wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files come first. The rest keeps its order."""
    places = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tritpack remembers of this machine does not come from the user's cache, and does not go there.

    It remembers a bandwidth, because a measurement fails on a busy machine and would make results differ.
    """
    os.environ["TRITPACK_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    bandwidth._remember({bandwidth._machine(): 40e9})


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed checkpoint of 2 layers, seeded."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    make_dummy(folder, shape="tiny", seed=7)
    return folder


@pytest.fixture(scope="session")
def online_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shape as bf16 masters (`online`)."""
    folder = tmp_path_factory.mktemp("online") / "checkpoint"
    make_dummy(folder, shape="tiny", mode="online", seed=8)
    return folder


@pytest.fixture(scope="session")
def tiny_gguf(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    """Answers written by the engines themselves; not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with the engines' own answers is not here")
    return SHARED


@pytest.fixture(scope="session")
def demo_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint, converted."""
    path = tmp_path_factory.mktemp("demo") / "demo.gguf"
    convert(DEMO / "checkpoint", path)
    return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Every checkpoint is made once."""
    made: dict[str, Made] = {}

    def get(name: str) -> Made:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp(name) / "checkpoint")
        return made[name]

    return get


def program(
    *arguments: str | Path, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """The real process, main() and its error handler included."""
    return subprocess.run(
        [sys.executable, "-m", "tritpack", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, text=True, input=stdin, env={**os.environ, **(env or {})},
    )  # fmt: skip


def run(*arguments: str | Path) -> Result:
    """Run a command in this process. A TritpackError ends it as it would end the program: see exit_code_of."""
    assert isinstance(cli, LazyGroup)
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def exit_code_of(result: Result) -> int:
    """The process's exit code: main() turns a TritpackError into its own code."""
    return int(result.exception.exit_code) if isinstance(result.exception, TritpackError) else result.exit_code


@pytest.fixture(autouse=True)
def numpy_packs() -> None:
    """Every test begins without packers and encoders in C; whatever converts or verifies puts them in again."""
    c_packers.use(None)
    c_blocks.use(None)

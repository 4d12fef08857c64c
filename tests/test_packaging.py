"""The wheel works by itself: installed in an empty environment, run from another folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    source, out = tmp_path_factory.mktemp("source") / "tritpack", tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns(".venv", ".git", "build", "dist", "*.so", "__pycache__", ".*_cache")
    shutil.copytree(REPOSITORY, source, ignore=skip)
    build(source, out)
    [path] = out.glob("*.whl")
    return path


def build(source: Path, out: Path, **env: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(source),
    ]
    subprocess.run(command, check=True, env={**os.environ, "BUILD": "build", **env}, capture_output=True)


def test_it_carries_the_library_and_the_data_but_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("runtime/libtritpack.") for name in names)
    for needed in (
        "converter/families/bitnet.yaml",
        "converter/verify/text.txt",
        "recipes/demo/checkpoint/config.json",
    ):
        assert needed in names
    assert not any(name.startswith("tests/") or name.endswith((".o", ".d")) for name in names)
    assert wheel.name.endswith(".whl") and "-py3-none-" in wheel.name and not wheel.name.endswith("-any.whl")


def test_it_runs_in_an_empty_environment(wheel: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The environment has our dependencies (from this one) and nothing of this repository."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    [site] = (venv / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    packages = Path(importlib.util.find_spec("numpy").origin).parents[1]  # type: ignore[union-attr, arg-type]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(packages)]), "PYTHONSAFEPATH": "1"}

    def tritpack(*arguments: str) -> str:
        code = "from tritpack.converter.cli.main import main; main()"
        done = subprocess.run(
            [str(venv / "bin" / "python"), "-c", code, *arguments],
            cwd=elsewhere,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert tritpack("convert", str(tiny_checkpoint), "-o", "m.gguf")
    assert "PASS" in tritpack("verify", "m.gguf", "--source", str(tiny_checkpoint), "--report", "proof")
    assert (elsewhere / "proof" / "report.html").is_file() and "schema" in tritpack("verify", "--json-schema")
    where = subprocess.run(
        [str(venv / "bin" / "python"), "-c", "import runtime; print(tritpack.runtime.__file__)"],
        cwd=elsewhere, env=env, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(venv))


def test_without_a_compiler_it_installs_and_converts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    source = tmp_path / "tritpack"
    skip = shutil.ignore_patterns(".venv", ".git", "build", "dist", "*.so", "__pycache__", ".*_cache", "demo")
    shutil.copytree(REPOSITORY, source, ignore=skip)
    build(source, tmp_path / "out", CC="no-such-compiler")
    [path] = (tmp_path / "out").glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(path).extractall(site)
    packages = Path(importlib.util.find_spec("numpy").origin).parents[1]  # type: ignore[union-attr, arg-type]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(packages)]), "PYTHONSAFEPATH": "1"}
    code = "from tritpack.converter.cli.main import main; main()"

    def tritpack(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True
        )

    assert tritpack("convert", str(tiny_checkpoint), "-o", "m.gguf").returncode == 0
    assert tritpack("inspect", "m.gguf", "--stats").returncode == 0
    assert tritpack("verify", "m.gguf", "--source", str(tiny_checkpoint), "--level", "weights").returncode == 0
    ran = tritpack("generate", "m.gguf", "-p", "a")
    assert ran.returncode == 7 and "hint:" in ran.stderr


def test_the_sdist_builds(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    code = "import sys; from hatchling.build import build_sdist; print(build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, check=True, capture_output=True)
    [archive] = tmp_path.glob("*.tar.gz")
    assert archive.stat().st_size > 10_000

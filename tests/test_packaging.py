"""The sdist, the wheel made from it, and editable installs: what they contain, and that they work beside other packages
called formats, runtime and converter."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tritpack.converter.web.assets import ENGINE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed")
FLOORS = ("formats", "runtime", "converter")
USER_SCRIPT = """\
import tritpack
reveal_type(tritpack.generate("m.gguf", "a").text)
tritpack.Model("m.gguf").tokenize("a", nonsense=True)
"""
# The user's mypy.ini. Reading torch and its like takes minutes, and none of our types comes from them.
MYPY_INI = """\
[mypy]
[mypy-torch.*,transformers.*,lm_eval.*,huggingface_hub.*,matplotlib.*]
follow_imports = skip
follow_imports_for_stubs = True
ignore_missing_imports = True
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    code = "import sys; from hatchling.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(out)], cwd=REPOSITORY, check=True, capture_output=True)
    [archive] = out.glob("*.tar.gz")
    return archive


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        # 3.11.3 and 3.10.11 and older do not have it yet.
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    [source] = folder.iterdir()
    return source


def build(source: Path, out: Path, **env: str) -> Path:
    return built(source, out, **env)[0]


def built(source: Path, out: Path, **env: str) -> tuple[Path, str]:
    """The wheel that pip builds, and what a user sees meanwhile."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(source)],
        check=True, env={**os.environ, "BUILD": "build", **env}, capture_output=True,
    )  # fmt: skip
    [path] = out.glob("*.whl")
    return path, (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module")
def source(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(sdist, tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the sdist, in which there are no links."""
    return build(source, tmp_path_factory.mktemp("wheel"))


def environment(folder: Path, *install: str | Path) -> Path:
    """The Python of a new environment with this one's dependencies, into which pip has installed one thing."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    dependencies = Path(importlib.util.find_spec("numpy").origin).parents[1]  # type: ignore[union-attr, arg-type]
    (site_of(python) / "dependencies.pth").write_text(f"{dependencies}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", *map(str, install)], check=True, capture_output=True)
    return python


def site_of(python: Path) -> Path:
    [site] = (python.parents[1] / "lib").glob("python*/site-packages")
    return site


def put_other_packages(folder: Path) -> None:
    """Packages of other people with the names of our floors."""
    for name in FLOORS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise ImportError('this is another package called {name}')\n")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("installed") / "venv", wheel)


def test_the_sdist_has_the_sources_and_no_links(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert all(member.isfile() for member in members)
    assert {"tritpack/__init__.py", "tritpack/py.typed", "runtime/build_hook.py", "runtime/runtime.mk"} <= names
    assert {"Makefile", "tests/conftest.py", "runtime/csrc/include/tritpack.h"} <= names
    assert not [name for name in names if name.startswith(tuple(f"tritpack/{floor}" for floor in FLOORS))]


def test_the_wheel_has_what_runs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tritpack"}
    for needed in (
        "tritpack/__init__.py", "tritpack/__main__.py", "tritpack/py.typed", "tritpack/converter/families/bitnet.yaml",
        "tritpack/converter/report/templates/report.html.j2", "tritpack/converter/report/verify.schema.json",
        "tritpack/converter/verify/text.txt", "tritpack/recipes/demo/checkpoint/config.json",
        "tritpack/recipes/recipe.schema.json", "tritpack/recipes/microsoft-bitnet-b1.58-2B-4T.yaml",
    ):  # fmt: skip
        assert needed in names, needed
    assert [name for name in names if name.startswith("tritpack/runtime/libtritpack.")]
    unwanted = (".c", ".h", ".def", ".inc", ".mk", ".o", ".d", ".pyc", "build_hook.py")
    assert not [name for name in names if name.endswith(unwanted) or "/tests/" in name or "/csrc/" in name]
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("-any.whl")


def test_the_wheel_has_the_engine_of_the_page_if_it_was_built(source: Path, wheel: Path, tmp_path: Path) -> None:
    page = "tritpack/runtime/web/page/index.html"
    names = zipfile.ZipFile(wheel).namelist()
    assert page in names and not [name for name in names if "/npm/" in name]
    dist = source / "runtime" / "web" / "npm" / "dist"
    dist.mkdir()
    for name in (*ENGINE, "abi"):
        (dist / name).write_text(name)
    names = zipfile.ZipFile(build(source, tmp_path)).namelist()
    shutil.rmtree(dist)
    assert page in names
    packed = {name.removeprefix("tritpack/runtime/web/npm/") for name in names if "/npm/" in name}
    assert packed == {f"dist/{name}" for name in (*ENGINE, "abi")}


def test_web_without_the_engine_of_the_page_ends_with_7(installed: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    command = [installed, "-m", "tritpack", "web", tiny_gguf, "-o", "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 7 and "the page's engine is not part of this installation" in done.stderr
    assert "hint:" in done.stderr and not (tmp_path / "site").exists()


def test_it_installs_one_package(installed: Path) -> None:
    entries = {path.name.partition("-")[0] for path in site_of(installed).iterdir()}
    assert entries == {"tritpack", "dependencies.pth"}


def test_it_runs_beside_packages_with_the_names_of_the_floors(
    installed: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Such packages in site-packages, in the current folder and on PYTHONPATH."""
    for folder in (site_of(installed), tmp_path / "current", tmp_path / "path"):
        put_other_packages(folder)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "path")}

    def call(*command: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in command], cwd=tmp_path / "current", env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call(installed.parent / "tritpack", "convert", tiny_checkpoint, "-o", "m.gguf")
    verified = call(installed, "-m", "tritpack", "verify", "m.gguf", "--source", tiny_checkpoint, "--report", "proof")
    assert "PASS" in verified and (tmp_path / "current" / "proof" / "report.html").is_file()
    assert "schema" in call(installed, "-m", "tritpack", "verify", "--json-schema")
    code = "import tritpack.runtime, tritpack; print(tritpack.runtime.__file__, tritpack.inspect('m.gguf')['problems'])"
    assert call(installed, "-c", code) == f"{site_of(installed) / 'tritpack' / 'runtime' / '__init__.py'} []\n"


def test_without_a_compiler_it_installs_and_converts(sdist: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    path, shown = built(unpacked(sdist, tmp_path / "source"), tmp_path / "out", CC="no-such-compiler")
    assert "warning: tritpack is installed without its C library, because no-such-compiler was not found" in shown
    assert path.name.endswith("-py3-none-any.whl")
    python = environment(tmp_path / "venv", path)

    def code_of(*arguments: str | Path) -> tuple[int, str]:
        command = [str(python), "-m", "tritpack", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stderr

    assert code_of("convert", tiny_checkpoint, "-o", "m.gguf", "-q")[0] == 0
    assert code_of("inspect", "m.gguf", "--stats")[0] == 0
    assert code_of("verify", "m.gguf", "--source", tiny_checkpoint, "--level", "weights")[0] == 0
    code, errors = code_of("generate", "m.gguf", "-p", "a")
    assert code == 7 and "hint:" in errors
    doctor = subprocess.run([python, "-m", "tritpack", "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert doctor.returncode == 7 and doctor.stderr == ""
    for line in ("tritpack  ", "packages  ", "cpu  ", "skipped   kernels", "passed    a model", "missing ", "hint: "):
        assert line in doctor.stdout, line


# -- types -------------------------------------------------------------------------------------------------------------


def wheel_python(folder: Path, wheel: Path) -> tuple[Path, dict[str, str]]:
    return environment(folder, wheel), {}


def editable_python(folder: Path, wheel: Path) -> tuple[Path, dict[str, str]]:
    return environment(folder, "--editable", REPOSITORY), {}


def source_python(folder: Path, wheel: Path) -> tuple[Path, dict[str, str]]:
    return Path(sys.executable), {"MYPYPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
@pytest.mark.parametrize("setup", [wheel_python, editable_python, source_python])
def test_mypy_sees_types_in_a_users_script(
    setup: Callable[[Path, Path], tuple[Path, dict[str, str]]], wheel: Path, mypy_cache: Path, tmp_path: Path
) -> None:
    python, env = setup(tmp_path / "venv", wheel)
    (tmp_path / "user.py").write_text(USER_SCRIPT)
    (tmp_path / "mypy.ini").write_text(MYPY_INI)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", mypy_cache, "user.py"],
        cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True,
    )  # fmt: skip
    assert 'note: Revealed type is "' in done.stdout and 'str"' in done.stdout, done.stdout + done.stderr
    assert 'Unexpected keyword argument "nonsense" for "tokenize" of "Model"' in done.stdout
    assert "found twice" not in done.stdout + done.stderr and "Found 1 error in 1 file" in done.stdout


def test_make_demo_needs_nothing_but_a_copy(tmp_path: Path) -> None:
    """Of the recipe, that it names files that a fresh copy has: running it needs a package index."""
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns(".venv", ".git", "build", "dist", "*.so", "__pycache__", ".*_cache")
    shutil.copytree(REPOSITORY, copy, ignore=ignored, symlinks=True)
    done = subprocess.run(["make", "-n", "demo"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0 and "recipes/demo/checkpoint" in done.stdout, done.stderr
    assert re.search(r"QUIET=1 -j\d+ lib", done.stdout) and "The command is %s/tritpack; after" in done.stdout
    assert "  cc " not in done.stderr
    links = {path.name: os.readlink(path) for path in (copy / "tritpack").iterdir() if path.is_symlink()}
    assert links == {name: f"../{name}" for name in (*FLOORS, "recipes")}

"""Imports point down only: converter -> runtime -> formats. And what must stay independent stays so."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FLOORS = {"formats": 0, "runtime": 1, "converter": 2}
FILES = [path for floor in FLOORS for path in sorted((REPOSITORY / floor).rglob("*.py"))]
READ_OUR_FILES = ("packed.py", "hybrid_packed.py", "judges.py")
"""A packed file as SOURCE is read through formats/, and recorded outputs are held against the model that runs."""
ORACLE = [
    path
    for path in sorted((REPOSITORY / "converter" / "verify" / "oracle").glob("*.py"))
    if path.name not in READ_OUR_FILES
]


def imported_modules(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_import_points_up(path: Path) -> None:
    floor = FLOORS[name_of(path).partition("/")[0]]
    for module in imported_modules(path):
        package, _, rest = module.partition(".")
        assert package not in FLOORS, f"imports {module}, whose name is tritpack.{module}"
        assert package != "tritpack" or rest, "imports the public face, which lies above the floors"
        if package == "tritpack":
            assert FLOORS[rest.partition(".")[0]] <= floor, f"imports {module}"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tests").rglob("*.py")), ids=name_of)
def test_tests_import_the_floors_by_their_full_names(path: Path) -> None:
    assert not [module for module in imported_modules(path) if module.partition(".")[0] in FLOORS]


def test_no_floor_is_loaded_a_second_time() -> None:
    """Two copies of a module have two copies of each class, and `except` misses the other one's errors."""
    program = (
        "import importlib, pkgutil, sys, tritpack\n"
        "from importlib.util import find_spec\n"
        "skipped = ('__main__', 'build_hook', 'lm_eval', 'libtritpack')\n"
        "rooms = ('.recipes.',) if find_spec('starlette') else ('.recipes.', '.runtime.serve.')\n"
        "for module in pkgutil.walk_packages(tritpack.__path__, 'tritpack.'):\n"
        "    if not module.name.endswith(skipped) and not any(room in module.name for room in rooms):\n"
        "        importlib.import_module(module.name)\n"
        "names = set(sys.modules)\n"
        "assert len([name for name in names if name.startswith('tritpack.')]) > 100, sorted(names)\n"
        "print(sorted(name for name in names if name.partition('.')[0] in ('formats', 'runtime', 'converter')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize("path", ORACLE, ids=name_of)
def test_the_oracle_shares_nothing_with_what_it_judges(path: Path) -> None:
    allowed = [
        "tritpack.converter.verify.oracle",
        "tritpack.formats.errors",
        "tritpack.formats.inputs",  # opens files, and knows nothing of what is in them
        "tritpack.formats.model_spec",
        "tritpack.formats.delta_net",
        "tritpack.formats.rope",
        "tritpack.runtime.reference",
        "tritpack.runtime.hybrid_reference",
    ]
    if "tokenizer" in path.name or "sentencepiece" in path.name:  # the library in a process of its own, and files
        allowed += ["tritpack.runtime.bounded_tokenizer", "tritpack.formats.inputs"]
    if path.name == "hybrid_config.py":  # what a rotation is; its transform is replaced by a matrix
        allowed.append("tritpack.formats.hadamard")
    if path.name == "rounding.py":  # float types are a specification of formats, and no table of FILE is trusted
        allowed.append("tritpack.formats.float_types")
    parents = {"tritpack.runtime", "tritpack.formats", "tritpack.converter.verify"}
    ours = {module for module in imported_modules(path) if module.startswith("tritpack.")}
    assert not [module for module in ours - parents if not module.startswith(tuple(allowed))]


def test_the_oracle_has_files() -> None:
    """Else the test above would check nothing."""
    assert len(ORACLE) > 5


@pytest.mark.parametrize("name", ["oracle.Oracle", "packed.PackedOracle"])
def test_the_oracle_is_given_data_and_no_function(name: str) -> None:
    """A function of the converter, handed in, would judge itself."""
    import importlib
    import inspect

    module, _, oracle = name.partition(".")
    home = importlib.import_module(f"tritpack.converter.verify.oracle.{module}")
    parameters = inspect.signature(getattr(home, oracle)).parameters
    data = {"Path", "StoredTypes", "str | None"}
    assert {parameter.annotation for parameter in parameters.values()} <= data
    rounding = importlib.import_module("tritpack.converter.verify.oracle.rounding")
    for stored in (rounding.StoredTypes, rounding.StoredScales, rounding.StoredTable):
        assert not [field for field in inspect.get_annotations(stored).values() if "Callable" in field], stored


def test_the_reference_shares_nothing_with_what_it_judges() -> None:
    reference = imported_modules(REPOSITORY / "runtime" / "reference.py")
    hidden = ("tritpack.runtime.library", "tritpack.formats.layouts", "tritpack.formats.gguf_reader")
    assert not [module for module in reference if module.startswith(hidden)]


def test_every_layout_has_the_same_interface() -> None:
    from tritpack.formats.layouts.catalog import LAYOUTS
    from tritpack.formats.layouts.layout import Layout

    for name, layout in LAYOUTS.items():
        assert name == layout.name and isinstance(layout, Layout), name

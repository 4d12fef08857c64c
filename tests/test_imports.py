"""Imports point down only: converter -> runtime -> formats. And what must stay independent stays so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FLOORS = {"formats": 0, "runtime": 1, "converter": 2}


def imported_modules(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("floor", FLOORS)
def test_no_import_points_up(floor: str) -> None:
    files = list((REPOSITORY / floor).rglob("*.py"))
    assert files
    for path in files:
        for module in imported_modules(path):
            top = module.split(".")[0]
            assert FLOORS.get(top, -1) <= FLOORS[floor], f"{path} imports {module}"


def test_the_oracle_shares_nothing_with_what_it_judges() -> None:
    paths = list((REPOSITORY / "converter" / "verify").glob("oracle*.py"))
    ours = {m for path in paths for m in imported_modules(path) if m.split(".")[0] in FLOORS}
    own = ("converter.verify.oracle",)
    allowed = ("formats.errors", "formats.model_spec", "formats.rope", "runtime.reference", "runtime", *own)
    ours.discard("converter.verify")  # the package, whose modules are named beside it
    assert all(module.startswith(allowed) for module in ours), ours
    reference = imported_modules(REPOSITORY / "runtime" / "reference.py")
    assert not any(m.startswith(("runtime.library", "formats.layouts", "formats.gguf_file")) for m in reference)


def test_layouts_have_one_face() -> None:
    from formats.layouts.catalog import LAYOUTS
    from formats.layouts.layout import Layout

    for name, layout in LAYOUTS.items():
        assert name == layout.name and isinstance(layout, Layout)

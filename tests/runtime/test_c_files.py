"""The C files call each other in one direction only, and what belongs to a layout stands in one table."""

from __future__ import annotations

import graphlib
import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tritpack.runtime.abi import LAYOUT_IDS

SOURCES = REPOSITORY / "runtime" / "csrc"


def uses_between_files(build: Path) -> dict[str, set[str]]:
    """C file -> C files whose functions or data its object uses. All kernels count as one file."""
    defined: dict[str, str] = {}
    used: dict[str, set[str]] = defaultdict(set)
    for source in sorted(SOURCES.rglob("*.c")):
        name = source.relative_to(SOURCES).with_suffix("").as_posix()
        obj = build / "runtime" / "csrc" / f"{name}.o"
        if not obj.is_file():
            continue
        node = "kernels" if name.startswith("kernels/") else name
        listing = subprocess.run(["nm", "-P", obj], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            symbol, kind = line.split()[:2]
            if kind == "U":
                used[node].add(symbol)
            elif kind in "TDRBGS":
                defined[symbol] = node
    return {node: {defined[symbol] for symbol in used[node] & defined.keys()} - {node} for node in defined.values()}


def test_c_files_form_no_cycle() -> None:
    uses = uses_between_files(REPOSITORY / os.environ.get("BUILD", "build")) if shutil.which("nm") else {}
    if not uses:
        pytest.skip("needs nm and the objects of a build in this tree")
    order = list(graphlib.TopologicalSorter(uses).static_order())  # CycleError names the files of a cycle
    assert order.index("layouts") < order.index("dispatch") < order.index("graph") < order.index("session")
    assert uses["alloc"] == uses["status"] == uses["layouts"] == set()


def test_layouts_are_one_table() -> None:
    """Every layout is a row of layouts.def, in the order of its ids."""
    rows = re.findall(r"^TP_LAYOUT\((\w+), (\w+),", (SOURCES / "include" / "layouts.def").read_text(), re.MULTILINE)
    assert [name for _, name in rows] == list(LAYOUT_IDS)
    assert [name.upper() for _, name in rows] == [identifier for identifier, _ in rows]


def test_c_lines_have_at_most_100_columns() -> None:
    """.clang-format keeps code so, and leaves comments and tables to whoever writes them."""
    files = [path for folder in (SOURCES, REPOSITORY / "tests" / "c") for path in folder.rglob("*")]
    files = [path for path in files if path.suffix in {".c", ".h", ".inc", ".def"}]
    assert len(files) > 150
    for path in files:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            assert len(line) <= 100, f"{path.name}:{number}"

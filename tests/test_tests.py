"""Tests of the tests: a failure inside a loop names its case."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("test_*.py"))


def unlabelled(source: str) -> list[int]:
    """Return the lines of assertions without a message inside a loop of a test function."""
    tests = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"
    ]
    loops = [node for test in tests for node in ast.walk(test) if isinstance(node, ast.For | ast.While)]
    asserts = [node for loop in loops for node in ast.walk(loop) if isinstance(node, ast.Assert)]
    return sorted({node.lineno for node in asserts if node.msg is None})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_assertions_in_loops_name_the_case(path: Path) -> None:
    assert unlabelled(path.read_text(encoding="utf-8")) == []


def test_an_assertion_without_a_label_is_noticed() -> None:
    loop = "def test_x():\n    for x in (1, 2):\n        assert x"
    assert unlabelled(loop) == [3]
    assert unlabelled(loop + ", x") == []

"""Values of metadata that are the same, and where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tritpack.converter.verify.compare.metadata_values import first_difference

PAIRS: dict[str, tuple[Any, Any, int | None]] = {
    "texts": (["a", "b"], ["a", "b"], None),
    "texts and a tuple": (("a", "b"), ["a", "b"], None),
    "another text": (["a", "b", "c"], ["a", "x", "y"], 1),
    "a number for a text": (["a", 1], ["a", "1"], 1),
    "fewer": (["a"], ["a", "b"], 1),
    "numbers": (np.array([1, 2], np.int32), np.array([1, 2], np.int32), None),
    "numbers of other types": (np.array([1, 2], np.int32), np.array([1, 2], np.uint64), None),
    "another number": (np.array([1, 2, 3], np.int32), np.array([1, 2, 4], np.int32), 2),
    "bools for numbers": (np.array([True, False]), np.array([1, 0], np.int32), 0),
    "a list for an array": ([1, 2], np.array([1, 2], np.int32), None),
    "not a number": (np.array([1, np.nan], np.float32), np.array([1, np.nan], np.float32), 1),
    "nested": ([["a"], ["b"]], [["a"], ["c"]], 1),
    "a text for texts": ("ab", ["a", "b"], 0),
    "float32": (0.1, float(np.float32(0.1)), None),
    "a bool for a number": (True, 1, 0),
}


@pytest.mark.parametrize("case", PAIRS)
def test_first_difference(case: str) -> None:
    value, expected, index = PAIRS[case]
    assert first_difference(value, expected) == index

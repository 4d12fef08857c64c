"""Values of the metadata as people and JSON see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tritpack.converter.inspect.summary import summary

VALUES: list[tuple[Any, Any]] = [
    (31, 31),
    (np.arange(3, dtype=np.int8), [0, 1, 2]),
    (np.arange(9, dtype=np.float32), {"length": 9, "first": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}),
    (["a", "b"], ["a", "b"]),
    ([np.array([127, 0]), np.array([5])], [[127, 0], [5]]),
    ([[np.array([1, 2])], []], [[[1, 2]], []]),
]


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=range(len(VALUES)))
def test_arrays_are_shortened(value: Any, shown: Any) -> None:
    assert summary(value) == shown

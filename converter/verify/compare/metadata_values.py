"""Compares and prints metadata values of whatever type a file gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def first_difference(value: Any, expected: Any) -> int | None:
    """None if two values are the same (floats as float32 has them); else the index of the first element in which two
    arrays differ, 0 for anything else."""
    if _is_array(value) != _is_array(expected):
        return 0
    if not _is_array(expected):
        return None if _same(value, expected) else 0
    if len(value) != len(expected):
        return min(len(value), len(expected))
    if _is_equal(value, expected):
        return None
    return next((i for i, (a, b) in enumerate(zip(value, expected)) if not _same(a, b)), None)


def same(value: Any, expected: Any) -> bool:
    return first_difference(value, expected) is None


def _is_array(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))


def _is_equal(value: Any, expected: Any) -> bool:
    """Whether two arrays of texts, or of numbers of one type, are equal: a look at each element takes long, and a
    vocabulary has some 100,000."""
    if isinstance(value, np.ndarray) and isinstance(expected, np.ndarray):
        return value.dtype == expected.dtype and np.array_equal(value, expected)
    if isinstance(value, np.ndarray) or isinstance(expected, np.ndarray):
        return False
    texts = list(expected)
    return all(type(text) is str for text in texts) and list(value) == texts


def _same(value: Any, expected: Any) -> bool:
    if _is_array(value) or _is_array(expected):
        return same(value, expected) if _is_array(value) and _is_array(expected) else False
    if isinstance(value, (bool, np.bool_)) != isinstance(expected, (bool, np.bool_)):
        return False
    if isinstance(expected, (float, np.floating)) and isinstance(value, (int, float, np.number)):
        return bool(np.float32(value) == np.float32(expected))
    return bool(value == expected)


def short(value: Any) -> str:
    """A value as Python writes it, cut to 60 characters."""
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 60 else text[:57] + "..."

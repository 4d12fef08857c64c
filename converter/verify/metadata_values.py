"""Metadata values compared and shown, whatever type a file gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def first_difference(found: Any, expected: Any) -> int | None:
    """None if two values are the same (floats as float32 has them); else the index of the first element in which two
    arrays differ, 0 for anything else."""
    if _is_array(found) != _is_array(expected):
        return 0
    if not _is_array(expected):
        return None if _same(found, expected) else 0
    if len(found) != len(expected):
        return min(len(found), len(expected))
    return next((i for i, (a, b) in enumerate(zip(found, expected)) if not _same(a, b)), None)


def same(found: Any, expected: Any) -> bool:
    return first_difference(found, expected) is None


def _is_array(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))


def _same(found: Any, expected: Any) -> bool:
    if _is_array(found) or _is_array(expected):
        return same(found, expected) if _is_array(found) and _is_array(expected) else False
    if isinstance(found, (bool, np.bool_)) != isinstance(expected, (bool, np.bool_)):
        return False
    if isinstance(expected, (float, np.floating)) and isinstance(found, (int, float, np.number)):
        return bool(np.float32(found) == np.float32(expected))
    return bool(found == expected)


def short(value: Any) -> str:
    """As Python writes it, cut."""
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def printable(text: str) -> str:
    """Without what would move a terminal's cursor, and without what no encoding takes."""
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() or char == " " else "\ufffd" for char in whole)

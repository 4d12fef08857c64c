"""How long work reports where it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of what is done now, and how much is done of how much."""


def silent(name: str, done: int, total: int) -> None:
    """Report nothing."""

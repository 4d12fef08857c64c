"""The nearest right name for a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    """Return `did you mean ...?` with the names that are nearest to a word, or None if no name is near."""
    from difflib import get_close_matches  # which only mistakes need

    nearest = get_close_matches(word.lower(), names, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(nearest)}?" if nearest else None

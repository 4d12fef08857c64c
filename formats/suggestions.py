"""The nearest right name for a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CUTOFF = 0.75
"""How alike two names must be, as difflib counts, where 1 is equal."""


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    """Return `did you mean ...?` with the names that are nearest to a word, or None if no name is near."""
    from difflib import get_close_matches  # which only mistakes need

    known = list(names)
    begun = [name for name in known if len(word) > 2 and name.startswith(word.lower())]
    nearest = begun[:2] or get_close_matches(word.lower(), known, n=2, cutoff=CUTOFF)
    return f"did you mean {' or '.join(nearest)}?" if nearest else None


def near_files(path: Path) -> str:
    """Return a hint for a path that does not exist: its folder does not, or the files whose names are nearest."""
    folder = path.parent
    try:
        if not folder.is_dir():
            return f"there is no folder {folder}"
        names = [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):
        names = []
    return did_you_mean(path.name, names) or f"no file in {folder} is called so; ORG/NAME names a repository on the Hub"

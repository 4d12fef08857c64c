"""The nearest right name for a mistyped one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

CUTOFF = 0.75
"""How alike two names must be, as difflib counts, where 1 is equal."""
SHORTEST = 4
"""Letters of a name that a longer word may begin with, as --temperature does with --temp."""
FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,10}")
"""The end of a file's name; `.58-2B-4T` is that of a model."""


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    """Return `did you mean ...?` with the names that are nearest to a word, or None if no name is near."""
    from difflib import get_close_matches  # which only mistakes need

    known = list(names)
    begun = [name for name in known if len(word) > 2 and name.startswith(word.lower())]
    nearest = begun[:2] or get_close_matches(word.lower(), known, n=2, cutoff=CUTOFF) or _beginnings(word, known)
    return f"did you mean {' or '.join(nearest)}?" if nearest else None


def _beginnings(word: str, names: Iterable[str]) -> list[str]:
    """Return the longest name that a word begins with, or []."""
    begins = [name for name in names if len(name.lstrip("-")) >= SHORTEST and word.lower().startswith(name)]
    return sorted(begins, key=len)[-1:]


def near_files(path: Path) -> str:
    """Return a hint for a path that does not exist: its folder does not, or the files whose names are nearest."""
    folder = path.parent
    try:
        if not folder.is_dir():
            return f"there is no folder {folder}"
        names = [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):
        names = []
    absent = f"no file in {folder} is called so"
    if not path.is_absolute() and not FILE_SUFFIX.fullmatch(path.suffix):
        absent += "; ORG/NAME names a repository on the Hub"
    return did_you_mean(path.name, names) or absent

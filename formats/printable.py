"""Text of others on a terminal."""

from __future__ import annotations


def printable(text: str, *, lines: bool = False) -> str:
    """Return the text with escapes for what would move a terminal's cursor or cannot be encoded. lines: ends of lines
    and tabs stay."""
    keep = " \n\t" if lines else " "
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)

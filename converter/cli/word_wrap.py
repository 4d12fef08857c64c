"""Text that comes piece by piece, broken between words at the width of a terminal."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable

FENCE = "```"
"""The mark of a block of code in Markdown; its lines stay as they are."""


class WordWrap:
    """A writer that keeps a word back until it is whole. write: gets what can be shown. width: of the terminal, in
    columns; None asks for it."""

    def __init__(self, write: Callable[[str], object], width: int | None = None) -> None:
        self._write = write
        self._width = width or terminal_width()
        self._column = 0
        self._word = ""
        self._line = ""
        self._is_code = False

    def feed(self, text: str) -> None:
        """Take the next piece of the text."""
        for char in text:
            if char == "\n":
                self._end_word()
                self._write("\n")
                self._is_code ^= self._line.lstrip().startswith(FENCE)
                self._column, self._line = 0, ""
            elif char in " \t":
                self._end_word()
                self._show(char if self._column < self._width or self._is_code else "\n")
            else:
                self._word += shown_char(char)
                if columns(self._word) >= self._width:
                    self._end_word()

    def finish(self) -> None:
        """Show the last word."""
        self._end_word()

    def _end_word(self) -> None:
        if self._word and self._column > 0 and self._column + columns(self._word) > self._width and not self._is_code:
            self._write("\n")
            self._column = 0
        word, self._word = self._word, ""
        self._show(word)

    def _show(self, text: str) -> None:
        if text:
            self._write(text)
            self._column = 0 if text == "\n" else self._column + columns(text)
            self._line += text


def terminal_width() -> int:
    """Return the columns of the terminal, 80 where there is none."""
    return shutil.get_terminal_size().columns


def columns(text: str) -> int:
    """Return how many columns a text takes on a terminal: two for a wide character, none for a combining one."""
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def shown_char(char: str) -> str:
    """Return a character of a model's text, escaped if it would control the terminal."""
    return ascii(char)[1:-1] if unicodedata.category(char) == "Cc" and char not in "\n\t" else char

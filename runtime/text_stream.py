"""Text out of tokens as they come: it never shows half a character, nor the beginning of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Utf8Stream:
    """Decoder of bytes that arrive in pieces: it holds back an unfinished character until its last byte has come."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        """The text that `data` completes. Bytes that can no longer become a character are U+FFFD at once."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """The rest: U+FFFD for an unfinished character, otherwise nothing."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Filter that holds text back while it could still be the beginning of a stop string."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [string for string in strings if string]
        self._held = ""

    def feed(self, text: str, last: bool = False) -> tuple[str, str | None]:
        """(text to show, the stop string that was met, if any). That string and everything after it are dropped."""
        self._held += text
        met = [(place, string) for string in self._strings if (place := self._held.find(string)) >= 0]
        if met:
            place, string = min(met, key=lambda each: each[0])
            return self._held[:place], string
        keep = 0
        if not last:
            for string in self._strings:
                for length in range(min(len(string) - 1, len(self._held)), keep, -1):
                    if self._held.endswith(string[:length]):
                        keep = length
                        break
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown, None

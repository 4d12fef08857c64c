"""Lines for `chat`: from a terminal with editing and history, or from a pipe.

Editing is the readline module of Python's standard library, and not prompt_toolkit: it needs no package, it has what a
prompt of one question needs (its Unix versions take a pasted text of many lines as one, too), and a Python without it
still reads lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tritpack.formats.errors import Unreadable, UsageError
from tritpack.formats.inputs import STDIN

LONGEST_LINE = 16 << 20
"""Bytes: a line without an end is not waited for."""
MOST_HISTORY = 1000
PROMPT, CONTINUATION = "> ", ". "
PASTE_SECONDS = 0.02
"""A line that follows so soon was pasted, and belongs to the same question."""


class LineReader:
    """The questions of a user, one after the other.

    interactive: whether a terminal is on both sides. words: that the tab key completes at the beginning of a line.
    history: whether lines of earlier chats are remembered.
    """

    def __init__(self, words: Sequence[str] = (), *, history: bool = True) -> None:
        self.interactive = bool(sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty())
        self._history = history_path() if self.interactive and history else None
        self._readline = _readline(words) if self.interactive else None
        if self._readline is not None:
            self._remember_earlier(self._readline)

    def read(self) -> str | None:
        """Return the next question without the end of its line, None at the end of input.

        Raises UsageError for a line that is not text, Unreadable for one without an end, KeyboardInterrupt.
        """
        if not self.interactive:
            line = read_line()
            return decoded(line) if line else None
        try:
            text = input(PROMPT)
            while text.endswith("\\"):
                text = f"{text[:-1]}\n{input(CONTINUATION)}"
            while _is_waiting():
                text += "\n" + input()
        except EOFError:
            print()
            return None
        except UnicodeDecodeError as error:
            raise UsageError(f"the line is not {sys.stdin.encoding.upper()} text: {error}") from error
        self._remember(text)
        return text.strip()

    def _remember(self, text: str) -> None:
        if self._readline is None or not text.strip():
            return
        self._readline.add_history(text)
        if self._history is not None:
            with contextlib.suppress(OSError), open(self._history, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(text) + "\n")

    def _remember_earlier(self, readline: ModuleType) -> None:
        """Give readline the lines of earlier chats, and keep their file short and private."""
        if self._history is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._history.parent.mkdir(parents=True, exist_ok=True)
            self._history.touch(mode=0o600)
            lines = self._history.read_text("utf-8").splitlines()
            for line in lines[-MOST_HISTORY:]:
                readline.add_history(str(json.loads(line)))
            if len(lines) > 2 * MOST_HISTORY:
                self._history.write_text("\n".join(lines[-MOST_HISTORY:]) + "\n", "utf-8")


def history_path() -> Path | None:
    """Return the file of earlier lines, by the XDG convention; None for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(state).expanduser() / "tritpack" / "chat_history"
    except RuntimeError:
        return None


def read_line() -> bytes:
    """Return the next line of stdin without its end, empty at the end of input. Raises Unreadable."""
    if sys.stdin is None:
        return b""
    if sys.stdin.isatty():
        print(PROMPT, end="", file=sys.stderr, flush=True)
    line = sys.stdin.buffer.readline(LONGEST_LINE + 1)
    if len(line) > LONGEST_LINE:
        raise Unreadable(f"has a line of more than {LONGEST_LINE >> 20} MiB", path=STDIN)
    return line.strip()


def decoded(line: bytes) -> str:
    """Return a line as text. Raises UsageError."""
    try:
        return line.decode(sys.stdin.encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"the line is not {sys.stdin.encoding.upper()} text: {error}") from error


def _readline(words: Sequence[str]) -> ModuleType | None:
    """The readline module, which `input` uses once it is imported; None where Python lacks it."""
    try:
        import readline
    except ImportError:
        return None

    def complete(text: str, state: int) -> str | None:
        matches = [word for word in words if word.startswith(text)] if text.startswith("/") else []
        return matches[state] + " " if state < len(matches) else None

    readline.set_auto_history(False)
    readline.set_completer(complete)
    readline.set_completer_delims(" \n")
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
    if not is_libedit:
        readline.parse_and_bind("set enable-bracketed-paste on")
    return readline


def _is_waiting() -> bool:
    """Whether the terminal holds another line already."""
    try:
        return bool(select.select([sys.stdin], [], [], PASTE_SECONDS)[0])
    except (OSError, ValueError):  # Windows selects sockets only
        return False

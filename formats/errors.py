"""Every error a user can meet, with the one table of exit codes.

Lives on the lowest floor because a byte reader, a kernel loader and a command all have to fail in the same words:
one sentence (the file, the tensor, what was expected and what was found), then an optional hint.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the process ends with. Documented in README.md; a test keeps the two equal."""

    GOOD = 0
    CHECK_FAILED = 1
    USAGE = 2
    UNREADABLE = 3
    UNSUPPORTED = 4
    WRITE_FAILED = 5
    INTEGRITY = 6
    MISSING = 7


class TritpackError(Exception):
    """A failure with a sentence for the user; `hint` says what to do about it."""

    exit_code: ExitCode = ExitCode.CHECK_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailed(TritpackError):
    """A check ran and found the file wrong."""

    exit_code = ExitCode.CHECK_FAILED


class UsageError(TritpackError):
    """The call itself is wrong: an impossible option, an output that exists."""

    exit_code = ExitCode.USAGE


class Unreadable(TritpackError):
    """Input that is missing, truncated, corrupt or hostile."""

    exit_code = ExitCode.UNREADABLE


class Unsupported(TritpackError):
    """A well-formed model or layout that we do not (or must not) handle."""

    exit_code = ExitCode.UNSUPPORTED


class WriteFailed(TritpackError):
    """The output could not be written completely; nothing was left under its name."""

    exit_code = ExitCode.WRITE_FAILED


class IntegrityFailed(TritpackError):
    """A hash or manifest does not match."""

    exit_code = ExitCode.INTEGRITY


class MissingRequirement(TritpackError):
    """Something is not installed, not built, or not on this CPU."""

    exit_code = ExitCode.MISSING

"""Every error that a user can meet. Each class has the exit code (names.ExitCode) that the process ends with.

An error carries its parts: what is wrong (`message`), the file (`path`), the tensor, and a hint. They become one
sentence in `__str__` and nowhere else, so no code has to look at words to learn what they mean.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tritpack.formats.names import ExitCode


class TritpackError(Exception):
    """A failure with a sentence for the user.

    message: what was expected and what was found. path: the file that is wrong. tensor: its tensor.
    hint: what to do about it.
    """

    exit_code: ExitCode = ExitCode.CHECK_FAILED

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        tensor: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.tensor = tensor
        self.hint = hint

    def __str__(self) -> str:
        """`PATH: tensor 'NAME': MESSAGE`, as far as these are known."""
        path = [] if self.path is None else [os.fspath(self.path)]
        return ": ".join([*path, self.without_path])

    @property
    def without_path(self) -> str:
        """The sentence for where the file is named already."""
        return self.message if self.tensor is None else f"tensor {self.tensor!r}: {self.message}"


@contextlib.contextmanager
def locating(*, path: str | os.PathLike[str] | None = None, tensor: str | None = None) -> Iterator[None]:
    """Give the errors that leave the block the path and the tensor, if they do not name one themselves."""
    try:
        yield
    except TritpackError as error:
        error.path = path if error.path is None else error.path
        error.tensor = tensor if error.tensor is None else error.tensor
        raise


class CheckFailed(TritpackError):
    """A check ran and found the file wrong."""

    exit_code = ExitCode.CHECK_FAILED


class UsageError(TritpackError):
    """The call itself is wrong: an impossible option, an output that exists."""

    exit_code = ExitCode.USAGE


class Unreadable(TritpackError):
    """The input is missing, truncated, corrupt or hostile."""

    exit_code = ExitCode.UNREADABLE


class Unsupported(TritpackError):
    """The model or layout is well formed, and tritpack does not (or must not) handle it."""

    exit_code = ExitCode.UNSUPPORTED


class WriteFailed(TritpackError):
    """The output could not be written completely; nothing was left under its name."""

    exit_code = ExitCode.WRITE_FAILED


class IntegrityFailed(TritpackError):
    """A file does not have the hash that the Hub, an attestation or a manifest gives it."""

    exit_code = ExitCode.INTEGRITY


class NetworkTrouble(TritpackError):
    """The network or the Hub did not answer, or not as it should. The same call may succeed later."""

    exit_code = ExitCode.NETWORK


class MissingRequirement(TritpackError):
    """Something is not installed, not built, or not on this CPU."""

    exit_code = ExitCode.MISSING

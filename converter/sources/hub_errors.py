"""What can go wrong with the Hub: what passes and is tried again, and what is reported, in one sentence.

The client changed its HTTP library twice, so errors are known by the names of their classes, which stayed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

from tritpack.formats.errors import IntegrityFailed, NetworkTrouble, TritpackError, Unreadable, WriteFailed

Result = TypeVar("Result")

PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP statuses after which it is worth trying again."""
PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds between tries."""
LONGEST = 20.0
"""Seconds after which a Hub that answers slowly and with errors is not asked again."""
LOGIN = "set HF_TOKEN, or run `hf auth login`"
AGAIN = "try again later; a cut transfer continues where it stopped"


class NoSuchRepository(Unreadable):
    """The Hub has no repository of that name, or does not show it."""


def persist(action: Callable[[], Result], *, tries: int = 6, unless: Collection[str] = ()) -> Result:
    """Return the result of action, which is tried again while it fails for a reason that passes, for LONGEST seconds.

    unless: names of error classes after which it is not tried again.
    """
    started = time.monotonic()
    for pause in PAUSES[: tries - 1]:
        try:
            return action()
        except Exception as error:
            if not passes(error) or kinds_of(error) & {*unless} or time.monotonic() - started > LONGEST:
                raise
            time.sleep(pause)
    return action()  # the error of the last try is the caller's


def wait(error: Exception, failures: int) -> None:
    """Wait before another try, after so many failures in a row.

    Raises the error if it does not pass, or if there were too many.
    """
    if not passes(error) or failures > len(PAUSES):
        raise error
    time.sleep(PAUSES[failures - 1])


def kinds_of(error: BaseException) -> set[str]:
    """Return the names of the error's classes."""
    return {kind.__name__ for kind in type(error).__mro__}


def status_of(error: BaseException) -> int:
    """Return the HTTP status that the error carries, or 0."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def passes(error: BaseException) -> bool:
    """Return whether trying again may help."""
    kinds = kinds_of(error)
    cut = "OfflineModeIsEnabled" not in kinds and not kinds.isdisjoint({"TransportError", "ConnectionError"})
    return cut or status_of(error) in PASSING


@contextlib.contextmanager
def explained(repo: str, revision: str) -> Iterator[None]:
    """Let errors of the client leave the block as ours, and ours with the name of the repository."""
    try:
        yield
    except TritpackError as error:
        error.path = repo if error.path is None else error.path
        raise
    except Exception as error:
        raise explain(error, repo, revision) from error


def explain(error: BaseException, repo: str, revision: str) -> TritpackError:
    """Return an error of the client as one of ours: one sentence, a hint, and the class for its exit code."""
    from huggingface_hub import constants

    if error.__cause__ is not None and (type(error) is RuntimeError or "LocalEntryNotFoundError" in kinds_of(error)):
        return explain(error.__cause__, repo, revision)  # the client wraps errors of downloads and of uploads
    host = urlsplit(constants.ENDPOINT).hostname or "HF_ENDPOINT"
    if isinstance(error, OSError) and error.errno is not None and not status_of(error) and not passes(error):
        return WriteFailed(
            f"the cache cannot be written: {error.filename or constants.HF_HUB_CACHE}: {error.strerror}",
            path=repo,
            hint="let HF_HOME name a folder with space that can be written; a cut download continues where it stopped",
        )
    reason = _reason(error)
    if "Consistency check failed" in reason:  # the client has no class for it
        return IntegrityFailed(f"a file does not have the size that {host} announced", path=repo, hint="run this again")
    return _explain_access(error, repo, revision, host) or _explain_answer(error, repo, host)


def _reason(error: BaseException) -> str:
    """The first line of the client's message, without the token, which a message about a header quotes."""
    from huggingface_hub import get_token

    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return (reason.replace(token, "***") if (token := get_token()) else reason)[:200]


def _explain_access(error: BaseException, repo: str, revision: str, host: str) -> TritpackError | None:
    """Return the error if the repository or its revision cannot be had, else None."""
    kinds, status = kinds_of(error), status_of(error)
    if "GatedRepoError" in kinds:
        hint = f"accept its licence on its page; {LOGIN}"
        return Unreadable(f"is gated, and {host} granted no access", path=repo, hint=hint)
    if "RevisionNotFoundError" in kinds:
        hint = "give a branch, a tag or a full commit hash"
        return Unreadable(f"has no revision {revision!r}", path=repo, hint=hint)
    if "RepositoryNotFoundError" in kinds or (status == 404 and "EntryNotFoundError" not in kinds):
        hint = f"check the spelling; without a token a private one looks missing: {LOGIN}"
        return NoSuchRepository(f"{host} has no such repository, or it is private", path=repo, hint=hint)
    if "OfflineModeIsEnabled" in kinds:
        hint = "unset HF_HUB_OFFLINE, or fetch it once while it is unset"
        message = f"revision {revision!r} is not complete in the cache, and offline mode is on"
        return Unreadable(message, path=repo, hint=hint)
    return None


def _explain_answer(error: BaseException, repo: str, host: str) -> TritpackError:
    """Return the error for an answer that is not what a Hub should give, or for none at all."""
    status, reason = status_of(error), _reason(error)
    if status in (401, 403):
        return Unreadable(f"{host} refused access (HTTP {status})", path=repo, hint=f"check the token: {LOGIN}")
    if status == 429:
        sentence, hint = f"{host} asks for fewer requests (HTTP 429)", f"{AGAIN}; with a token more are allowed"
    elif status:
        sentence = f"{host} answered HTTP {status}"
        hint = AGAIN if status in PASSING else "check HF_ENDPOINT and the proxy"
    elif passes(error):
        sentence, hint = f"the connection to {host} failed: {reason}", f"check network, proxy, HF_ENDPOINT; {AGAIN}"
    else:
        sentence, hint = f"{host} does not answer as a Hub does: {reason}", "check HF_ENDPOINT and the proxy"
    return NetworkTrouble(sentence, path=repo, hint=hint)

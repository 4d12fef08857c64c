"""What can go wrong with the Hub: what passes and is tried again, and what is told, in one sentence with its exit code.

The client changed its HTTP library twice; errors are known by the names of their classes, which stayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar
from urllib.parse import urlsplit

from tritpack.formats.errors import IntegrityFailed, TritpackError, Unreadable, WriteFailed

Result = TypeVar("Result")

PASSING = (408, 429, 500, 502, 503, 504)
PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # seconds between tries


def persist(action: Callable[[], Result], *, tries: int = 6, unless: Collection[str] = ()) -> Result:
    """Try again, a bounded number of times, what failed for a reason that passes."""
    for pause in PAUSES[: tries - 1]:
        try:
            return action()
        except Exception as error:
            if not passes(error) or kinds_of(error) & {*unless}:
                raise
            time.sleep(pause)
    return action()  # the last try speaks for itself


def kinds_of(error: BaseException) -> set[str]:
    """Names of the error's classes: the client changed its HTTP library twice, these names stayed."""
    return {kind.__name__ for kind in type(error).__mro__}


def status_of(error: BaseException) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def passes(error: BaseException) -> bool:
    kinds = kinds_of(error)
    cut = "OfflineModeIsEnabled" not in kinds and not kinds.isdisjoint({"TransportError", "ConnectionError"})
    return cut or status_of(error) in PASSING


def in_words(error: BaseException, repo: str, revision: str) -> TritpackError:
    """What went wrong as one sentence, with the exit code it deserves."""
    from huggingface_hub import constants

    if "LocalEntryNotFoundError" in kinds_of(error) and error.__cause__ is not None:
        return in_words(error.__cause__, repo, revision)
    kinds, status, host = kinds_of(error), status_of(error), urlsplit(constants.ENDPOINT).hostname or "HF_ENDPOINT"
    reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    login = "set HF_TOKEN, or run `hf auth login`"
    again = "try again later; what was fetched is kept, and a cut file goes on where it stopped"
    if isinstance(error, OSError) and error.errno is not None and not status and not passes(error):
        return WriteFailed(
            f"{repo}: the cache cannot be written: {error.filename or constants.HF_HUB_CACHE}: {error.strerror}",
            hint="free some space, or let HF_HOME name another disk; a cut file goes on where it stopped",
        )
    if "Consistency check failed" in reason:
        return IntegrityFailed(f"{repo}: a file has not the size that {host} announced", hint="run this again")
    cases: list[tuple[object, str, str]] = [
        (
            "GatedRepoError" in kinds,
            f"is gated, and {host} granted no access",
            f"accept its licence on its page; {login}",
        ),
        (
            "RevisionNotFoundError" in kinds,
            f"has no revision {revision!r}",
            "give a branch, a tag or a full commit hash",
        ),
        (
            "RepositoryNotFoundError" in kinds or (status == 404 and "EntryNotFoundError" not in kinds),
            f"{host} has no such repository, or it is private",
            f"check the spelling; without a token a private one looks missing: {login}",
        ),
        (
            "OfflineModeIsEnabled" in kinds,
            f"revision {revision!r} is not complete in the cache, and offline mode is on",
            "unset HF_HUB_OFFLINE, or fetch it once while it is unset",
        ),
        (status in (401, 403), f"{host} refused access (HTTP {status})", f"check the token: {login}"),
        (status == 429, f"{host} asks for fewer requests (HTTP 429)", f"{again}; with a token more are allowed"),
        (status, f"{host} answered HTTP {status}", again if status in PASSING else "check HF_ENDPOINT and the proxy"),
        (passes(error), f"the connection to {host} failed: {reason}", f"check network, proxy, HF_ENDPOINT; {again}"),
        (True, f"{host} does not answer as a Hub does: {reason}", "check HF_ENDPOINT and the proxy"),
    ]
    sentence, hint = next((sentence, hint) for holds, sentence, hint in cases if holds)
    return Unreadable(f"{repo}: {sentence}", hint=hint)

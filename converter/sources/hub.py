"""The Hub as a source, through huggingface_hub: references to repositories, downloads, and what stays there.

Only the files that a conversion reads are asked for (hub_choice.py). hub_repository.py sends the requests, hub_cache.py
keeps what is downloaded, hub_file.py reads what is not. What is tried again, and what each error of the client means,
is in hub_errors.py. Nothing that a repository holds is run or unpickled.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.parse import unquote

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.hub_cache import HubCache
from tritpack.converter.sources.hub_choice import Choice, choose
from tritpack.converter.sources.hub_errors import explained, kinds_of, passes
from tritpack.converter.sources.hub_repository import Repository
from tritpack.converter.sources.remote_checkpoint import RemoteCheckpoint
from tritpack.formats.errors import MissingRequirement, NetworkTrouble, Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile

PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
REPO = re.compile(rf"(?!.*(?:--|\.\.|\.git$|\.gguf$|\.safetensors$)){PART}/{PART}")
REVISION = re.compile(r"(?!.*(?:\.\.|//|/$))[A-Za-z0-9_][A-Za-z0-9_./+-]*")
LARGEST_TEXT = 8 << 20
"""Bytes of a README or a licence."""
DATA = (".json", ".model", ".txt", ".jinja")
"""How files end that a conversion needs."""
PAGE = re.compile(r"https://(?:huggingface|hf)\.co/([^/]+/[^/]+?)(?:/tree/(.+?))?/?")


def parse_reference(text: str) -> tuple[str, str | None] | None:
    """Return (repo, revision) of `ORG/NAME`, `ORG/NAME@REVISION`, either after `hf:`, or the address of a repository's
    page; None for everything else."""
    revision: str | None
    if page := PAGE.fullmatch(text):
        repo, revision = page[1], unquote(page[2]) if page[2] else None
    else:
        repo, at, rest = re.sub("^hf:(//)?", "", text).partition("@")
        revision = rest if at else None
    return None if text.endswith((".gguf", ".safetensors")) or not _legal(repo, revision) else (repo, revision)


def _legal(repo: str, revision: str | None) -> bool:
    return REPO.fullmatch(repo) is not None and (revision is None or REVISION.fullmatch(revision) is not None)


def download(repo: str, revision: str | None = None, *, progress: bool = False) -> Path:
    """Fetch what a conversion of ORG/NAME reads and return its local folder, or the path of its one GGUF.

    Files in the cache are not fetched again, but compared with their hashes again. Without a network, only the cache is
    used. Raises Unreadable (missing, gated), NetworkTrouble, Unsupported (pickles, several .gguf), IntegrityFailed,
    WriteFailed, UsageError, MissingRequirement.
    """
    cache = _cache(repo, revision, progress)
    with explained(repo, cache.repository.revision):
        return _ask(cache) or _downloaded(cache)


def open_remote(repo: str, revision: str | None = None, *, progress: bool = False) -> CheckpointFolder | GgufFile:
    """Open ORG/NAME without its weights: they stay on the Hub, and are read by range requests.

    Without a network the cache is used, as by `download`. A repository of one GGUF is downloaded. Raises the same
    as `download`.
    """
    cache = _cache(repo, revision, progress)
    with explained(repo, cache.repository.revision):
        if path := _ask(cache):
            return GgufFile(path) if path.is_file() else CheckpointFolder(path)
        choice = choose(repo, cache.repository.files, cache.fetch)
        if choice.gguf is not None:
            return GgufFile(_downloaded(cache))
        for name in _small_files(cache, choice):
            cache.fetch(name)
        return RemoteCheckpoint(cache.repository, cache.folder, choice.weights)


def _cache(repo: str, revision: str | None, progress: bool) -> HubCache:
    if not _legal(repo, revision):
        raise UsageError(f"{repo!r} at revision {revision!r} cannot be on the Hub", hint="write ORG/NAME@REVISION")
    try:
        from huggingface_hub import constants
    except ImportError as error:
        hint = "pip install huggingface_hub"
        raise MissingRequirement("fetching it needs huggingface_hub", path=repo, hint=hint) from error
    except ValueError as error:  # it reads its environment while it is imported
        raise UsageError(
            f"huggingface_hub does not accept its HF_* variables: {error}", hint="see HF_ENDPOINT"
        ) from error
    return HubCache(Repository(repo, revision or constants.DEFAULT_REVISION), progress)


def _ask(cache: HubCache) -> Path | None:
    """Ask the Hub for the list of files, and return None; where it has no answer, what an earlier run left."""
    try:
        cache.repository.ask()
        return None
    except Exception as error:
        trouble = passes(error) or isinstance(error, NetworkTrouble)
        if not (trouble or "OfflineModeIsEnabled" in kinds_of(error)):
            raise
        path = _from_cache(cache, error)
        if trouble:
            message = "%s: no answer; commit %s of the cache is used"
            logging.getLogger(__name__).warning(message, cache.repository.repo, cache.repository.commit)
        return path


def _downloaded(cache: HubCache) -> Path:
    choice = choose(cache.repository.repo, cache.repository.files, cache.fetch)
    paths = [cache.fetch(name) for name in (*_small_files(cache, choice), *choice.weights)]
    cache.remember()
    return cache.folder if choice.gguf is None else paths[0]


def _small_files(cache: HubCache, choice: Choice) -> list[str]:
    """Return the small files of a choice; a text for people that nobody can read is not worth an error."""
    sizes = {name: file.size or 0 for name, file in cache.repository.files.items()}
    return [name for name in choice.small if name.endswith(DATA) or sizes[name] <= LARGEST_TEXT]


def _from_cache(cache: HubCache, reason: Exception) -> Path:
    """Return the same files as an earlier run left them. Raises `reason` if they are not all there."""
    try:
        choice = choose(cache.repository.repo, cache.recall(), cache.check)
    except (Unreadable, Unsupported):
        raise reason from None
    paths = [cache.check(name) for name in (*choice.small, *choice.weights)]
    return cache.folder if choice.gguf is None else paths[0]

"""The Hub as a source, through huggingface_hub: references to repositories, downloads, and what stays there.

Only the files that a conversion reads are asked for (hub_choice.py). hub_repository.py sends the requests, hub_cache.py
keeps what is downloaded, hub_file.py reads what is not. What is tried again, and what each error of the client means,
is in hub_errors.py. Nothing that a repository holds is run or unpickled.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from urllib.parse import unquote

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.hub_cache import HubCache
from tritpack.converter.sources.hub_choice import Choice, choose
from tritpack.converter.sources.hub_errors import explained, kinds_of, passes
from tritpack.converter.sources.hub_file import RemoteFile
from tritpack.converter.sources.hub_repository import Repository
from tritpack.converter.sources.remote_checkpoint import RemoteCheckpoint
from tritpack.formats.errors import MissingRequirement, NetworkTrouble, Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.split_files import first_part_of, parts_of_set
from tritpack.formats.suggestions import did_you_mean

PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
REPO = re.compile(rf"(?!.*(?:--|\.\.|\.git$|\.gguf$|\.safetensors$)){PART}/{PART}")
REVISION = re.compile(r"(?!.*(?:\.\.|//|/$))[A-Za-z0-9_][A-Za-z0-9_./+-]*")
LARGEST_TEXT = 8 << 20
"""Bytes of a README or a licence."""
DATA = (".json", ".model", ".txt", ".jinja")
"""How files end that a conversion needs."""
WEIGHTS = (".gguf", ".safetensors")
FILE = re.compile(rf"(?:hf:(?://)?)?({PART}/{PART})(?:@([^/@]+))?/([\w./ +-]+)")
FILE_PAGE = re.compile(r"/([^/]+/[^/]+)/(?:resolve|blob|raw)/([^/]+)/([^?#]+)(?:[?#].*)?")
"""What follows the address of the Hub in that of a file."""
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


def parse_file(text: str) -> tuple[str, str | None, str] | None:
    """Return (repo, revision, name) of a weight file `ORG/NAME[@REVISION]/FILE`, also after `hf:`, or of the address of
    a file on the Hub; None for everything else."""
    match = FILE.fullmatch(text)
    hosts = ("https://huggingface.co", "https://hf.co", os.environ.get("HF_ENDPOINT", "").rstrip("/"))
    for host in filter(None, hosts):
        match = match or (FILE_PAGE.fullmatch(text, len(host)) if text.startswith(f"{host}/") else None)
    if match is None:
        return None
    repo, revision, name = match[1], match[2] and unquote(match[2]), unquote(match[3])
    legal = name.endswith(WEIGHTS) and ".." not in name.split("/") and _legal(repo, revision)
    return (repo, revision, name) if legal else None


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
        opened = _headers(cache)
        if isinstance(opened, list):
            return GgufFile(_downloaded(cache))
        return GgufFile(opened) if isinstance(opened, Path) else opened


def open_parts(repo: str, revision: str | None, name: str) -> Path | list[RemoteFile]:
    """Open a weight file of ORG/NAME where it is, and the others of its split set, the first part first.

    Returns the path of a file that is in the cache. Raises the same as `download`.
    """
    cache = _cache(repo, revision, progress=False)
    with explained(repo, cache.repository.revision):
        try:
            cache.repository.ask()
        except Exception as error:
            if not (passes(error) or isinstance(error, NetworkTrouble) or "OfflineModeIsEnabled" in kinds_of(error)):
                raise
            if name not in cache.recall():
                raise
        if (path := cache.folder / name).is_file():
            return path
        folder, slash, last = name.rpartition("/")
        names = [folder + slash + part for part in parts_of_set(last) or [last]]
        files = cache.repository.files
        if name not in files:
            raise Unreadable(f"has no file {name}", path=repo, hint=did_you_mean(name, files))
        if first_part_of(last) != last or any(part not in files for part in names):
            names = [name]
        return [RemoteFile(cache.repository, part) for part in names]


def download_file(repo: str, revision: str | None, name: str) -> Path:
    """Fetch a weight file of ORG/NAME, and the others of its split set; return its path. Raises as `download`."""
    opened = open_parts(repo, revision, name)
    if isinstance(opened, Path):
        return opened
    cache = HubCache(opened[0].repository, progress=True)
    with explained(repo, cache.repository.revision):
        paths = [cache.fetch(file.listed.name) for file in opened]
        cache.remember()
    return paths[0]


def open_headers(repo: str, revision: str | None = None) -> CheckpointFolder | Path | list[RemoteFile]:
    """Open ORG/NAME without its weights, as `open_remote`; of a repository of one GGUF, return its files, which stay on
    the Hub, or the path of one that is in the cache. Raises the same as `download`."""
    cache = _cache(repo, revision, progress=False)
    with explained(repo, cache.repository.revision):
        opened = _headers(cache)
        if isinstance(opened, list) and (path := cache.folder / opened[0].listed.name).is_file():
            return path
        return opened


def _headers(cache: HubCache) -> CheckpointFolder | Path | list[RemoteFile]:
    """Open a repository without its weights, or the files of its one GGUF; without a network, what the cache has."""
    if path := _ask(cache):
        return path if path.is_file() else CheckpointFolder(path)
    choice = choose(cache.repository.repo, cache.repository.files, cache.fetch)
    if choice.gguf is not None:
        return [RemoteFile(cache.repository, name) for name in choice.weights]
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

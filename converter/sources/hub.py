"""The Hub as a source, through huggingface_hub: one repository at one revision, only the files that a conversion reads.

The client's rules (HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE), its requests and its cache are kept. Three things
that it does not do are done here. Since version 2.0 it discards a cut download, so files are written to `.incomplete`
here and continue where they stopped, in this run or the next. It does not bound what a server sends, or how slowly. And
it does not compare files with their hashes, so every file is compared here. What is tried again, and what each error of
the client means, is in hub_errors.py. Nothing that a repository holds is run or unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from tritpack.converter.sources.checkpoint import INDEX, refuse_adapter
from tritpack.converter.sources.hub_errors import explain, kinds_of, passes, persist
from tritpack.converter.sources.hub_transfer import LARGEST_LISTING, PATIENCE, pieces_of, read_bounded, within
from tritpack.converter.version import VERSION
from tritpack.formats.errors import (
    IntegrityFailed,
    MissingRequirement,
    NetworkTrouble,
    TritpackError,
    Unreadable,
    Unsupported,
    UsageError,
    WriteFailed,
)
from tritpack.formats.inputs import LARGEST_DOCUMENT

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
REPO = re.compile(rf"(?!.*(?:--|\.\.|\.git$|\.gguf$|\.safetensors$)){PART}/{PART}")
REVISION = re.compile(r"(?!.*(?:\.\.|//|/$))[A-Za-z0-9_][A-Za-z0-9_./+-]*")
PAGE = re.compile(r"https://(?:huggingface|hf)\.co/([^/]+/[^/]+?)(?:/tree/(.+?))?/?")
SMALL_FILES = re.compile(
    r"(generation_)?config\.json|tokenizer(_config)?\.json|tokenizer\.model|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|merges\.txt|chat_template\.(jinja|json)|additional_chat_templates/[\w.-]+\.jinja"
    r"|modules\.json|\d+_\w+/config\.json",
    re.ASCII,
)
MOST_FILES = 1000
"""Files of one conversion; the largest models have fewer than 200 parts."""
HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")


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
    """Fetch what a conversion of ORG/NAME reads and return its local folder, or the path of its one .gguf file.

    Files in the cache are not fetched again, but compared with their hashes again. Without a network, only the cache is
    used. Raises Unreadable (missing, gated), NetworkTrouble, Unsupported (pickles, several .gguf), IntegrityFailed,
    WriteFailed, UsageError, MissingRequirement.
    """
    if not _legal(repo, revision):
        raise UsageError(f"{repo!r} at revision {revision!r} cannot be on the Hub", hint="write ORG/NAME@REVISION")
    try:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name
    except ImportError as error:
        hint = "pip install huggingface_hub"
        raise MissingRequirement("fetching it needs huggingface_hub", path=repo, hint=hint) from error
    except ValueError as error:  # it reads its environment while it is imported
        raise UsageError(
            f"huggingface_hub does not accept its HF_* variables: {error}", hint="see HF_ENDPOINT"
        ) from error
    storage = Path(constants.HF_HUB_CACHE).expanduser().resolve() / repo_folder_name(repo_id=repo, repo_type="model")
    source = _Repository(repo, revision or constants.DEFAULT_REVISION, storage, progress and sys.stderr.isatty())
    try:
        try:
            source.ask()
        except Exception as error:
            if not (_is_trouble(error) or "OfflineModeIsEnabled" in kinds_of(error)):
                raise
            return source.from_cache(error)
        path = _take(repo, source.files, source.fetch, source.folder)
        source.remember()
        return path
    except TritpackError as error:
        error.path = repo if error.path is None else error.path
        raise
    except Exception as error:
        raise explain(error, repo, source.revision) from error


def _is_trouble(error: BaseException) -> bool:
    """Return whether the Hub failed in a way after which the cache is used instead."""
    return passes(error) or isinstance(error, NetworkTrouble)


def _take(repo: str, names: Collection[str], fetch: Callable[[str], Path], folder: Path) -> Path:
    """Decide from the names alone what is needed, fetch it, the weights last, and return where it is."""
    weights = sorted(name for name in names if re.fullmatch(r"model[\w.-]*\.safetensors", name, re.ASCII))
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    elif INDEX in names:
        weights = _shards(repo, fetch(INDEX), names)
    if not weights:
        refuse_adapter(names, repo)
        packed = sorted(name for name in names if name.endswith(".gguf"))
        if len(packed) == 1:
            return fetch(packed[0])
        if packed:
            hint = f"fetch one with `hf download {repo} FILE` and give its path"
            message = f"holds several GGUF files and no safetensors: {', '.join(packed)}"
            raise Unsupported(message, path=repo, hint=hint)
        if pickles := sorted(name for name in names if name.endswith(PICKLES)):
            raise Unsupported(
                f"its weights are a pickle ({pickles[0]}), which can run code when it is read",
                path=repo,
                hint="use a revision with safetensors, or convert it with transformers first",
            )
        raise Unreadable("holds no model*.safetensors and no .gguf file", path=repo)
    if "config.json" not in names:
        raise Unreadable("has no config.json", path=repo, hint="this is not a transformers checkpoint")
    wanted = [*sorted(filter(SMALL_FILES.fullmatch, names)), *weights]
    if len(wanted) > MOST_FILES:
        message = f"has {len(wanted)} files of configuration and weights, at most {MOST_FILES} are read"
        raise Unreadable(message, path=repo)
    for name in wanted:
        fetch(name)
    return folder


def _shards(repo: str, index: Path, names: Collection[str]) -> list[str]:
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{INDEX} has no weight_map of file names", path=repo) from error
    for shard in shards:
        if shard not in names or not re.fullmatch(r"[\w.-]+\.safetensors", shard, re.ASCII):
            message = f"{INDEX} names {shard!r}, which is not a safetensors file of the repository"
            raise Unreadable(message, path=repo)
    return shards


@dataclasses.dataclass
class _Repository:
    """One repository at one revision: where its cache is, and what the Hub says about it."""

    repo: str
    revision: str
    storage: Path
    progress: bool
    commit: str = ""
    files: dict[str, RepoSibling] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.storage / "snapshots" / self.commit

    def ask(self) -> None:
        """Ask the Hub for the commit and the list of its files, in one call."""
        from huggingface_hub import ModelInfo

        # Without a network this fails at once; the tries are for a Hub that is there and busy.
        info = ModelInfo(  # type: ignore[no-untyped-call,unused-ignore]
            **persist(self._listing, tries=4, unless={"ConnectError", "TimeoutException"})
        )
        if not re.fullmatch("[A-Za-z0-9]+", info.sha or ""):  # it becomes the name of a folder
            raise ValueError(f"{info.sha!r} is not a commit")
        self.commit, self.files = info.sha or "", {file.rfilename: file for file in info.siblings or ()}
        for name in self.files:
            if name.startswith("/") or "\0" in name or ".." in re.split(r"[/\\]", name):
                raise ValueError(f"it lists {name!r}")

    def _listing(self) -> dict[str, Any]:
        """Return what the Hub says of the repository: the request of the client's model_info, with a bound."""
        from huggingface_hub import constants

        url = f"{constants.ENDPOINT}/api/models/{self.repo}/revision/{quote(self.revision, safe='')}"
        with self._answer(url, {}, params={"blobs": True}) as answer:
            listing = json.loads(read_bounded(answer, LARGEST_LISTING, "the list of its files"))
        if not isinstance(listing, dict):
            raise ValueError(f"its list of files is {type(listing).__name__}, expected an object")
        return listing

    @contextlib.contextmanager
    def _answer(self, url: str, headers: dict[str, str], **options: Any) -> Iterator[Any]:
        """Send a GET with the token of the user, and yield the answer once its headers are there."""
        from huggingface_hub import constants, get_session, get_token, hf_raise_for_status

        # Not the client's own function, which first asks the Hub for a list of AI agents, without a bound.
        headers = {"user-agent": f"tritpack/{VERSION}", **headers}
        if (token := get_token()) and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            headers["authorization"] = f"Bearer {token}"
        # On a redirect to another host the HTTP client drops the token.
        with contextlib.ExitStack() as stack:
            request = get_session().stream(
                "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True, **options
            )
            answered = within(constants.HF_HUB_DOWNLOAD_TIMEOUT, lambda: stack.enter_context(request), "the Hub")
            if answered.is_error:
                read_bounded(answered, 1 << 20, "an error")
            hf_raise_for_status(answered)
            yield answered

    def from_cache(self, reason: Exception) -> Path:
        """Return the same files as an earlier run left them. Raises `reason` if they are not all there."""
        ref = self.storage / "refs" / self.revision
        self.commit = ref.read_text("utf-8").strip() if ref.is_file() else self.revision
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        try:
            path = _take(self.repo, names, lambda name: self._checked(self.folder / name), self.folder)
        except (Unreadable, Unsupported):
            raise reason from None
        if _is_trouble(reason):
            logging.getLogger(__name__).warning("%s: no answer; commit %s of the cache is used", self.repo, self.commit)
        return path

    def remember(self) -> None:
        """Record which commit the revision is, as the client does, so that it is known without a network."""
        ref = self.storage / "refs" / self.revision
        if self.revision != self.commit and not (ref.is_file() and ref.read_text("utf-8") == self.commit):
            with contextlib.suppress(OSError):  # a cache that is only read serves as well
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(self.commit, "utf-8")

    def fetch(self, name: str) -> Path:
        """Fetch one file of the listing, compare it with its hash, and return its path in the snapshot's folder."""
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined,unused-ignore]

        path = self.folder / name
        if not path.exists():
            key, size = self._blob(name)
            if size > LARGEST_DOCUMENT and not name.endswith((".safetensors", ".gguf")):
                message = f"{name} is listed with {size} bytes, which no such file has"
                raise NetworkTrouble(message, hint="check HF_ENDPOINT")
            blob = self.storage / "blobs" / key
            lock = self.storage.parent / ".locks" / self.storage.name / f"{key}.lock"  # the client's own
            for file in (blob, lock, path):
                file.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock):
                self._fetch_blob(name, blob, size)
                if not path.exists():
                    path.unlink(missing_ok=True)  # a link to a blob that is gone
                    _link(blob, path)
        return self._checked(path)

    def _blob(self, name: str) -> tuple[str, int]:
        """Return the name of a file's blob in the cache, and its size, from the listing or from the file's headers."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        listed = self.files[name]
        key, size = (listed.lfs.sha256, listed.lfs.size) if listed.lfs else (listed.blob_id, listed.size)
        if not (isinstance(key, str) and HASH.fullmatch(key) and isinstance(size, int)):  # not every mirror says them
            url = hf_hub_url(self.repo, name, revision=self.commit)
            headers = persist(lambda: within(PATIENCE, lambda: get_hf_file_metadata(url), name))
            key, size = headers.etag or "", headers.size
        if size is None or not re.fullmatch(r"[\w-]{1,200}", key, re.ASCII):
            raise NetworkTrouble(f"neither the list of files nor the server says the size and hash of {name}")
        return key, size

    def _fetch_blob(self, name: str, blob: Path, size: int) -> None:
        """Fetch a file into the cache, from where an earlier try was cut."""
        partial = blob.with_name(f"{blob.name}.incomplete")
        if not blob.exists():
            persist(lambda: self._continue(name, partial, size))
            os.replace(partial, blob)

    def _continue(self, name: str, partial: Path, size: int) -> None:
        """Download the rest of a file."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined,unused-ignore]

        url = hf_hub_url(self.repo, name, revision=self.commit)
        with open(partial, "ab") as stream:
            have = stream.tell()
            if have >= size:  # complete, or something that the hash will refuse
                return
            if shutil.disk_usage(partial.parent).free < size - have:
                raise WriteFailed(
                    f"{name} needs {size - have} bytes, more than the cache's disk has free", path=self.repo
                )
            headers = {"Accept-Encoding": "identity", "Range": f"bytes={have}-"}
            with self._answer(url, headers) as answer:
                if answer.status_code != 206:
                    have = stream.truncate(0)
                style: dict[str, Any] = {"unit": "B", "unit_scale": True, "disable": not self.progress}
                with tqdm(desc=name, total=size, initial=have, **style) as bar:  # type: ignore[no-untyped-call,unused-ignore]
                    for piece in pieces_of(answer, name):
                        have += stream.write(piece)
                        bar.update(len(piece))
                        if have > size:
                            return
        if have < size:
            raise ConnectionError(f"{name} ended after {have} of {size} bytes")

    def _checked(self, path: Path) -> Path:
        """Return the path of a file of the snapshot if it has the hash that names its blob.

        Otherwise remove it from the cache and raise IntegrityFailed.
        """
        target = path.resolve()  # parts of the cache may be links to another disk
        if not any(target.is_relative_to(base.resolve()) for base in (self.storage, self.storage / "blobs")):
            with contextlib.suppress(OSError):
                path.unlink()
            message = f"{path.name} in the cache is a link out of it, to {target}"
            raise IntegrityFailed(message, path=self.repo, hint="the link was removed; run this again")
        listed = self.files.get(path.relative_to(self.folder).as_posix())
        expected = (listed.lfs.sha256 if listed.lfs else listed.blob_id) if listed else None
        if not (isinstance(expected, str) and HASH.fullmatch(expected)):
            expected = Path(os.readlink(path)).name if path.is_symlink() else ""
        if not HASH.fullmatch(expected):
            return path  # a mirror without hashes, or offline on a file system without links
        size = path.stat().st_size
        digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % size)  # LFS, git
        with open(path, "rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
        if digest.hexdigest() != expected:
            for copy in (path.resolve(), self.storage / "blobs" / expected, path):
                with contextlib.suppress(OSError):  # of a cache that is only read
                    copy.unlink(missing_ok=True)
            raise IntegrityFailed(
                f"{path.name} has hash {digest.hexdigest()}, expected {expected}",
                path=self.repo,
                hint="it was removed from the cache; run this again to fetch it again",
            )
        return path


def _link(blob: Path, path: Path) -> None:
    """Put a blob into a snapshot as the client does; where links are impossible, as a copy."""
    from huggingface_hub import constants

    if not constants.HF_HUB_DISABLE_SYMLINKS:
        with contextlib.suppress(OSError):
            return os.symlink(os.path.relpath(blob, path.parent), path)
    try:
        os.link(blob, path)
    except OSError:
        shutil.copyfile(blob, path)

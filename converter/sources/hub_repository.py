"""One repository at one revision, as the Hub lists it, and requests to it.

The client's rules are kept (HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, its HTTP session). What it does not do is done
here: what a server sends is bounded, in bytes and in time without progress.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tritpack.converter.sources.hub_errors import persist
from tritpack.converter.sources.hub_transfer import LARGEST_LISTING, PATIENCE, read_bounded, within
from tritpack.converter.version import VERSION
from tritpack.formats.errors import IntegrityFailed, NetworkTrouble

HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    key: its SHA-256 if it is a large one (LFS, Xet), else its git blob id; another text if the server has its own
    tags, and empty if it was not listed. size: in bytes, or None if it was not listed.
    """

    name: str
    size: int | None = None
    key: str = ""


def check_hash(file: HubFile, digest: str, hint: str) -> None:
    """Raise IntegrityFailed if a file does not have its hash. digest: from `hasher`."""
    if digest != file.key:
        raise IntegrityFailed(f"{file.name} has hash {digest}, expected {file.key}", hint=hint)


def hasher(key: str, size: int) -> Any:
    """Return the object of hashlib whose hexdigest, after all bytes of a file, is its key."""
    return hashlib.sha256() if len(key) == 64 else hashlib.sha1(b"blob %d\0" % size)


@dataclasses.dataclass
class Repository:
    """One repository at one revision.

    commit: what the revision is, and files: by name, once `ask` has returned.
    """

    repo: str
    revision: str
    commit: str = ""
    files: dict[str, HubFile] = dataclasses.field(default_factory=dict)

    def ask(self) -> None:
        """Ask the Hub for the commit and the list of its files, in one call."""
        # Without a network this fails at once; the tries are for a Hub that is there and busy.
        listing = persist(self._listing, tries=4, unless={"ConnectError", "TimeoutException"})
        commit = listing.get("sha")
        if not isinstance(commit, str) or not re.fullmatch("[A-Za-z0-9]+", commit):  # it becomes the name of a folder
            raise ValueError(f"{commit!r} is not a commit")
        files = [_listed(entry) for entry in listing.get("siblings") or ()]
        self.commit, self.files = commit, {file.name: file for file in files}

    def _listing(self) -> dict[str, Any]:
        """Return what the Hub says of the repository: the request of the client's model_info, with a bound."""
        from huggingface_hub import constants

        url = f"{constants.ENDPOINT}/api/models/{self.repo}/revision/{quote(self.revision, safe='')}"
        with self.answer(url, {}, params={"blobs": True}) as answer:
            listing = json.loads(read_bounded(answer, LARGEST_LISTING, "the list of its files"))
        if not isinstance(listing, dict):
            raise ValueError(f"its list of files is {type(listing).__name__}, expected an object")
        return listing

    def url(self, name: str) -> str:
        """Return the address of a file."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, name, revision=self.commit)

    @contextlib.contextmanager
    def answer(self, url: str, headers: dict[str, str], **options: Any) -> Iterator[Any]:
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

    def described(self, name: str) -> tuple[HubFile, int]:
        """Return a file and its size, from the list of files or, for a mirror that says less, from its headers."""
        from huggingface_hub import get_hf_file_metadata

        file = self.files[name]
        if file.size is None or not file.key:
            url = self.url(name)
            headers = persist(lambda: within(PATIENCE, lambda: get_hf_file_metadata(url), name))
            file = self.files[name] = HubFile(name, headers.size, headers.etag or "")
        if file.size is None or not re.fullmatch(r"[\w-]{1,200}", file.key, re.ASCII):
            raise NetworkTrouble(f"neither the list of files nor the server says the size and hash of {name}")
        return file, file.size


def _listed(entry: Any) -> HubFile:
    """Return a file of the listing. Raises ValueError, KeyError, TypeError or AttributeError for what is none."""
    name, lfs = entry["rfilename"], entry.get("lfs")
    if not isinstance(name, str) or name.startswith("/") or "\0" in name or ".." in re.split(r"[/\\]", name):
        raise ValueError(f"it lists {name!r}")
    size, key = (lfs.get("size"), lfs.get("sha256")) if lfs else (entry.get("size"), entry.get("blobId"))
    if type(size) is not int or size < 0 or not isinstance(key, str) or not HASH.fullmatch(key):
        return HubFile(name)  # not every mirror says them
    return HubFile(name, size, key)

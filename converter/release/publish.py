"""Publishing: the files of a release folder or bundle to a model repository on the Hub.

The client sends a large file by its content: what an interrupted run has sent is not sent again by the next one. All
files appear in one commit, after the last of them was sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritpack.converter.release.bundle.check import check_bundle
from tritpack.converter.release.bundle.extract import extract_bundle
from tritpack.converter.release.card import NAME as CARD
from tritpack.converter.release.manifest import NAME as MANIFEST
from tritpack.converter.sources.hub import REPO, REVISION
from tritpack.converter.sources.hub_errors import explained, persist
from tritpack.formats.errors import CheckFailed, IntegrityFailed, MissingRequirement, UsageError
from tritpack.formats.inputs import read_text
from tritpack.formats.printable import printable
from tritpack.formats.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEMA = "tritpack.publish/1"
MESSAGE = "Upload files that tritpack has verified"


@dataclasses.dataclass(frozen=True)
class Publication:
    """What is, or would be, in the repository. files: (path, bytes), sorted. commit, url: None if nothing was sent."""

    repository: str
    revision: str | None
    private: bool
    files: Sequence[tuple[str, int]]
    commit: str | None = None
    url: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(nbytes for _, nbytes in self.files)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "repository": self.repository,
            "revision": self.revision,
            "private": self.private,
            "uploaded": self.commit is not None,
            "commit": self.commit,
            "url": self.url,
            "nbytes": self.nbytes,
            "files": [{"path": path, "nbytes": nbytes} for path, nbytes in self.files],
        }


def publish(
    source: str | Path,
    repository: str,
    *,
    upload: bool = False,
    private: bool = False,
    revision: str | None = None,
    progress: Progress = silent,
) -> Publication:
    """Upload a release folder, or the files in a bundle, to ORG/NAME on the Hub; without `upload` only say which.

    The manifest is checked first: nothing is sent of a release in which one byte differs. A repository that does not
    exist is created, private if that is asked for; revision: a branch, which is created too. progress: is told
    how much was read, and then how much was sent.
    Raises IntegrityFailed, Unreadable, UsageError, CheckFailed if the Hub does not accept the card, NetworkTrouble,
    MissingRequirement, WriteFailed.
    """
    if not REPO.fullmatch(repository):
        raise UsageError(f"{repository!r} cannot be a repository on the Hub", hint="write ORG/NAME")
    if revision is not None and not REVISION.fullmatch(revision):
        raise UsageError(f"--revision {revision!r} cannot be a branch on the Hub")
    path = Path(source)
    manifest = check_bundle(path, progress=progress).manifest
    sizes = {MANIFEST: len(manifest.encoded()), **{name: entry.nbytes for name, entry in manifest.files.items()}}
    publication = Publication(repository, revision, private, sorted(sizes.items()))
    if not upload:
        return publication
    api = _client()
    hashes = {MANIFEST: hashlib.sha256(manifest.encoded()).hexdigest()}
    hashes |= {name: entry.sha256 for name, entry in manifest.files.items()}
    with _as_folder(path) as folder, explained(repository, revision or "main"):
        _require_good_card(folder / CARD)
        _create(api, publication)
        commit = _send(api, folder, publication, hashes, progress)
    return dataclasses.replace(publication, commit=commit.oid, url=commit.commit_url)


def _client() -> HfApi:
    try:
        from huggingface_hub import HfApi, constants
    except ImportError as error:
        raise MissingRequirement("publishing needs huggingface_hub", hint="pip install huggingface_hub") from error
    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE is set, and --upload needs the Hub", hint="unset HF_HUB_OFFLINE")
    return HfApi(endpoint=constants.ENDPOINT)


@contextlib.contextmanager
def _as_folder(path: Path) -> Iterator[Path]:
    """Yield the folder itself, or one into which the bundle is unpacked, which is removed at the end."""
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tritpack-") as temporary:
        folder = Path(temporary) / "release"
        extract_bundle(path, folder)
        yield folder


def _require_good_card(path: Path) -> None:
    """Raise CheckFailed if the Hub does not accept a card, before anything large is sent.

    The client asks the same, but some versions ask huggingface.co whatever HF_ENDPOINT is.
    """
    from huggingface_hub import constants, get_session, hf_raise_for_status

    if not path.is_file():
        return
    body = {"repoType": "model", "content": read_text(path)}
    url = f"{constants.ENDPOINT}/api/validate-yaml"

    def ask() -> list[str]:
        answer = get_session().post(url, json=body, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        if answer.status_code == 400:
            return [str(error["message"]) for error in answer.json()["errors"]]
        hf_raise_for_status(answer)
        return []

    if errors := persist(ask, tries=4):
        message = f"the Hub does not accept the front matter: {printable(' '.join(errors)[:300])}"
        raise CheckFailed(message, path=CARD)


def _create(api: HfApi, publication: Publication) -> None:
    """Create the repository and the branch unless they exist. Raises UsageError for a public one where a private one is
    asked for: to publish by mistake cannot be undone."""
    name, branch = publication.repository, publication.revision
    private = True if publication.private else None
    persist(lambda: api.create_repo(name, private=private, exist_ok=True), tries=4)
    if publication.private and not persist(lambda: api.repo_info(name), tries=4).private:
        raise UsageError("exists and is public, and --private was given", path=name, hint="make it private on its page")
    if branch is not None and branch != "main":
        persist(lambda: api.create_branch(name, branch=branch, exist_ok=True), tries=4)


def _send(api: HfApi, folder: Path, publication: Publication, hashes: Mapping[str, str], progress: Progress) -> Any:
    """Send the files one after the other, the smallest first, then the commit that shows them.

    hashes: the SHA-256 that were checked, by name. Raises IntegrityFailed for a file that was changed since.
    """
    from huggingface_hub import CommitOperationAdd

    done, total, operations = 0, publication.nbytes, []
    for name, nbytes in sorted(publication.files, key=lambda file: (file[1], file[0])):
        progress(name, done, total)
        operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name)
        if operation.upload_info.sha256.hex() != hashes[name]:
            raise IntegrityFailed(f"{name!r} was changed since it was checked", path=folder)
        api.preupload_lfs_files(
            publication.repository, [operation], revision=publication.revision, free_memory=False, gitignore_content=""
        )
        operations.append(operation)
        done += nbytes
    progress("", done, total)
    return api.create_commit(publication.repository, operations, commit_message=MESSAGE, revision=publication.revision)

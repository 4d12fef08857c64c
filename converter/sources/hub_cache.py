"""Files of a repository in the client's cache: `models--ORG--NAME/snapshots/COMMIT`, links to blobs named by hashes.

The client's own download, snapshot_download, discards a cut one (a test shows it), so files are written to
`.incomplete` here and continue where they stopped, in this run or the next. It does not compare files with their
hashes either, so every file is compared here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritpack.converter.sources.hub_file import RemoteFile
from tritpack.converter.sources.hub_repository import HASH, HubFile, Repository, check_hash, hasher
from tritpack.formats.errors import IntegrityFailed, NetworkTrouble, WriteFailed
from tritpack.formats.inputs import LARGEST_DOCUMENT


@dataclasses.dataclass
class HubCache:
    """What the cache holds of one repository. progress: whether downloads show bars on a terminal."""

    repository: Repository
    progress: bool

    def __post_init__(self) -> None:
        from huggingface_hub import constants

        self._cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
        self._storage = self._cache / f"models--{self.repository.repo.replace('/', '--')}"

    @property
    def folder(self) -> Path:
        """The folder of the repository's commit."""
        return self._storage / "snapshots" / self.repository.commit

    @property
    def _ref(self) -> Path:
        return self._storage / "refs" / self.repository.revision

    def recall(self) -> list[str]:
        """Let the revision be the commit that it was in an earlier run. Return the names of the files that are here."""
        revision = self.repository.revision
        self.repository.commit = self._ref.read_text("utf-8").strip() if self._ref.is_file() else revision
        return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]

    def remember(self) -> None:
        """Record which commit the revision is, as the client does, so that it is known without a network."""
        commit = self.repository.commit
        if self.repository.revision != commit and not (self._ref.is_file() and self._ref.read_text("utf-8") == commit):
            with contextlib.suppress(OSError):  # a cache that is only read serves as well
                self._ref.parent.mkdir(parents=True, exist_ok=True)
                self._ref.write_text(commit, "utf-8")

    def fetch(self, name: str) -> Path:
        """Fetch one file, compare it with its hash, and return its path in the folder."""
        path = self.folder / name
        if not path.exists():
            listed, size = self.repository.described(name)
            if size > LARGEST_DOCUMENT and not name.endswith((".safetensors", ".gguf")):
                message = f"{name} is listed with {size} bytes, which no such file has"
                raise NetworkTrouble(message, hint="check HF_ENDPOINT")
            blob = self._storage / "blobs" / listed.key
            lock = self._cache / ".locks" / self._storage.name / f"{listed.key}.lock"  # where the client has its own
            for file in (blob, lock, path):
                file.parent.mkdir(parents=True, exist_ok=True)
            with _locked(lock):
                if not blob.exists():
                    self._download(RemoteFile(self.repository, name), blob)
                if not path.exists():
                    path.unlink(missing_ok=True)  # a link to a blob that is gone
                    _link(blob, path)
        return self.check(name)

    def _download(self, file: RemoteFile, blob: Path) -> None:
        """Download a file, from where an earlier try was cut."""
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined,unused-ignore]

        name, partial = file.listed.name, blob.with_name(f"{blob.name}.incomplete")
        with open(partial, "ab") as stream:
            have = stream.tell()
            if shutil.disk_usage(partial.parent).free < file.size - have:
                message = f"{name} needs {file.size - have} bytes, more than the cache's disk has free"
                raise WriteFailed(message, path=self.repository.repo)
            shown = self.progress and sys.stderr.isatty()
            style: dict[str, Any] = {"unit": "B", "unit_scale": True, "disable": not shown}
            with tqdm(desc=name, total=file.size, initial=have, **style) as bar:  # type: ignore[no-untyped-call,unused-ignore]
                try:
                    for piece in file.pieces(have):
                        stream.write(piece)
                        bar.update(len(piece))
                except IntegrityFailed:
                    stream.truncate(0)
                    raise
        os.replace(partial, blob)

    def check(self, name: str) -> Path:
        """Return the path of a file of the folder if it has the hash that names its blob.

        Otherwise remove it from the cache and raise IntegrityFailed.
        """
        path = self.folder / name
        target = path.resolve()  # parts of the cache may be links to another disk
        if not any(target.is_relative_to(base.resolve()) for base in (self._storage, self._storage / "blobs")):
            with contextlib.suppress(OSError):
                path.unlink()
            message = f"{path.name} in the cache is a link out of it, to {target}"
            raise IntegrityFailed(message, hint="the link was removed; run this again")
        key = self.repository.files.get(name, HubFile(name)).key
        if not HASH.fullmatch(key):
            key = Path(os.readlink(path)).name if path.is_symlink() else ""
        if not HASH.fullmatch(key):
            return path  # a mirror without hashes, or offline on a file system without links
        digest = hasher(key, path.stat().st_size)
        with open(path, "rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
        try:
            check_hash(
                HubFile(path.name, key=key),
                digest.hexdigest(),
                "it was removed from the cache; run this again to fetch it again",
            )
        except IntegrityFailed:
            for copy in (target, self._storage / "blobs" / key, path):
                with contextlib.suppress(OSError):  # of a cache that is only read
                    copy.unlink(missing_ok=True)
            raise
        return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that the client takes while it downloads a file."""
    from filelock import FileLock, SoftFileLock

    lock: FileLock | SoftFileLock = FileLock(path)
    try:
        lock.acquire()
    except NotImplementedError:  # a file system without locks: the file's existence is the lock
        lock = SoftFileLock(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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

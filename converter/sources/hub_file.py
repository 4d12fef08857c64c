"""The bytes of one file on the Hub, by range requests: parts of it, or all of it in order.

A broken connection continues at its byte. Bytes of two versions of the file are never put together: the address names
a commit, the ETags of all answers have to be equal, and whoever reads to the end compares the hash.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator
from types import TracebackType
from typing import Any

from tritpack.converter.sources.hub_errors import explained, wait
from tritpack.converter.sources.hub_repository import Repository, check_hash, hasher
from tritpack.converter.sources.hub_transfer import pieces_of
from tritpack.formats.errors import IntegrityFailed, NetworkTrouble

ENOUGH = 1 << 20
"""Bytes after which a broken connection counts as the first one again."""
WITHOUT_PARTS = "run this without --stream and --dry-run, which downloads whole files, or fetch them with `hf download`"


class RemoteFile:
    """One file of a repository. size: in bytes."""

    def __init__(self, repository: Repository, name: str) -> None:
        self.repository = repository
        self.listed, self.size = repository.described(name)
        self._url = repository.url(name)
        self._etag: str | None = None

    @property
    def name(self) -> str:
        """The name of the file, without the folders of the repository."""
        return self.listed.name.rpartition("/")[2]

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"{self.repository.repo}/{self.listed.name}"

    def read(self, first: int, last: int) -> bytes:
        """Return bytes [first, last). Raises NetworkTrouble, IntegrityFailed and what `explain` returns."""
        return b"".join(self.pieces(first, last))

    def pieces(self, first: int = 0, last: int | None = None) -> Generator[bytes]:
        """Yield bytes [first, last), as they come. last: None for the end of the file.

        The number of tries without progress is bounded. Raises the same as `read`.
        """
        end = self.size if last is None else last
        failures = 0
        with explained(self.repository.repo, self.repository.revision):
            while first < end:
                begin = first
                try:
                    with contextlib.closing(self._connection(first, end)) as connection:
                        for piece in connection:
                            yield piece
                            first += len(piece)
                    if first < end:
                        raise ConnectionError(f"{self.listed.name} ended after {first} of {self.size} bytes")
                except Exception as error:
                    failures = 1 if first - begin >= ENOUGH else failures + 1
                    wait(error, failures)

    def _connection(self, first: int, end: int) -> Generator[bytes]:
        """Yield bytes [first, end) as far as one connection delivers them."""
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={first}-{'' if end == self.size else end - 1}"}
        with self.repository.answer(self._url, headers) as answer:
            unwanted = self._check(answer, first, end)
            for piece in pieces_of(answer, self.listed.name):
                rest = piece[unwanted:]
                unwanted -= len(piece) - len(rest)
                first += len(rest)
                if first > end:
                    message = f"the server sends more of {self.listed.name} than the bytes before {end}"
                    raise IntegrityFailed(message, hint="run this again; if it stays, check HF_ENDPOINT and the proxy")
                if rest:
                    yield rest

    def _check(self, answer: Any, first: int, end: int) -> int:
        """Return how many bytes of an answer come before the first that is wanted."""
        name, etag = self.listed.name, answer.headers.get("ETag")
        if etag is not None:
            if self._etag not in (None, etag):
                message = f"{name} was changed on the server while it was read: its ETag is another one"
                raise IntegrityFailed(message, hint="run this again")
            self._etag = etag
        if answer.status_code == 206:
            sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range") or "")
            if sent is None or int(sent[1]) != first or sent[2] not in ("*", str(self.size)):
                found = (answer.headers.get("Content-Range") or "no Content-Range")[:80]
                message = f"the answer for {name} has {found}, expected byte {first} of {self.size}"
                raise NetworkTrouble(message, hint="check HF_ENDPOINT and the proxy")
            return 0
        if answer.status_code != 200 or end < self.size:
            message = f"the server does not send parts of {name} (HTTP {answer.status_code} to a range request)"
            raise NetworkTrouble(message, hint=WITHOUT_PARTS)
        return first


class RemoteReader:
    """A ShardReader of a file on the Hub. It counts a git blob id where that is what the Hub lists."""

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        self._pieces = file.pieces()
        self._rest = memoryview(b"")
        self._git = hasher(file.listed.key, file.size) if len(file.listed.key) == 40 else None

    def readinto(self, buffer: memoryview, /) -> int:
        target, filled = memoryview(buffer).cast("B"), 0
        while filled < len(target):
            if not self._rest:
                piece = next(self._pieces, b"")
                if not piece:
                    break
                self._rest = memoryview(piece)
                if self._git is not None:
                    self._git.update(piece)
            count = min(len(self._rest), len(target) - filled)
            target[filled : filled + count] = self._rest[:count]
            self._rest = self._rest[count:]
            filled += count
        return filled

    def check(self, sha256: str) -> None:
        """Raise IntegrityFailed if the file, read to its end, does not have the hash that the Hub lists.

        sha256: of all bytes. A mirror may list no hash that can be compared; then the size decides.
        """
        with explained(self.file.repository.repo, self.file.repository.revision):
            if self._git is not None:
                check_hash(self.file.listed, self._git.hexdigest(), "run this again")
            elif len(self.file.listed.key) == 64:
                check_hash(self.file.listed, sha256, "run this again")

    def close(self) -> None:
        self._pieces.close()

    def __enter__(self) -> RemoteReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

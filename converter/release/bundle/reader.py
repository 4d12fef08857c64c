"""One pass over a bundle: each member once, in the order of the manifest, refused or proved to be what it lists."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from tritpack.converter.release.bundle.archive import Archive, all_entries, archive_size, padding_of
from tritpack.converter.release.contents import Contents, ContentsReader
from tritpack.converter.release.manifest import LARGEST, NAME, Entry, Manifest, parse_manifest
from tritpack.formats.errors import IntegrityFailed, Unreadable, locating
from tritpack.formats.gguf_stream import Read
from tritpack.formats.progress import Progress

Write = Callable[[bytes], object]
Sink = Callable[[Entry], "contextlib.AbstractContextManager[Write | None]"]
Found = tuple[Entry, Contents]


class Member:
    """A file in a bundle. entry: what the manifest says of it. Its bytes can be read once."""

    def __init__(self, archive: Archive, entry: Entry) -> None:
        self.entry = entry
        self._archive = archive
        self._left = entry.nbytes

    def read(self, count: int) -> bytes:
        """The next bytes: `count`, or fewer at the end."""
        data = self._archive.take(min(count, self._left))
        self._left -= len(data)
        if not self._left and data and self._archive.take(len(padding_of(self.entry.nbytes))).strip(b"\0"):
            raise Unreadable(f"has data after the end of {self.entry.path!r}")
        return data


class BundleReader:
    """A bundle whose manifest has been read and found intact.

    The manifest is the first member. So nothing is read that it does not list, no file is longer than it says, and the
    whole cannot be longer than all of them: that is compared with what the compressed data declare, before they are
    decompressed.
    """

    def __init__(self, archive: Archive) -> None:
        self.path = archive.path
        self._archive = archive
        with locating(path=self.path):
            self.manifest = self._manifest()
            expected = archive_size(all_entries(self.manifest))
            if archive.content_size != expected:
                raise Unreadable(f"declares {archive.content_size} bytes, and its manifest lists {expected} of them")

    def _manifest(self) -> Manifest:
        match self._archive.next_header():
            case (path, nbytes) if path == NAME:
                if nbytes > LARGEST:
                    raise Unreadable(f"its {NAME} has {nbytes} bytes, expected at most {LARGEST}")
                return parse_manifest(_whole(Member(self._archive, Entry(path, nbytes, ""))))
            case found:
                what = "nothing" if found is None else repr(found[0][:100])
                hint = "tritpack bundle create writes bundles; other archives have no manifest in front"
                raise Unreadable(f"begins with {what}, expected {NAME}", hint=hint)

    def files(self, progress: Progress, *, codes: bool = False, sink: Sink | None = None) -> Iterator[Found]:
        """Read every member and yield it when it is proved to be what the manifest lists.

        codes: also decode the ternary tensors and compare their codes. sink: is given an entry, and returns a context
        manager of the function that takes its bytes. Raises IntegrityFailed, Unreadable.
        """
        done, reader, seen = 0, ContentsReader(codes=codes), {NAME}
        for entry in self.manifest.files.values():
            progress(entry.path, done, self.manifest.nbytes)
            with locating(path=self.path):
                self._expect(entry, seen)
                member = Member(self._archive, entry)
                with sink(entry) if sink else contextlib.nullcontext() as write:
                    read = member.read if write is None else _tee(member, write)
                    contents = reader.read(entry.path, entry.nbytes, read)
                self.manifest.compare(entry, contents)
            yield entry, contents
            done += entry.nbytes
        with locating(path=self.path):
            if (more := self._archive.next_header()) is not None:
                self._refuse(more[0], seen, None)
            self._archive.expect_end()
        progress("", done, done)

    def _expect(self, entry: Entry, seen: set[str]) -> None:
        """Read the header of the member that the manifest lists next."""
        header = self._archive.next_header()
        if header is None:
            raise IntegrityFailed(f"{entry.path!r} is in the manifest and not in the bundle")
        path, nbytes = header
        if path != entry.path:
            self._refuse(path, seen, entry)
        if nbytes != entry.nbytes:
            raise IntegrityFailed(f"{path!r} has {nbytes} bytes, the manifest says {entry.nbytes}")
        seen.add(path)

    def _refuse(self, path: str, seen: set[str], expected: Entry | None) -> NoReturn:
        if path in seen:
            raise Unreadable(f"has {path!r} twice")
        if path not in self.manifest.files or expected is None:
            raise IntegrityFailed(f"{path[:100]!r} is in the bundle and not in the manifest")
        raise IntegrityFailed(f"{expected.path!r} is in the manifest and not in the bundle, or not before {path!r}")


def _tee(member: Member, write: Write) -> Read:
    """Read a member and give what was read to `write` too."""

    def read(count: int) -> bytes:
        data = member.read(count)
        write(data)
        return data

    return read


def _whole(member: Member) -> bytes:
    return member.read(member.entry.nbytes)


@contextlib.contextmanager
def open_bundle(path: str | Path) -> Iterator[BundleReader]:
    """Yield the reader of a bundle. Raises Unreadable, IntegrityFailed."""
    with Archive(Path(path)) as archive:
        yield BundleReader(archive)

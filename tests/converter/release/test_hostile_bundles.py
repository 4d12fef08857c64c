"""Bundles that somebody made to do harm, or that were damaged: each is refused by check and by extract, and no file is
left anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard

from tests.converter.release.bundles import FILES, archive, compress, header, manifest_of, member, members_of, write
from tritpack.converter.release.bundle.archive import WINDOW_LOG
from tritpack.converter.release.bundle.check import check_bundle, list_bundle
from tritpack.converter.release.bundle.extract import extract_bundle
from tritpack.converter.release.manifest import NAME
from tritpack.formats.errors import IntegrityFailed, TritpackError, Unreadable, WriteFailed

GOOD = members_of(FILES)
EVIL = b"evil\n"


def with_path(path: str) -> bytes:
    """A bundle whose manifest lists a file with this path too."""
    files = {**FILES, path: EVIL}
    return archive([member(NAME, manifest_of(files)), *(member(name, files[name]) for name in sorted(files))])


def with_member(*pieces: tuple[bytes, bytes]) -> bytes:
    """A bundle with members that the manifest does not list, in place of its first file; the size is right."""
    return archive([GOOD[0], *pieces, *GOOD[1:]])


PATHS = {
    "absolute": ("/etc/passwd", "is absolute"),
    "parent": ("../evil", "'..'"),
    "parent inside": ("sub/../../evil", "'..'"),
    "parent at the end": ("sub/..", "'..'"),
    "dot": ("./evil", "'.'"),
    "empty part": ("sub//evil", "''"),
    "drive": ("C:/evil", "names a drive"),
    "drive without a slash": ("c:evil", "names a drive"),
    "backslash": ("..\\evil", "backslash"),
    "NUL": ("evil\0.txt", "cannot be printed"),
    "newline": ("evil\nfile", "cannot be printed"),
    "right to left": ("evil‮fdp.exe", "cannot be printed"),
    "device of Windows": ("sub/NUL.txt", "Windows"),
    "stream of Windows": ("evil.txt:stream", "Windows"),
    "dot at the end": ("evil.", "Windows"),
    "long name": ("e" * 256, "longer than 255"),
    "long path": ("e" * 250 + "/" + "e" * 250 + "/" + "e" * 20, "longer than 512"),
    "deep path": ("e/" * 16 + "e", "more than 16 parts"),
    "empty": ("", "is empty"),
    "case": ("readme.MD", "one file on some systems"),
    "composed": ("sub/B.TXT", "one file on some systems"),
    "file and folder": ("sub", "as a file and as a folder"),
    "the manifest": ("manifest.json", "twice"),
    "folder of the manifest": ("Manifest.json/evil", "as a file and as a folder"),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    path, reason = PATHS[name]
    refused(tmp_path, compress(with_path(path)), Unreadable, reason)


KINDS = {
    "hard link": (b"1", "a hard link"),
    "symbolic link": (b"2", "a symbolic link"),
    "character device": (b"3", "a device"),
    "block device": (b"4", "a device"),
    "folder": (b"5", "a folder"),
    "pipe": (b"6", "a pipe"),
    "contiguous": (b"7", "a member of type"),
    "sparse": (b"S", "a sparse file"),
    "GNU long name": (b"L", "a GNU long name"),
    "global records": (b"g", "global pax records"),
    "old": (b"\0", "a member of type"),
}


@pytest.mark.parametrize("name", KINDS)
def test_members_that_are_not_files_are_refused(name: str, tmp_path: Path) -> None:
    """The size that the bundle declares is right: the member stands in the place of one that is listed."""
    kind, reason = KINDS[name]
    pieces = [(header("README.md", 7, kind, link="/etc/passwd"), b"a card\n"), GOOD[2]]
    refused(tmp_path, compress(archive([GOOD[0], *pieces])), Unreadable, reason)


ODD_HEADERS: dict[str, dict[str, Any]] = {
    "setuid": {"mode": 0o4755},
    "owner": {"uid": 7},
    "owner's name": {"uname": "root"},
    "time": {"mtime": 1},
    "target of a link": {"linkname": "/etc/passwd"},
}


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_headers_that_say_more_than_path_and_size_are_refused(name: str, tmp_path: Path) -> None:
    pieces = [GOOD[0], (header("README.md", 7, **ODD_HEADERS[name]), b"a card\n"), GOOD[2]]
    refused(tmp_path, compress(archive(pieces)), Unreadable, "not one that tritpack writes")


def test_a_name_with_bytes_after_its_end_is_refused(tmp_path: Path) -> None:
    head = bytearray(header("README.md", 7))
    head[20:24] = b"evil"
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
    refused(tmp_path, compress(archive([GOOD[0], (bytes(head), b"a card\n"), GOOD[2]])), Unreadable, "tar header")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    head = bytearray(header("README.md", 7))
    head[0:1] = b"\xff"
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
    refused(tmp_path, compress(archive([GOOD[0], (bytes(head), b"a card\n"), GOOD[2]])), Unreadable, "not UTF-8")


def test_a_name_that_is_no_text_cannot_get_into_the_manifest(tmp_path: Path) -> None:
    data = manifest_of(FILES).replace(b"README.md", b"\\udc80DME.m")
    refused(tmp_path, compress(archive([member(NAME, data), *GOOD[1:]])), Unreadable, "half of a surrogate pair")


RECORDS = {
    "other keys": (b"30 GNU.sparse.major=1xxxxxxxxx\n", "pax record"),
    "path": (b"23 path=../../evil.txt\n", "path '../../evil.txt'"),
    "negative length": (b"-9 path=x\n", "pax records"),
    "no length": (b"path\n", "pax records"),
    "not UTF-8": (b"12 path=\xff\xfe\xfd\n", "not UTF-8"),
    "negative size": (b"11 size=-5\n", "its size is -5"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_extended_headers_hide_nothing(name: str, tmp_path: Path) -> None:
    data, reason = RECORDS[name]
    head = header("././@PaxHeader", len(data), b"x", mode=0)
    extended = head + data + bytes(-len(data) % 512) + header("README.md", 7)
    refused(
        tmp_path, compress(archive([GOOD[0], (extended, b"a card\n"), GOOD[2]])), TritpackError, reason, sized=False
    )


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40)])
@pytest.mark.parametrize("name", [NAME, "x"])
def test_negative_sizes_are_refused(name: str, size: int, tmp_path: Path) -> None:
    """zstandard reads to the end of the data for -1, and has no error class for other negative numbers."""
    kind = b"0" if name == NAME else b"x"
    head = bytearray(header(name, 0, kind))
    head[124:136] = size.to_bytes(12, "big", signed=True)
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
    refused(tmp_path, compress(bytes(head) + bytes(4096)), Unreadable, f"its size is {size}")
    refused(tmp_path, compress(header(NAME, size) + bytes(4096)), Unreadable, f"its size is {size}")


CHANGES: dict[str, tuple[Callable[[], bytes], type[TritpackError], str]] = {
    "a file twice": (lambda: archive([GOOD[0], GOOD[1], GOOD[1], GOOD[2]]), Unreadable, "twice"),
    "the manifest twice": (lambda: archive([GOOD[0], *GOOD]), Unreadable, "twice"),
    "a file that is not listed": (
        lambda: with_member(member("evil", EVIL)), IntegrityFailed, "'evil' is in the bundle and not in the manifest",
    ),
    "a file that is not listed, at the end": (
        lambda: archive([*GOOD, member("evil", EVIL)]), IntegrityFailed, "not in the manifest",
    ),
    "a missing file": (lambda: archive([GOOD[0], GOOD[2]]), IntegrityFailed, "'README.md' is in the manifest"),
    "a missing last file": (lambda: archive(GOOD[:2]), IntegrityFailed, "'sub/b.txt' is in the manifest"),
    "another order": (lambda: archive([GOOD[0], GOOD[2], GOOD[1]]), IntegrityFailed, "or not before"),
    "a longer file": (
        lambda: archive([GOOD[0], member("README.md", b"a card\nand more"), GOOD[2]]), IntegrityFailed, "has 15 bytes",
    ),
    "a changed file": (
        lambda: archive([GOOD[0], member("README.md", b"a cord\n"), GOOD[2]]), IntegrityFailed, "'README.md' has the",
    ),
    "no manifest": (lambda: archive(GOOD[1:]), Unreadable, "begins with 'README.md'"),
    "the manifest last": (lambda: archive([*GOOD[1:], GOOD[0]]), Unreadable, "begins with 'README.md'"),
    "no member": (lambda: archive([]), Unreadable, "begins with nothing"),
    "one block of zeros": (lambda: archive(GOOD, bytes(512)), Unreadable, "ends in the middle"),
    "data after the zeros": (lambda: archive(GOOD, bytes(1024) + b"evil"), Unreadable, "after the end"),
    "data in the zeros": (lambda: archive(GOOD, bytes(512) + b"evil" + bytes(508)), Unreadable, "two blocks of zeros"),
    "cut": (lambda: archive(GOOD)[:-1600], Unreadable, "in the middle"),
    "data in the padding": (
        lambda: archive([GOOD[0], (GOOD[1][0], b"a card\n" + b"evil".rjust(505)), GOOD[2]]), Unreadable, "data after",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_manifest_does_not_list_is_refused(name: str, tmp_path: Path) -> None:
    """Even where the compressed data declare the size that the manifest asks for."""
    make, kind, reason = CHANGES[name]
    refused(tmp_path, compress(make()), kind, reason, sized=False)
    if 512 < len(make()) != len(archive(GOOD)) and name not in ("no manifest", "the manifest last", "no member"):
        path = tmp_path / "declared.tar.zst"
        path.write_bytes(compress(make()))
        with pytest.raises(Unreadable, match="declares"):
            check_bundle(path)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a large manifest": (lambda: compress(header(NAME, 1 << 40) + bytes(1 << 20)), "1099511627776 bytes"),
    "large pax records": (lambda: compress(header("x", 1 << 30, b"x") + bytes(1 << 20)), "1073741824 bytes"),
    "a file that is larger than listed": (
        lambda: compress(with_member((header("README.md", 1 << 40), b""))),
        "declares",
    ),
    "zeros without end": (lambda: compress(archive(GOOD) + bytes(1 << 24)), "declares"),
    "a size that is not declared": (lambda: compress_unsized(archive(GOOD)), "does not declare its size"),
    "a large window": (lambda: compress_in_window(archive(GOOD), 31), "window"),
    "no checksum": (lambda: compress(archive(GOOD), checksum=False), "checksum"),
    "a second frame": (lambda: compress(archive(GOOD)) * 2, "bytes after its end"),
    "a skippable frame": (lambda: compress(archive(GOOD)) + b"\x50\x2a\x4d\x18\x04\0\0\0evil", "bytes after its end"),
    "a skippable frame in front": (lambda: b"\x50\x2a\x4d\x18\x04\0\0\0evil" + compress(archive(GOOD)), "bundle"),
    "rubbish after the frame": (lambda: compress(archive(GOOD)) + b"e", "bytes after its end"),
    "less than declared": (lambda: compress(archive(GOOD), declared=len(archive(GOOD)) + 512), "damaged"),
    "a frame that is cut": (lambda: compress(archive(GOOD))[:-9], "in the middle of its data"),
    "a frame without its checksum": (lambda: compress(archive(GOOD))[:-2], "in the middle of its data"),
    "another format": (lambda: b"PK\3\4" + bytes(100), "is not a bundle"),
    "nothing": (lambda: b"", "is not a bundle"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_larger_than_declared_is_read(name: str, tmp_path: Path) -> None:
    make, reason = BOMBS[name]
    refused(tmp_path, make(), Unreadable, reason)


def test_the_disk_must_have_room_for_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1 << 19))
    with pytest.raises(WriteFailed, match="are free"):
        extract_bundle(path, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tar.zst"]


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Unless it is a bit of the compression that stands for nothing, so that what is in the bundle is the same."""
    path = write(tmp_path, GOOD)
    good = path.read_bytes()
    check_bundle(path)
    idle = 0
    for position in range(len(good)):
        changed = good[:position] + bytes([good[position] ^ 1 << position % 8]) + good[position + 1 :]
        path.write_bytes(changed)
        try:
            check_bundle(path)
        except (Unreadable, IntegrityFailed) as error:
            assert error.path == path, f"byte {position}"
            continue
        assert zstandard.decompress(changed) == archive(GOOD), f"byte {position}"
        idle += 1
    assert idle <= 3, "bytes of the compression with a bit that stands for nothing"


def refused(folder: Path, data: bytes, kind: type[TritpackError], reason: str, *, sized: bool = True) -> None:
    """Assert that check and extract refuse a bundle with such a sentence and leave nothing behind.

    sized: as it is. If not, the reader is made to believe the size that the compressed data declare, so that what comes
    after that check is tested too.
    """
    path = folder / "sub" / "x.tar.zst"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        if not sized:
            size = zstandard.get_frame_parameters(data).content_size
            patch.setattr("tritpack.converter.release.bundle.reader.archive_size", lambda entries: size)
        for use in (check_bundle, lambda bundle: extract_bundle(bundle, path.parent / "out")):
            with pytest.raises(kind) as caught:
                use(path)
            assert reason in str(caught.value), caught.value
            assert caught.value.path == path, caught.value
            assert [*folder.rglob("*")] == [path.parent, path], "something was left, or it got out"


def compress_unsized(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(data)


def compress_in_window(data: bytes, window_log: int) -> bytes:
    """The same frame, not as a single segment, with a window that its reader would have to hold."""
    frame = compress(data)
    assert frame[4] == 0x64, "a single segment with a checksum and a size of two bytes"
    return frame[:4] + bytes([0x44, (window_log - 10) << 3]) + frame[5:]


def test_a_good_bundle_is_not_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert check_bundle(path).manifest == list_bundle(path)
    folder = extract_bundle(path, tmp_path / "out")
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert (folder / NAME).read_bytes() == manifest_of(FILES)
    assert 1 << WINDOW_LOG == 128 << 20, "what tar accepts without an option"

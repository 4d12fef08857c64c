"""manifest.json: every other file of a release with its size and SHA-256, and the codes of every ternary tensor.

It ends with its own SHA-256. So it finds accidents; whoever changes a file on purpose can write another manifest, and
against that only a signature helps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tritpack.converter.release.contents import Contents, ContentsReader
from tritpack.converter.release.file_paths import DEEPEST, refuse_bad_paths
from tritpack.formats.errors import IntegrityFailed, TritpackError, Unreadable, locating
from tritpack.formats.files import atomic_output
from tritpack.formats.inputs import open_input, read_input
from tritpack.formats.json_text import json_text, parse_json
from tritpack.formats.progress import Progress, silent

NAME = "manifest.json"
SCHEMA = "tritpack.manifest/1"
KEYS = ("schema", "name", "files", "codes_sha256", "sha256")
LARGEST = 32 << 20
"""Bytes of a manifest: a GGUF of a large model takes 60 kB of it. JSON takes many times its bytes when it is read."""
LARGEST_FILE = 1 << 60
AGAINST_ACCIDENTS = (
    "the hashes find accidents; whoever changes a file on purpose can change them too, and only a signature shows that"
)
"""What every command that checks a manifest says."""
MAKERS = "`tritpack recipe run` makes releases, `tritpack bundle create` a bundle of any folder"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file of a release. path: with slashes, from its folder."""

    path: str
    nbytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """name: of the model. files: by path, sorted. codes_sha256: by the path of a GGUF, for each ternary tensor the hash
    that `inspect --stats` prints."""

    name: str | None
    files: Mapping[str, Entry]
    codes_sha256: Mapping[str, Mapping[str, str]]

    @property
    def nbytes(self) -> int:
        """Bytes of all files that it lists."""
        return sum(entry.nbytes for entry in self.files.values())

    def encoded(self) -> bytes:
        """The bytes of manifest.json."""
        body = self._body()
        return (json_text({**body, "sha256": _hash(body)}) + "\n").encode()

    def _body(self) -> dict[str, Any]:
        """Everything but its own hash."""
        files = [dataclasses.asdict(entry) for entry in self.files.values()]
        codes = {path: dict(tensors) for path, tensors in sorted(self.codes_sha256.items())}
        return {"schema": SCHEMA, "name": self.name, "files": files, "codes_sha256": codes}

    def compare(self, entry: Entry, contents: Contents) -> None:
        """Raise IntegrityFailed, naming the file or the tensor, unless a file holds what is listed."""
        if contents.nbytes != entry.nbytes:
            raise IntegrityFailed(f"{entry.path!r} has {contents.nbytes} bytes, the manifest says {entry.nbytes}")
        if contents.sha256 != entry.sha256:
            raise IntegrityFailed(f"{entry.path!r} has the SHA-256 {contents.sha256}, the manifest says {entry.sha256}")
        if contents.ternary is None:
            return
        listed, codes = self.codes_sha256.get(entry.path, {}), contents.ternary.codes
        for name in [*codes, *listed]:
            if codes.get(name) != listed.get(name):
                hashes = f"have the SHA-256 {codes.get(name)}, the manifest says {listed.get(name)}"
                raise IntegrityFailed(f"the codes in {entry.path!r} {hashes}", tensor=name)


def _hash(body: Mapping[str, Any]) -> str:
    """SHA-256 of JSON with sorted keys, without spaces, in UTF-8."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# -- reading -----------------------------------------------------------------------------------------------------------


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest in these bytes. Raises Unreadable for what is not one or has bad paths, IntegrityFailed if it
    is not as it was written: its hash differs, or a byte that the hash does not see."""
    if len(data) > LARGEST:
        raise Unreadable(f"{NAME} has {len(data)} bytes, expected at most {LARGEST}")
    try:
        document = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{NAME} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else document
        raise Unreadable(f"{NAME} has the schema {str(found)[:60]!r}, expected {SCHEMA!r}")
    if tuple(document) != KEYS:
        raise Unreadable(f"{NAME} has the keys {', '.join(map(str, document))[:200]}, expected {', '.join(KEYS)}")
    stated = document.pop("sha256")
    try:
        actual = _hash(document)
    except (ValueError, RecursionError) as error:  # NaN, which JSON lacks, and what is nested too deeply to be written
        raise Unreadable(f"{NAME} is not JSON: {error}") from error
    if stated != actual:
        says = f"its last line says {str(stated)[:64]}: it was changed"
        raise IntegrityFailed(f"{NAME} has the SHA-256 {actual}, and {says}")
    manifest = Manifest(_name(document["name"]), _entries(document["files"]), _codes(document["codes_sha256"]))
    if manifest.encoded() != data:
        raise IntegrityFailed(f"{NAME} is not written as tritpack writes it: it was changed")
    return manifest


def _name(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Unreadable(f"{NAME}: 'name' is {str(value)[:60]!r}, expected text")
    return value


def _entries(rows: Any) -> dict[str, Entry]:
    if not isinstance(rows, list):
        raise Unreadable(f"{NAME}: 'files' is not a list")
    entries = [_entry(row) for row in rows]
    paths = [entry.path for entry in entries]
    refuse_bad_paths([NAME, *paths])
    if paths != sorted(paths):
        raise Unreadable(f"{NAME}: 'files' is not sorted by path")
    return {entry.path: entry for entry in entries}


def _entry(row: Any) -> Entry:
    match row:
        case {"path": str(path), "nbytes": int(nbytes), "sha256": sha256, **rest} if not rest and _is_hash(sha256):
            if not isinstance(nbytes, bool) and 0 <= nbytes < LARGEST_FILE:
                return Entry(path, nbytes, sha256)
    raise Unreadable(f"{NAME}: {str(row)[:100]!r} is not a file with path, nbytes and sha256")


def _codes(value: Any) -> dict[str, dict[str, str]]:
    tables = list(value.values()) if isinstance(value, dict) else [None]
    for table in tables:
        if not isinstance(table, dict) or not all(_is_hash(item) for item in table.values()):
            raise Unreadable(f"{NAME}: 'codes_sha256' does not hold a hash for each tensor")
    codes: dict[str, dict[str, str]] = value
    return codes


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


# -- a folder ----------------------------------------------------------------------------------------------------------


def release_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths of a folder's files but its manifest, sorted, and those that are left out: hidden ones, which
    programs leave everywhere. Raises Unreadable for what is not a file, links included, and for bad paths."""
    if not folder.is_dir():
        raise Unreadable("is not a folder" if os.path.lexists(folder) else "does not exist", path=folder)
    paths: list[str] = []
    hidden: list[str] = []
    for entry, path in _walk(folder, ""):
        if entry.name.startswith("."):
            hidden.append(path)
        elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            raise Unreadable("is not a regular file, and releases hold nothing else", path=folder / path)
        elif path != NAME:
            paths.append(path)
    with locating(path=folder):
        refuse_bad_paths([NAME, *paths])
    return sorted(paths), sorted(hidden)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}", path=folder) from error
    for entry in entries:
        path = prefix + entry.name
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            if path.count("/") >= DEEPEST:
                raise Unreadable(f"is nested deeper than {DEEPEST} folders", path=folder)
            yield from _walk(folder / entry.name, f"{path}/")
        else:
            yield entry, path


def manifest_of(folder: str | Path, *, name: str | None = None, progress: Progress | None = None) -> Manifest:
    """Read every file of a folder and return its manifest. name: default: general.name of the first GGUF that has one.
    Raises Unreadable."""
    folder = Path(folder)
    paths, _ = release_files(folder)
    files, codes = {}, {}
    for path, contents in read_files(folder, paths, progress or silent):
        files[path] = Entry(path, contents.nbytes, contents.sha256)
        if contents.ternary is not None:
            codes[path] = contents.ternary.codes
            name = name or contents.ternary.name
    return Manifest(name, files, codes)


def read_files(folder: Path, paths: Iterable[str], progress: Progress) -> Iterator[tuple[str, Contents]]:
    """Read files of a folder, one after the other. Raises Unreadable."""
    reader, done = ContentsReader(), 0
    sizes = {path: (folder / path).stat().st_size for path in paths}
    for path, nbytes in sizes.items():
        progress(path, done, sum(sizes.values()))
        with open_input(folder / path) as stream:
            yield path, reader.read(path, nbytes, stream.read)
        done += nbytes
    progress("", done, done)


def write_manifest(
    folder: str | Path, *, name: str | None = None, force: bool = False, progress: Progress | None = None
) -> Path:
    """Write manifest.json into a folder, and return its path. name: see manifest_of. Raises Unreadable, UsageError if
    there is one and force is false, WriteFailed."""
    path = Path(folder) / NAME
    data = manifest_of(folder, name=name, progress=progress).encoded()
    with atomic_output(path, len(data), force=force) as stream:
        stream.write(data)
    return path


def read_manifest(folder: str | Path) -> Manifest:
    """Return the manifest of a folder. Raises Unreadable, IntegrityFailed."""
    path = Path(folder) / NAME
    if not os.path.lexists(path):
        inside = sorted(str(path.parent) for path in Path(folder).glob(f"*/{NAME}"))
        hint = f"give one release: {', '.join(inside[:3])}" if inside else MAKERS
        raise Unreadable(f"has no {NAME}, so it is not a release", path=folder, hint=hint)
    data = read_input(path)
    with locating(path=folder):
        return parse_manifest(data)


def check_listed(folder: Path, manifest: Manifest) -> None:
    """Raise IntegrityFailed unless a folder has the files of its manifest and no others but hidden ones."""
    paths, _ = release_files(folder)
    if missing := sorted(path for path in manifest.files.keys() - set(paths) if not (folder / path).is_file()):
        raise IntegrityFailed(f"{missing[0]!r} is in the manifest and not in the folder", path=folder)
    if extra := sorted(set(paths) - manifest.files.keys()):
        hint = f"remove it, or remove {NAME} to have it written anew"
        raise IntegrityFailed(f"{extra[0]!r} is in the folder and not in the manifest", path=folder, hint=hint)


def check_folder(folder: str | Path, *, progress: Progress | None = None) -> tuple[Manifest, dict[str, Contents]]:
    """Compare a folder with its manifest: the files that are there, their hashes, and the codes of each ternary tensor.

    Returns the manifest and what each file holds. Raises IntegrityFailed naming what differs, Unreadable."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    check_listed(folder, manifest)
    found = {}
    try:
        for path, contents in read_files(folder, manifest.files, progress or silent):
            manifest.compare(manifest.files[path], contents)
            found[path] = contents
    except TritpackError as error:
        error.path = error.path or folder
        raise
    return manifest, found

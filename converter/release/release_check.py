"""The check of a release, a folder or a bundle: manifest, the attestation of each GGUF, and the hashes in the card.

The manifest says what every other file is; attestations and the card must say the same. A bundle is read once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tritpack.converter.release.attestation import Attestation, attestation_name, parse_attestation
from tritpack.converter.release.attestation_name import SUFFIX as ATTESTATION
from tritpack.converter.release.bundle.archive import SUFFIX as BUNDLE
from tritpack.converter.release.bundle.reader import Write, open_bundle
from tritpack.converter.release.card import NAME as CARD
from tritpack.converter.release.card import hashes_in
from tritpack.converter.release.manifest import Entry, Manifest, check_folder
from tritpack.converter.release.signing import SUFFIX as SIGNATURE
from tritpack.converter.release.signing import verify_signature
from tritpack.formats.errors import IntegrityFailed, Unreadable
from tritpack.formats.inputs import read_input
from tritpack.formats.progress import Progress

LARGEST = 32 << 20
"""Bytes of all attestations, signatures and the card of a release; a large model's take less than one hundredth."""


@dataclasses.dataclass(frozen=True)
class Release:
    """A release whose files are what its manifest says. documents: attestations, signatures and the card, by path."""

    path: Path
    manifest: Manifest
    documents: Mapping[str, bytes]


def is_release(path: Path) -> bool:
    """Return whether this is a folder, or is called as a bundle is."""
    return path.is_dir() or path.name.endswith(BUNDLE)


def open_release(path: Path, progress: Progress) -> Release:
    """Read a release once and compare it with its manifest. Raises IntegrityFailed naming what differs, Unreadable."""
    if path.is_dir():
        manifest, _ = check_folder(path, progress=progress)
        _refuse_large(path, manifest)
        documents = {name: read_input(path / name) for name in manifest.files if _is_read(name)}
        for name, data in documents.items():  # which were read again
            if hashlib.sha256(data).hexdigest() != manifest.files[name].sha256:
                raise IntegrityFailed(f"{name!r} was changed while it was checked", path=path)
        return Release(path, manifest, documents)
    kept: dict[str, bytearray] = {}

    @contextlib.contextmanager
    def sink(entry: Entry) -> Iterator[Write | None]:
        if not _is_read(entry.path):
            yield None
            return
        kept[entry.path] = bytearray()
        yield kept[entry.path].extend

    with open_bundle(path) as bundle:
        _refuse_large(path, bundle.manifest)
        for _ in bundle.files(progress, codes=True, sink=sink):
            pass
        return Release(path, bundle.manifest, {name: bytes(data) for name, data in kept.items()})


def _refuse_large(path: Path, manifest: Manifest) -> None:
    """Raise Unreadable for documents that would fill the memory: a bundle of some kilobytes can hold gigabytes."""
    nbytes = sum(entry.nbytes for entry in manifest.files.values() if _is_read(entry.path))
    if nbytes > LARGEST:
        message = f"has {nbytes} bytes of attestations, signatures and card, expected at most {LARGEST}"
        raise Unreadable(message, path=path)


def _is_read(name: str) -> bool:
    return name == CARD or name.endswith((ATTESTATION, SIGNATURE))


def attestations_of(release: Release) -> dict[str, Attestation]:
    """Return the attestation of each GGUF, by the path of its (first) file.

    Raises IntegrityFailed for a GGUF without one, or with one that is about other bytes or other codes; Unreadable;
    CheckFailed if the attested verdict is not pass.
    """
    sets: dict[str, list[str]] = {}
    for name in release.manifest.files:
        if name.endswith(".gguf"):
            sets.setdefault(attestation_name(name).as_posix(), []).append(name)
    if not sets:
        raise Unreadable("holds no .gguf file", path=release.path)
    found = {}
    for name, ggufs in sets.items():
        if name not in release.documents:
            raise IntegrityFailed(f"{ggufs[0]!r} has no attestation, {name!r}", path=release.path)
        attested = parse_attestation(release.documents[name], release.path / name)
        _compare(release, attested, ggufs)
        attested.require_pass()
        found[ggufs[0]] = attested
    return found


def _compare(release: Release, attested: Attestation, ggufs: list[str]) -> None:
    """Raise IntegrityFailed unless an attestation and the manifest say the same of the files of one GGUF."""
    hashes = {Path(name).name: release.manifest.files[name].sha256 for name in ggufs}
    subjects = attested.subjects
    for name in {**hashes, **subjects}:
        if hashes.get(name) != subjects.get(name):
            is_now, said = hashes.get(name, "no such file"), subjects.get(name, "no such file")
            raise IntegrityFailed(f"{name!r} is {is_now} by the manifest, and {said} is attested", path=attested.path)
    listed: dict[str, str] = {}
    for name in ggufs:
        listed |= release.manifest.codes_sha256.get(name, {})
    codes = attested.predicate["codes_sha256"]
    for name in {**listed, **codes}:
        if listed.get(name) != codes.get(name):
            said, is_now = codes.get(name, "nothing"), listed.get(name, "nothing")
            message = f"its codes have SHA-256 {is_now} by the manifest, and {said} is attested"
            raise IntegrityFailed(message, path=attested.path, tensor=name)


def check_card(release: Release) -> None:
    """Raise IntegrityFailed unless the card, if there is one, gives each GGUF with its hash."""
    if CARD not in release.documents:
        return
    path = release.path / CARD
    try:
        said = hashes_in(release.documents[CARD].decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Unreadable(f"cannot be read as UTF-8 text: {error}", path=path) from error
    hashes = {name: entry.sha256 for name, entry in release.manifest.files.items() if name.endswith(".gguf")}
    for name, digest in said:
        if name not in hashes:
            raise IntegrityFailed(f"gives the hash of {name!r}, which is not in the release", path=path)
        if digest != hashes[name]:
            raise IntegrityFailed(f"gives {name!r} the SHA-256 {digest}, and it is {hashes[name]}", path=path)
    if missing := sorted(hashes.keys() - dict(said)):
        raise IntegrityFailed(f"does not give the hash of {missing[0]!r}", path=path)


def check_signatures(release: Release, attestations: Mapping[str, Attestation], public_key: str | Path) -> None:
    """Raise IntegrityFailed unless each attestation is signed with this key, by NAME.intoto.json.sig in the release."""
    with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
        for attested in attestations.values():
            name = attested.path.relative_to(release.path).as_posix()
            signature = name + SIGNATURE
            if signature not in release.documents:
                hint = "give a signature of the whole release with --signature"
                raise IntegrityFailed(f"{name!r} has no signature, {signature!r}", path=release.path, hint=hint)
            paths = [Path(folder) / "attestation", Path(folder) / "signature"]
            for path, data in zip(paths, (release.documents[name], release.documents[signature])):
                path.write_bytes(data)
            verify_signature(paths[0], paths[1], public_key, called=attested.path)

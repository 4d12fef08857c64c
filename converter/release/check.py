"""`tritpack check`: whether a file is the one that an attestation is about, in seconds and without its source.

With the source it is proved again: the ladder is climbed to the attested level, and what is found is compared with what
was attested.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritpack.converter.release.attestation import (
    ORIGIN,
    Attestation,
    attestation_name,
    codes_hashes,
    read_attestation,
)
from tritpack.converter.release.attestation import statement as statement_of
from tritpack.converter.release.bundle.gguf_member import bundle_in
from tritpack.converter.release.release_check import (
    attestations_of,
    check_card,
    check_signatures,
    is_release,
    open_release,
)
from tritpack.converter.release.signing import signature_name, verify_signature
from tritpack.formats.errors import CheckFailed, IntegrityFailed, Unreadable, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.progress import Progress, silent

if TYPE_CHECKING:
    from tritpack.converter.verify.rung import Report, Rung

SCHEMA = "tritpack.check/1"
NOT_SIGNED = (
    "hashes find accidents; whoever can change the file can change its attestation too: only a signature "
    "(--public-key) helps against intent"
)
SIGNED = "{} is signed with the key that was given"


@dataclasses.dataclass
class Checked:
    """A file that is the one that was attested. proved: it was proved again, from its source."""

    file: str
    attestation: Attestation
    proved: bool = False

    def as_json(self) -> dict[str, Any]:
        predicate = self.attestation.predicate
        return {
            "file": self.file,
            "attestation": str(self.attestation.path),
            "sha256": self.attestation.subjects,
            "conclusion": predicate["conclusion"],
            "level": predicate["level"],
            "rungs": [{key: rung[key] for key in ("name", "verdict")} for rung in predicate["rungs"]],
            "source": predicate["source"],
            "verifier": predicate["verifier"],
            "proved_again": self.proved,
        }


@dataclasses.dataclass
class Check:
    """The result of `check`: what is intact. kind: gguf, folder or bundle. notes: worth reading."""

    file: str
    kind: str
    attested: list[Checked]
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def conclusion(self) -> str:
        """What is known now, in one sentence."""
        again = ", and it was proved again" if all(checked.proved for checked in self.attested) else ""
        return f"{self.file} is what was attested{again}"

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "file": self.file,
            "kind": self.kind,
            "verdict": "pass",
            "attested": [checked.as_json() for checked in self.attested],
            "notes": self.notes,
        }


def check(
    file: str | Path,
    *,
    attestation: str | Path | None = None,
    source: str | Path | None = None,
    revision: str | None = None,
    public_key: str | Path | None = None,
    signature: str | Path | None = None,
    reading: Progress = silent,
    progress: Callable[[str], None] = lambda rung: None,
    climbed: Callable[[Rung], None] = lambda rung: None,
) -> Check:
    """Check that FILE is the file that ATTESTATION is about, and that it was proved.

    file: a GGUF; or a release, a folder or a bundle, of which the manifest, the attestation of each GGUF and the hashes
    in the card are checked, with nothing but the release. attestation: of a GGUF; by default NAME.intoto.json in its
    folder. source, revision: prove it again from this source (see verify). public_key: the attestation, in a release
    each of them, must be signed with this key. signature: NAME.intoto.json.sig by default; for a release also that of
    the bundle or of the folder's manifest.json, which protects all of it. reading: is told how much of a release is
    read. progress and climbed are called before and after each rung of a proof.
    Raises IntegrityFailed where a hash differs, CheckFailed if the attested verdict is not pass or if the proof fails
    now, Unreadable for an attestation that is missing or damaged, and what verify raises.
    """
    for option, value, needed, given in (
        ("--revision", revision, "--source", source),
        ("--signature", signature, "--public-key", public_key),
    ):
        if value is not None and given is None:
            raise UsageError(f"{option} is for {needed}, which is not given")
    again = None if source is None else _Again(source, revision, progress, climbed)
    if is_release(Path(file)):
        if attestation is not None:
            raise UsageError("--attestation is for a GGUF; a release has an attestation for each", path=file)
        return _check_release(Path(file), again, public_key, signature, reading)
    if (bundle := bundle_in(str(file))) is not None:
        raise UsageError("is one file of a bundle, which is checked as a whole", path=file, hint=f"check {bundle[0]}")
    opened = GgufFile(file)
    path = _attestation_of(file, attestation)
    if public_key is not None:
        verify_signature(path, signature or signature_name(path), public_key)
    attested = read_attestation(path)
    compare_hashes(attested, opened.file_hashes, file)
    attested.require_pass()
    result = Check(str(file), "gguf", [Checked(str(file), attested)])
    if again is not None:
        again.prove(Path(file), result.attested[0], result.notes)
    result.notes.append(NOT_SIGNED if public_key is None else SIGNED.format("the attestation"))
    return result


def _check_release(
    path: Path,
    again: _Again | None,
    public_key: str | Path | None,
    signature: str | Path | None,
    reading: Progress,
) -> Check:
    """Check a folder or bundle. signature: that of the bundle, or of the folder's manifest."""
    from tritpack.converter.release.bundle.gguf_member import unpacked_gguf
    from tritpack.converter.release.manifest import NAME

    is_folder = path.is_dir()
    signed = path / NAME if is_folder else path
    if public_key is not None and signature is not None:
        verify_signature(signed, signature, public_key)
    release = open_release(path, reading)
    attestations = attestations_of(release)
    check_card(release)
    if public_key is not None and signature is None:
        check_signatures(release, attestations, public_key)
    result = Check(str(path), "folder" if is_folder else "bundle", [])
    for name, attested in attestations.items():
        checked = Checked(f"{path}/{name}", attested)
        result.attested.append(checked)
        if again is not None:
            with contextlib.nullcontext(path / name) if is_folder else unpacked_gguf(path, name) as gguf:
                again.prove(gguf, checked, result.notes)
    if public_key is None:
        result.notes.append(NOT_SIGNED)
    else:
        result.notes.append(SIGNED.format("each attestation" if signature is None else signed.name))
    return result


def _attestation_of(file: str | Path, attestation: str | Path | None) -> Path:
    path = attestation_name(file) if attestation is None else Path(attestation)
    if attestation is None and not path.exists():
        hint = "give its path with --attestation; `verify --attest` writes one"
        raise Unreadable(f"has no attestation {path.name} in its folder", path=file, hint=hint)
    return path


def compare_hashes(attested: Attestation, hashes: Mapping[str, str], file: str | Path) -> None:
    """Raise IntegrityFailed if these are not the files that were proved. hashes: SHA-256 by name, in order."""
    subjects = attested.subjects
    if len(subjects) != len(hashes):
        raise IntegrityFailed(f"has {len(hashes)} files, {attested.path} is about {len(subjects)}", path=file)
    same_names = subjects.keys() == hashes.keys()
    for (name, digest), subject in zip(hashes.items(), hashes if same_names else subjects):
        if digest != subjects[subject]:
            called = "" if name == subject else f" of {subject}"
            raise IntegrityFailed(
                f"{name} has SHA-256 {digest}, {attested.path} is about {subjects[subject]}{called}",
                path=file,
                hint="the file or the attestation was changed, or they do not belong together",
            )


# -- proving again -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Again:
    """Proves files again from a source. progress, climbed: see check."""

    source: str | Path
    revision: str | None
    progress: Callable[[str], None]
    climbed: Callable[[Rung], None]

    def prove(self, file: Path, checked: Checked, notes: list[str]) -> None:
        """Verify with the level and options that were attested, and compare. Raises CheckFailed, IntegrityFailed."""
        from tritpack.converter.verify.ladder import ORACLES, verify

        predicate = checked.attestation.predicate
        options = predicate["options"]
        oracle = options.get("oracle")
        report = verify(
            file,
            self.source,
            level=predicate["level"],
            revision=self.revision,
            quantize=options.get("quantize"),
            oracle=oracle if oracle in ORACLES else ORACLES[0],
            strict=options.get("strict", False),
            reproduce=options.get("reproduce", False),
            progress=self.progress,
            climbed=self.climbed,
        )
        if report.verdict != "pass":
            raise CheckFailed(f"{report.conclusion}: {report.first_finding}", path=checked.file)
        notes += _compare(checked.attestation, report, codes_hashes(GgufFile(file)))
        checked.proved = True


def _compare(attested: Attestation, report: Report, codes: Mapping[str, str]) -> list[str]:
    """Compare what was proved now with what was attested, and return notes.

    Raises IntegrityFailed for another hash.
    """
    found, said = statement_of(report, codes)["predicate"], attested.predicate
    _compare_hashes("file of the source", attested.source_files, report.provenance["source_files"], attested.path)
    _compare_hashes("codes of tensor", said["codes_sha256"], codes, attested.path)
    notes = []
    for key in ORIGIN:
        here, there = found["source"].get(key), said["source"].get(key)
        if here != there and here is not None and there is not None:
            notes.append(f"the source is {key} {here} now, {there} is attested; its files are the same")
    verdicts = {rung["name"]: rung["verdict"] for rung in found["rungs"]}
    for rung in said["rungs"]:
        name = rung["name"]
        if rung["verdict"] == "pass" and verdicts.get(name) != "pass":
            reason = report[name].skipped if name in verdicts else "not climbed"
            notes.append(f"the rung {name} is attested as passed, and was not proved again: {reason}")
    if given := said["options"].get("inputs"):
        notes.append(f"{', '.join(given)} of the attested run were not given again; built-in input was used")
    version = said["verifier"]["version"]
    if version != found["verifier"]["version"]:
        notes.append(f"attested by version {version}, proved again by {found['verifier']['version']}")
    return notes


def _compare_hashes(what: str, attested: Mapping[str, str], found: Mapping[str, str], path: Path) -> None:
    for name in {**attested, **found}:
        said, is_now = (hashes.get(name, "nothing") for hashes in (attested, found))
        if said != is_now:
            raise IntegrityFailed(f"{what} {name!r}: attested is SHA-256 {said}, found was {is_now}", path=path)

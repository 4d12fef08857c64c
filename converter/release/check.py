"""`tritpack check`: whether a file is the one that an attestation is about, in seconds and without its source.

With the source it is proved again: the ladder is climbed to the attested level, and what is found is compared with what
was attested.
"""

from __future__ import annotations

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
from tritpack.converter.release.signing import signature_name, verify_signature
from tritpack.formats.errors import CheckFailed, IntegrityFailed, Unreadable, UsageError
from tritpack.formats.gguf_reader import GgufFile

if TYPE_CHECKING:
    from tritpack.converter.verify.rung import Report, Rung

SCHEMA = "tritpack.check/1"
NOT_SIGNED = (
    "hashes find accidents; whoever can change the file can change its attestation too: only a signature "
    "(--public-key) helps against intent"
)
SIGNED = "the attestation is signed with the key that was given, and it has the hashes of the file"


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
    progress: Callable[[str], None] = lambda rung: None,
    climbed: Callable[[Rung], None] = lambda rung: None,
) -> Check:
    """Check that FILE is the file that ATTESTATION is about, and that it was proved.

    attestation: NAME.intoto.json beside FILE by default. source, revision: prove it again from this source (see
    verify). public_key: the attestation must be signed with this key. signature: NAME.intoto.json.sig by default.
    progress and climbed are called before and after each rung of that.
    Raises IntegrityFailed where a hash differs, CheckFailed if the attested verdict is not pass or if the proof fails
    now, Unreadable for an attestation that is missing or damaged, and what verify raises.
    """
    if source is None and revision is not None:
        raise UsageError("--revision is for --source, which is not given")
    if public_key is None and signature is not None:
        raise UsageError("--signature is for --public-key, which is not given")
    opened = GgufFile(file)
    path = _attestation_of(file, attestation)
    if public_key is not None:
        verify_signature(path, signature or signature_name(path), public_key)
    attested = read_attestation(path)
    compare_hashes(attested, opened.file_hashes, file)
    attested.require_pass()
    result = Check(str(file), "gguf", [Checked(str(file), attested)])
    if source is not None:
        report = _climb(file, attested, source, revision, progress, climbed)
        result.notes += _compare(attested, report, codes_hashes(opened))
        result.attested[0].proved = True
    result.notes.append(NOT_SIGNED if public_key is None else SIGNED)
    return result


def _attestation_of(file: str | Path, attestation: str | Path | None) -> Path:
    path = attestation_name(file) if attestation is None else Path(attestation)
    if attestation is None and not path.exists():
        hint = "give its path with --attestation; `verify --attest` writes one"
        raise Unreadable(f"has no attestation beside it, {path.name}", path=file, hint=hint)
    return path


def compare_hashes(attested: Attestation, hashes: Mapping[str, str], file: str | Path) -> None:
    """Raise IntegrityFailed if these are not the files that were proved. hashes: SHA-256 by name, in order."""
    subjects = attested.subjects
    if len(subjects) != len(hashes):
        raise IntegrityFailed(f"has {len(hashes)} files, {attested.path} is about {len(subjects)}", path=file)
    for (name, digest), (subject, proved) in zip(hashes.items(), subjects.items()):
        if digest != proved:
            called = "" if name == subject else f" of {subject}"
            raise IntegrityFailed(
                f"{name} has SHA-256 {digest}, {attested.path} is about {proved}{called}",
                path=file,
                hint="the file or the attestation was changed, or they do not belong together",
            )


# -- proving again -----------------------------------------------------------------------------------------------------


def _climb(
    file: str | Path,
    attested: Attestation,
    source: str | Path,
    revision: str | None,
    progress: Callable[[str], None],
    climbed: Callable[[Rung], None],
) -> Report:
    """Verify with the level and options that were attested. Raises CheckFailed if the file does not pass now."""
    from tritpack.converter.verify.ladder import ORACLES, verify

    options = attested.predicate["options"]
    oracle = options.get("oracle")
    report = verify(
        file,
        source,
        level=attested.predicate["level"],
        revision=revision,
        quantize=options.get("quantize"),
        oracle=oracle if oracle in ORACLES else ORACLES[0],
        strict=options.get("strict") is True,
        reproduce=options.get("reproduce") is True,
        progress=progress,
        climbed=climbed,
    )
    if report.verdict != "pass":
        raise CheckFailed(f"{report.conclusion}: {report.first_finding}", path=file)
    return report


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
        notes.append(f"{', '.join(map(str, given))} of the attested run were not given again; built-in input was used")
    version = said["verifier"]["version"]
    if version != found["verifier"]["version"]:
        notes.append(f"attested by version {version}, proved again by {found['verifier']['version']}")
    return notes


def _compare_hashes(what: str, attested: Mapping[str, str], found: Mapping[str, str], path: Path) -> None:
    for name in {**attested, **found}:
        said, is_now = (hashes.get(name, "nothing") for hashes in (attested, found))
        if said != is_now:
            raise IntegrityFailed(f"{what} {name!r}: attested is SHA-256 {said}, found was {is_now}", path=path)

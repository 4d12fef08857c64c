"""Attestations: what `verify` proved of a file, as an in-toto Statement v1.

The subjects are the files, by SHA-256. The predicate says with which files of which repository they were compared, by
which version, and the verdict of each rung. It holds nothing that depends on the machine, the folder or the time: equal
files and options give equal bytes. A failed report is not attested.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tritpack.converter.pipeline.in_order import threads_for
from tritpack.converter.release.attestation_name import attestation_name as attestation_name
from tritpack.converter.sources.hub import REPO
from tritpack.converter.verify.rung import Report
from tritpack.converter.verify.rungs import LEVELS
from tritpack.formats.errors import CheckFailed, IntegrityFailed, Unreadable, locating
from tritpack.formats.files import atomic_output
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.inputs import read_input
from tritpack.formats.json_text import json_text, parse_json
from tritpack.formats.names import FLOAT_QUANTIZERS
from tritpack.runtime import packers

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:tritpack:conversion-proof:1"
"""A name and no address, which the specification allows; the number changes where a key changes its meaning."""
ORIGIN = ("repository", "commit")
HASH = re.compile("[0-9a-f]{64}")
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def write_attestation(report: Report, output: str | Path, *, file: str | Path, force: bool = False) -> Path:
    """Write what a report proves of a file to OUTPUT (NAME.intoto.json). file: the GGUF that the report is about.

    Raises CheckFailed if the verdict is not pass: nothing is written then. Raises UsageError if OUTPUT exists and
    `force` is not given, WriteFailed, Unreadable.
    """
    if report.verdict != "pass":
        hint = "give --source" if report.verdict == "unproved" else "--report DIR writes what was found"
        raise CheckFailed(f"nothing is attested, because the verdict is {report.verdict}", path=file, hint=hint)
    data = encode(statement(report, codes_hashes(GgufFile(file))))
    with atomic_output(Path(output), len(data), force=force) as stream:
        stream.write(data)
    return Path(output)


def statement(report: Report, codes: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement about a report. codes: the SHA-256 of the codes of each ternary tensor, by name."""
    about = report.provenance
    origin: dict[str, Any] = {key: about[f"source_{key}"] for key in ORIGIN if f"source_{key}" in about}
    if recorded := {key: about[f"recorded_{key}"] for key in ORIGIN if f"recorded_{key}" in about}:
        origin["recorded_in_file"] = recorded
    document: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": _descriptors(about["files"]),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "verdict": report.verdict,
            "conclusion": report.conclusion,
            "level": about["level"],
            "options": about["options"],
            "oracle": about["oracle"],
            "verifier": {"name": "tritpack", "version": about["tritpack"]},
            "source": {**origin, "sha256": about["source_sha256"], "files": _descriptors(about["source_files"])},
            "rungs": [
                {
                    "name": rung.name,
                    "verdict": rung.verdict,
                    "compares": rung.compares,
                    **({"reason": rung.skipped} if rung.skipped else {}),
                }
                for rung in report.rungs
            ],
            "codes_sha256": dict(codes),
        },
    }
    document["predicate"]["statement_sha256"] = content_hash(document)
    return document


def _descriptors(hashes: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in hashes.items()]


def encode(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a statement's file."""
    return (json_text(document) + "\n").encode("utf-8")


def content_hash(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a statement without its `statement_sha256`, as JSON with sorted keys and no spaces."""
    predicate = {key: value for key, value in document["predicate"].items() if key != "statement_sha256"}
    text = json.dumps({**document, "predicate": predicate}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def codes_hashes(file: GgufFile) -> dict[str, str]:
    """Return the SHA-256 of the codes of each ternary tensor, by name, as `inspect --stats` shows it."""
    packers.use_c_packers()
    tensors = [tensor for tensor in file.tensors.values() if file.layout_of(tensor)]
    largest = max((tensor.rows * tensor.cols for tensor in tensors), default=1)

    def hashed(tensor: TensorInfo) -> str:
        ternary = file.ternary(tensor)
        assert ternary is not None
        digest = ternary.codes_sha256()
        file.release(tensor)
        return digest

    with ThreadPoolExecutor(threads_for(2 * largest)) as pool:
        return dict(zip((tensor.name for tensor in tensors), pool.map(hashed, tensors)))


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Attestation:
    """A statement that was read and is well formed. path: where it lies."""

    path: Path
    document: Mapping[str, Any]

    @property
    def predicate(self) -> Mapping[str, Any]:
        predicate: Mapping[str, Any] = self.document["predicate"]
        return predicate

    @functools.cached_property
    def subjects(self) -> dict[str, str]:
        """The SHA-256 of each file that was proved, by name, in the order of the parts."""
        return _hashes(self.document["subject"])

    @functools.cached_property
    def source_files(self) -> dict[str, str]:
        """The SHA-256 of each file of the source, by name."""
        return _hashes(self.predicate["source"]["files"])

    @property
    def source(self) -> str:
        """The source in words: `ORG/NAME at COMMIT` and its hash. What only the file says is called that."""
        source = self.predicate["source"]
        recorded = source.get("recorded_in_file", {})
        named, said = (source, "") if "repository" in source else (recorded, ", as the file records")
        at_commit = f" at commit {named['commit']}" if "commit" in named else ""
        where = f"{named['repository']}{at_commit}{said}: " if "repository" in named else ""
        return f"{where}{len(self.source_files)} files, SHA-256 {source['sha256']}"

    def require_pass(self) -> None:
        """Raise CheckFailed if what it attests is not a pass."""
        failed = [rung["name"] for rung in self.predicate["rungs"] if rung["verdict"] == "fail"]
        verdict = self.predicate["verdict"]
        if verdict != "pass" or failed:
            rungs = f" in {', '.join(failed)}" if failed else ""
            raise CheckFailed(f"the attested verdict is {'fail' if failed else verdict}{rungs}", path=self.path)
        if all(rung["verdict"] == "skipped" for rung in self.predicate["rungs"]):
            raise CheckFailed("the attested verdict is pass, and no rung is attested as passed", path=self.path)


def read_attestation(path: str | Path) -> Attestation:
    """Read an attestation. Raises Unreadable, and IntegrityFailed if it was changed after it was written."""
    return parse_attestation(read_input(Path(path)), path)


def parse_attestation(data: bytes, path: str | Path) -> Attestation:
    """Return the attestation in the bytes of a file. path: what errors call it. Raises as read_attestation."""
    with locating(path=path):
        try:
            document = parse_json(data)
            _check_structure(document)
            recorded, actual = document["predicate"]["statement_sha256"], content_hash(document)
            written = encode(document)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"is not readable JSON: {error}") from error
        if recorded != actual:
            raise IntegrityFailed(
                f"its content has SHA-256 {actual}, and it says {recorded}: it was changed after it was written"
            )
        if written != data:  # a key that stands twice, of which another reader takes the other one, or a space
            raise IntegrityFailed("is not written as tritpack writes it: it was changed after it was written")
    return Attestation(Path(path), document)


def _check_structure(document: Any) -> None:
    """Raise Unreadable for what is not a statement of ours, naming the key that is wrong."""
    if not isinstance(document, dict):
        raise Unreadable(f"holds {type(document).__name__}, expected an in-toto statement")
    for key, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if document.get(key) != expected:
            raise Unreadable(f"{key} is {document.get(key)!r}, expected {expected!r}")
    predicate = _of_type(document, "predicate", dict)
    for key in ("conclusion", "oracle", "level", "statement_sha256"):
        _of_type(predicate, key, str)
    _one_of(predicate, "level", LEVELS)
    _one_of(predicate, "verdict", ("pass", "fail"))
    _check_options(_of_type(predicate, "options", dict))
    _of_type(_of_type(predicate, "verifier", dict), "version", str)
    source = _of_type(predicate, "source", dict)
    for origin in (source, _of_type({"recorded_in_file": {}, **source}, "recorded_in_file", dict)):
        for key in ORIGIN:
            _of_type({key: "", **origin}, key, str)
    if not REPO.fullmatch(source.get("repository", "a/b")) or not COMMIT.fullmatch(source.get("commit", "0" * 40)):
        raise Unreadable(f"{source.get('repository')!r} at {source.get('commit')!r} cannot be on the Hub")
    _hash(source, "sha256")
    _check_descriptors(document, "subject")
    _check_descriptors(source, "files")
    for rung in _of_type(predicate, "rungs", list):
        _of_type({"rung": rung}, "rung", dict)
        _of_type(rung, "name", str)
        _one_of(rung, "verdict", ("pass", "fail", "skipped"))
    codes = _of_type(predicate, "codes_sha256", dict)
    for name in codes:
        _hash(codes, name)


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise Unreadable for an option of `verify` that cannot have been given."""
    _one_of({"quantize": None, **options}, "quantize", (None, *FLOAT_QUANTIZERS))
    _of_type({"oracle": "", **options}, "oracle", str)
    for key in ("strict", "reproduce"):
        _of_type({key: False, **options}, key, bool)
    for name in _of_type({"inputs": [], **options}, "inputs", list):
        _of_type({"inputs": name}, "inputs", str)


def _check_descriptors(holder: Mapping[str, Any], key: str) -> None:
    descriptors = _of_type(holder, key, list)
    if not descriptors:
        raise Unreadable(f"{key} is empty, expected at least one file")
    for descriptor in descriptors:
        _of_type({key: descriptor}, key, dict)
        _of_type(descriptor, "name", str)
        _hash(_of_type(descriptor, "digest", dict), "sha256")
    name, count = Counter(descriptor["name"] for descriptor in descriptors).most_common(1)[0]
    if count > 1:
        raise Unreadable(f"{key} names {name!r} twice")


def _of_type(holder: Mapping[str, Any], key: str, kind: type) -> Any:
    value = holder.get(key)
    if not isinstance(value, kind):
        raise Unreadable(f"{key} is {type(value).__name__}, expected {kind.__name__}")
    return value


def _one_of(holder: Mapping[str, Any], key: str, values: tuple[str | None, ...]) -> None:
    if holder.get(key) not in values:
        raise Unreadable(f"{key} is {holder.get(key)!r}, expected one of: {', '.join(filter(None, values))}")


def _hash(holder: Mapping[str, Any], key: str) -> None:
    if not HASH.fullmatch(_of_type(holder, key, str)):
        raise Unreadable(f"{key} is {holder[key]!r}, expected the 64 hexadecimal digits of a SHA-256")


def _hashes(descriptors: list[Mapping[str, Any]]) -> dict[str, str]:
    return {descriptor["name"]: descriptor["digest"]["sha256"] for descriptor in descriptors}

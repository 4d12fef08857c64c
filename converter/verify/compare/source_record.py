"""What FILE records of its source, beside the source itself: the hashes of the source's files.

They are bookkeeping. What the model is decides whether FILE is right, so a hash that differs is a note, which names the
files that changed. Only where the model differs too does it say that FILE was made from something else.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.compare.metadata_values import same, short
from tritpack.formats.gguf_reader import GgufFile

HASH_KEY = "general.source.sha256"
FILES_KEY = "tritpack.source.files"
FORMAT_KEY = "general.source.format"
LINE = re.compile(r"([0-9a-f]{64})  (.+)", re.DOTALL)
SHOWN = 12
"""Digits of a hash that a sentence shows."""


@dataclasses.dataclass(frozen=True)
class SourceRecord:
    """Whether FILE was made from this source, by the hashes that it records.

    differs: one of them is not the source's. other_weights: so is every file of weights, or FILE lists no files. note:
    what is worth reading, or None. recorded, actual: the hash of the whole source, "" if there is nothing to compare.
    """

    differs: bool = False
    other_weights: bool = False
    note: str | None = None
    recorded: str = ""
    actual: str = ""

    @property
    def accusation(self) -> str:
        """The one sentence for a file whose model is not the source's."""
        return (
            f"this file was not made from this source: it records {_start(self.recorded)}, "
            f"the source is {_start(self.actual)}"
        )


def read_record(file: GgufFile, source: CheckpointFolder | GgufFile, source_sha256: str) -> SourceRecord:
    """Compare what FILE records with the source, whose own hash is source_sha256."""
    recorded = file.metadata.get(HASH_KEY)
    if recorded is None:
        return SourceRecord(note="the file records no hash of its source")
    from_gguf = same(file.metadata.get(FORMAT_KEY), "gguf")
    if isinstance(source, GgufFile):
        if HASH_KEY not in source.metadata and not from_gguf:
            return SourceRecord(note="the file was made from a checkpoint, and the source does not say from which")
        # A file that records its source passes that on; any other GGUF is the source itself.
        actual = source.metadata.get(HASH_KEY) or source_sha256
        lines = source.metadata.get(FILES_KEY, ())
    elif from_gguf:
        return SourceRecord(
            note="the file was made from another GGUF; whether that came from this checkpoint, hashes cannot tell"
        )
    else:
        actual = source_sha256
        lines = [f"{digest}  {name}" for name, digest in source.file_hashes.items()]
    return _compare(recorded, str(actual), file.metadata.get(FILES_KEY), lines)


def _compare(recorded: Any, actual: str, recorded_lines: Any, lines: Any) -> SourceRecord:
    same_hash = same(recorded, actual)
    if not isinstance(recorded, str):
        recorded = short(recorded)
    if same_hash and (recorded_lines is None or same(recorded_lines, lines)):
        return SourceRecord(recorded=recorded, actual=actual)
    ours, theirs = _hashes(recorded_lines), _hashes(lines)
    if not ours or not theirs:
        note = f"made from another source or revision: it records {_start(recorded)}, the source is {_start(actual)}"
        return SourceRecord(True, True, note, recorded, actual)
    weights = [name for name in theirs if name.endswith(".safetensors")]
    other_weights = not any(ours.get(name) == theirs[name] for name in weights)
    return SourceRecord(True, other_weights, f"made from another revision: {_changes(ours, theirs)}", recorded, actual)


def _changes(recorded: dict[str, str], actual: dict[str, str]) -> str:
    """Which files differ, in words: `config.json differs, model.safetensors is equal`."""
    both = [name for name in actual if name in recorded]
    groups = [
        ([name for name in both if recorded[name] != actual[name]], "differs", "differ"),
        ([name for name in actual if name not in recorded], "is new", "are new"),
        ([name for name in recorded if name not in actual], "is missing", "are missing"),
        ([name for name in both if recorded[name] == actual[name]], "is equal", "are equal"),
    ]
    return ", ".join(
        f"{' and '.join([', '.join(names[:-1])] * (len(names) > 1) + names[-1:])} {one if len(names) == 1 else many}"
        for names, one, many in groups
        if names
    )


def _hashes(lines: Any) -> dict[str, str]:
    """Hash by name of lines `HASH  NAME`; {} if anything else stands there."""
    if not isinstance(lines, Sequence) or isinstance(lines, str):
        return {}
    matches = [LINE.fullmatch(line) if isinstance(line, str) else None for line in lines]
    return {match[2]: match[1] for match in matches if match} if all(matches) else {}


def _start(digest: str) -> str:
    return f"{digest[:SHOWN]}..." if len(digest) > SHOWN else digest

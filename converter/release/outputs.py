"""The GGUF files of a release folder, and what is known of each: from its metadata, its attestation and its report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tritpack.converter.release.attestation import Attestation, attestation_name, read_attestation
from tritpack.converter.targets import engines
from tritpack.converter.targets.engines.engine import Engine
from tritpack.formats import model_metadata
from tritpack.formats.errors import IntegrityFailed, Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.inputs import read_input
from tritpack.formats.json_text import parse_json
from tritpack.formats.model_spec import ModelSpec
from tritpack.runtime.token_bytes import cache_bytes


@dataclasses.dataclass(frozen=True)
class Output:
    """A GGUF of a release, which may be split. attestation, report: None where there is none beside it."""

    file: GgufFile
    attestation: Attestation | None
    report: Mapping[str, Any] | None

    @functools.cached_property
    def spec(self) -> ModelSpec:
        return model_metadata.from_gguf(self.file)

    @property
    def name(self) -> str:
        """The name of the file that a reader is given."""
        return self.file.path.name

    @property
    def layouts(self) -> list[str]:
        """The layouts of its ternary tensors, the most frequent one first."""
        names = [tensor.layout for tensor in self.file.tensors.values() if self.file.layout_of(tensor)]
        return sorted(set(names), key=lambda name: (-names.count(name), name))

    @property
    def bits_per_weight(self) -> float:
        """Bits per ternary weight, scales and padding included."""
        tensors = [tensor for tensor in self.file.tensors.values() if self.file.layout_of(tensor)]
        weights = sum(tensor.rows * tensor.cols for tensor in tensors)
        return 8 * sum(tensor.nbytes for tensor in tensors) / weights if weights else 0.0

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each of its files, by name: those that were attested, or taken now. Raises IntegrityFailed for an
        attestation that is about other files."""
        if self.attestation is None:
            return self.file.file_hashes
        subjects = self.attestation.subjects
        if subjects.keys() != {path.name for path in self.file.files}:
            raise IntegrityFailed(f"{self.attestation.path} is about {', '.join(subjects)}", path=self.file.path)
        return subjects

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV cache of our runtime for 1024 positions, in float32."""
        return 1024 * cache_bytes(self.spec, "f32")

    def engines(self) -> Iterator[tuple[Engine, Sequence[str]]]:
        """The engines that run this file right, and what to know of each."""
        shapes = {t.name: (t.rows, t.cols) for t in self.file.tensors.values() if self.file.layout_of(t)}
        for name in engines.NAMES:
            engine = engines.by_name(name)
            if engine.architecture(self.spec) != self.spec.architecture:
                continue
            if not engine.ternary_tables and any(not tensor.startswith("blk.") for tensor in shapes):
                continue
            try:
                notes = [
                    note
                    for layout in self.layouts
                    for note in engine.check(self.spec, layout, shapes, allow_wrong=False)
                ]
            except Unsupported:
                continue
            yield engine, list(dict.fromkeys(notes))


def outputs_of(folder: str | Path) -> list[Output]:
    """Return the GGUF files of a folder, sorted by name; a split one once. Raises Unreadable if there is none."""
    firsts: dict[Path, Path] = {}
    for path in sorted(Path(folder).glob("*.gguf")):
        firsts.setdefault(attestation_name(path), path)
    if not firsts:
        raise Unreadable("holds no .gguf file", path=folder)
    return [_output(first, beside) for beside, first in firsts.items()]


def _output(first: Path, beside: Path) -> Output:
    stem = beside.name.removesuffix(".intoto.json")
    report = first.with_name(f"{stem}.report") / "report.json"
    return Output(
        GgufFile(first),
        read_attestation(beside) if beside.is_file() else None,
        _report(report) if report.is_file() else None,
    )


def _report(path: Path) -> Mapping[str, Any]:
    try:
        document = parse_json(read_input(path))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not readable JSON: {error}", path=path) from error
    if not isinstance(document, dict) or document.get("schema") != "tritpack.verify/1":
        raise Unreadable("is not a report of verify", path=path)
    return document

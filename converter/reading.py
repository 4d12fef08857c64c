"""How to read a packed file that does not say everything itself, or says it wrongly: only ever on request."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.sources import CheckpointFolder
from formats.errors import Unreadable, Unsupported, UsageError
from formats.gguf_file import GgufFile, TensorInfo
from formats.layouts.catalog import REPAIRABLE
from formats.layouts.tl import Tiled
from formats.layouts.twins import Tiling

Tilings = Mapping[tuple[int, int], Tiling]


@dataclasses.dataclass(frozen=True)
class Reading:
    """read_as: a name in REPAIRABLE for what the file calls i2_s. repair: take illegal codes and rubbish in padding for
    zeros. tilings: of TL1 and TL2 tensors that the file does not record. reference: find those tilings by trial, so
    that tensors have the codes of this file: a GGUF of the same model, or what `inspect --stats --json` says of one."""

    read_as: str | None = None
    repair: bool = False
    tilings: Tilings = dataclasses.field(default_factory=dict)
    reference: Path | None = None

    def apply(self, file: GgufFile) -> dict[str, Any]:
        """Make a file be read so. Returns what to record in the metadata of what is made of it. Raises UsageError,
        Unreadable, Unsupported."""
        record: dict[str, Any] = {}
        if self.read_as is not None:
            if self.read_as not in REPAIRABLE:
                raise UsageError(f"--read-as {self.read_as} is unknown", hint=f"choose one of: {', '.join(REPAIRABLE)}")
            if not any(tensor.layout == "i2_s" for tensor in file.tensors.values()):
                raise UsageError(f"--read-as {self.read_as}: {file.path} has no i2_s tensors")
            file.layouts["i2_s"] = REPAIRABLE[self.read_as]
            record["tritpack.repair.read_as"] = self.read_as
        if self.repair:
            file.repair = True
            record["tritpack.repair.zeroed"] = _count_repairs(file)
        tiled = {info.layout for info in file.tensors.values() if isinstance(file.layout_of(info), Tiled)}
        tilings = dict(self.tilings)
        if self.reference is not None:
            if not tiled:
                raise UsageError(f"--reference: {file.path} has no tl1 or tl2 tensors whose tiling could be sought")
            tilings |= find_tilings(file, self.reference)
        for name in tiled if tilings else ():
            layout = file.layouts[name]
            assert isinstance(layout, Tiled)
            file.layouts[name] = type(layout)({**layout.tilings, **tilings}, by_rule=False)
        return record


def apply_reading(source: CheckpointFolder | GgufFile, reading: Reading | None) -> dict[str, Any]:
    """Reading.apply for a source that may be no GGUF, which then needs none. Raises UsageError if it is told one."""
    if reading is None or reading == Reading():
        return {}
    if not isinstance(source, GgufFile):
        raise UsageError(f"{source.folder}: is no GGUF file, and how to read one was said")
    return reading.apply(source)


def _count_repairs(file: GgufFile) -> int:
    """Tensors of which something has to be read as zeros."""
    found = 0
    for info in file.tensors.values():
        layout = file.layout_of(info)
        found += layout is not None and bool(layout.check(file.bytes_of(info), info.rows, info.cols))
    return found


def find_tilings(file: GgufFile, reference: Path) -> dict[tuple[int, int], Tiling]:
    """By shape, the tiling with which a tensor of that shape has the codes that the reference has for it."""
    hashes = _hashes(reference)
    found: dict[tuple[int, int], Tiling] = {}
    for info in file.tensors.values():
        shape = (info.rows, info.cols)
        layout = file.layout_of(info)
        if isinstance(layout, Tiled) and shape not in found and info.name in hashes:
            found[shape] = _find_tiling(file, info, layout, hashes[info.name])
    if not found:
        raise Unsupported(f"{reference}: has no ternary tensor of the names in {file.path}")
    return found


def _find_tiling(file: GgufFile, info: TensorInfo, layout: Tiled, digest: str) -> Tiling:
    shape = (info.rows, info.cols)
    candidates = layout.candidates(*shape)
    for tiling in candidates:
        attempt = type(layout)({shape: tiling})
        try:
            if attempt.unpack(file.bytes_of(info), *shape, repair=True).codes_sha256() == digest:
                return tiling
        except Unreadable:
            continue
    raise Unsupported(
        f"{file.path}: tensor {info.name!r}: none of {len(candidates)} tilings gives the codes of the reference",
        hint="is it the same model, with the rows in the same order?",
    )


def _hashes(reference: Path) -> dict[str, str]:
    """codes_sha256 by tensor name."""
    try:
        with open(reference, "rb") as stream:
            is_gguf = stream.read(4) == b"GGUF"
        if not is_gguf:
            document = json.loads(reference.read_text("utf-8"))
            return {t["name"]: t["codes_sha256"] for t in document["tensors"] if "codes_sha256" in t}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{reference}: is neither a GGUF nor what `inspect --stats --json` prints: {error}") from error
    file = GgufFile(reference)
    return {
        name: ternary.codes_sha256()
        for name, info in file.tensors.items()
        if (ternary := file.ternary(info)) is not None
    }

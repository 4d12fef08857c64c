"""How to read a packed file that does not say everything itself, or says it wrongly: only ever on request."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.layouts.catalog import REPAIRABLE
from tritpack.formats.layouts.tiling import Tiled, Tiling

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
        tilings = dict(self.tilings)
        if self.reference is not None:
            if not tiled_layouts(file):
                raise UsageError(f"--reference: {file.path} has no tl1 or tl2 tensors to find a tiling of")
            tilings |= find_tilings(file, self.reference)
        for name in tiled_layouts(file) if tilings else ():
            layout = file.layouts[name]
            assert isinstance(layout, Tiled)
            file.layouts[name] = type(layout)({**tilings, **layout.tilings}, by_rule=False)  # what it records is so
        if self.repair:
            record["tritpack.repair.zeroed"] = _count_repairs(file)
            file.repair = True
        return record


def tiled_layouts(file: GgufFile) -> set[str]:
    """Which of tl1 and tl2 a file's tensors have."""
    return {info.layout for info in file.tensors.values() if isinstance(file.layout_of(info), Tiled)}


def lacks_tilings(file: GgufFile) -> bool:
    """Whether a tensor's tiling is not recorded in the file, so that what is said of tilings is said of it."""
    for info in file.tensors.values():
        layout = file.layout_of(info)
        if isinstance(layout, Tiled) and (info.rows, info.cols) not in layout.tilings:
            return True
    return False


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
        found += bool(file.check(info))
    return found


def find_tilings(file: GgufFile, reference: Path) -> dict[tuple[int, int], Tiling]:
    """By shape, the tiling with which every tensor of that shape has the codes that the reference has for it."""
    hashes = _hashes(reference)
    by_shape: dict[tuple[str, int, int], list[TensorInfo]] = {}
    for info in file.tensors.values():
        layout = file.layout_of(info)
        if isinstance(layout, Tiled) and info.name in hashes and (info.rows, info.cols) not in layout.tilings:
            by_shape.setdefault((layout.name, info.rows, info.cols), []).append(info)
    if not by_shape:
        raise Unsupported(
            f"{reference}: has no ternary tensor of the names in {file.path} whose tiling is not recorded"
        )
    return {(rows, cols): _find_tiling(file, name, infos, hashes) for (name, rows, cols), infos in by_shape.items()}


def _find_tiling(file: GgufFile, name: str, infos: list[TensorInfo], hashes: Mapping[str, str]) -> Tiling:
    layout, shape = file.layouts[name], (infos[0].rows, infos[0].cols)
    assert isinstance(layout, Tiled)
    candidates = layout.candidates(*shape)

    def fits(tiling: Tiling, info: TensorInfo) -> bool:
        attempt = type(layout)({shape: tiling})
        return attempt.unpack(file.bytes_of(info), *shape, repair=True).codes_sha256() == hashes[info.name]

    for tiling in candidates:
        # All of them: one that is all zero, say, looks the same in any order.
        if all(fits(tiling, info) for info in infos):
            return tiling
    raise Unsupported(
        f"{file.path}: tensor {infos[0].name!r}: none of {len(candidates)} tilings gives the codes of the reference to "
        f"it and the {len(infos) - 1} others of its shape",
        hint="is it the same model, undamaged, with the rows in the same order?",
    )


def _hashes(reference: Path) -> dict[str, str]:
    """codes_sha256 by tensor name."""
    try:
        with open(reference, "rb") as stream:
            is_gguf = stream.read(4) == b"GGUF"
        if not is_gguf:
            document = json.loads(reference.read_text("utf-8"))
            return {t["name"]: t["codes_sha256"] for t in document["tensors"] if "codes_sha256" in t}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"{reference}: is neither a GGUF nor what `inspect --stats --json` prints: {error}") from error
    file = GgufFile(reference)
    return {
        name: ternary.codes_sha256()
        for name, info in file.tensors.items()
        if (ternary := file.ternary(info)) is not None
    }

"""Reading a packed file otherwise than it says: other orders of bytes, repairs, tilings found by trial.

This happens on request only, and what was done is recorded in the metadata of the output.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_header import MAGIC
from tritpack.formats.gguf_reader import GgufFile, ReadOptions, TensorInfo
from tritpack.formats.inputs import open_input, read_input
from tritpack.formats.layouts.tiling import Tiled, Tiling
from tritpack.formats.names import READ_AS


@dataclasses.dataclass(frozen=True)
class ReadRequest(ReadOptions):
    """ReadOptions as a user asks for them.

    reference: find the tilings that are not recorded by trial, so that tensors have the codes of this file: a GGUF of
    the same model, or what `inspect --stats --json` prints for one.
    """

    reference: Path | None = None


def reopened(
    source: CheckpointFolder | GgufFile, request: ReadRequest | None
) -> tuple[CheckpointFolder | GgufFile, dict[str, Any]]:
    """The source as the request reads it, and the metadata that records this in whatever is made of it. Raises
    UsageError if the request does not concern this source, Unreadable, Unsupported."""
    if request is None or request == ReadRequest():
        return source, {}
    if not isinstance(source, GgufFile):
        raise UsageError("is not a GGUF file, so nothing can be said about how to read it", path=source.folder)
    _check_read_as(source, request.read_as)
    tilings = dict(request.tilings)
    if request.reference is not None:
        tilings |= find_tilings(source, request.reference)
    file = GgufFile(source.path, ReadOptions(request.read_as, request.repair, tilings))
    record: dict[str, Any] = {}
    if request.read_as is not None:
        record["tritpack.repair.read_as"] = request.read_as
    if request.repair:
        record["tritpack.repair.zeroed"] = _count_repairs(file)
    return file, record


def tiled_layouts(file: GgufFile) -> set[str]:
    """Which of tl1 and tl2 a file's tensors have."""
    return {info.layout for info in file.tensors.values() if isinstance(file.layout_of(info), Tiled)}


def lacks_tilings(file: GgufFile) -> bool:
    """Whether the file has a TL1 or TL2 tensor whose tiling it does not record."""
    for info in file.tensors.values():
        layout = file.layout_of(info)
        if isinstance(layout, Tiled) and (info.rows, info.cols) not in layout.tilings:
            return True
    return False


def _check_read_as(file: GgufFile, read_as: str | None) -> None:
    if read_as is None:
        return
    if read_as not in READ_AS:
        raise UsageError(f"--read-as {read_as} is unknown", hint=f"choose one of: {', '.join(READ_AS)}")
    if not any(tensor.layout == "i2_s" for tensor in file.tensors.values()):
        raise UsageError(f"--read-as {read_as}: {file.path} has no i2_s tensors")


def _count_repairs(file: GgufFile) -> int:
    """The number of tensors of which something has to be read as zeros."""
    return sum(bool(file.check(info)) for info in file.tensors.values())


# -- tilings by trial --------------------------------------------------------------------------------------------------


def find_tilings(file: GgufFile, reference: Path) -> dict[tuple[int, int], Tiling]:
    """By shape, the tiling with which every tensor of that shape has the codes that the reference has for it. Raises
    UsageError, Unreadable, Unsupported."""
    if not tiled_layouts(file):
        raise UsageError(f"--reference: {file.path} has no tl1 or tl2 tensors to find a tiling of")
    hashes = _code_hashes(reference)
    by_shape: dict[tuple[str, int, int], list[TensorInfo]] = {}
    for info in file.tensors.values():
        layout = file.layout_of(info)
        if isinstance(layout, Tiled) and info.name in hashes and (info.rows, info.cols) not in layout.tilings:
            by_shape.setdefault((layout.name, info.rows, info.cols), []).append(info)
    if not by_shape:
        raise Unsupported(
            f"has no ternary tensor of the names in {file.path} whose tiling is not recorded", path=reference
        )
    return {(rows, cols): _find_tiling(file, name, infos, hashes) for (name, rows, cols), infos in by_shape.items()}


def _find_tiling(file: GgufFile, name: str, infos: list[TensorInfo], hashes: Mapping[str, str]) -> Tiling:
    layout, shape = file.layouts[name], (infos[0].rows, infos[0].cols)
    assert isinstance(layout, Tiled)
    candidates = layout.candidates(*shape)

    def gives_its_codes(tiling: Tiling, info: TensorInfo) -> bool:
        attempt = type(layout)({shape: tiling})
        return attempt.unpack(file.bytes_of(info), *shape, repair=True).codes_sha256() == hashes[info.name]

    for tiling in candidates:
        # All of them have to agree: a tensor of zeros, for one, looks the same in any order.
        if all(gives_its_codes(tiling, info) for info in infos):
            return tiling
    raise Unsupported(
        f"none of {len(candidates)} tilings reproduces the reference's codes for this tensor and the {len(infos) - 1} "
        "others of its shape",
        path=file.path_of(infos[0]),
        tensor=infos[0].name,
        hint="is it the same model, undamaged, with the rows in the same order?",
    )


def _code_hashes(reference: Path) -> dict[str, str]:
    """By tensor name, the codes_sha256 of a GGUF file or of a list that `inspect --stats --json` has printed."""
    with open_input(reference) as stream:
        is_gguf = stream.read(len(MAGIC)) == MAGIC
    try:
        if not is_gguf:
            document = json.loads(read_input(reference))
            return {t["name"]: t["codes_sha256"] for t in document["tensors"] if "codes_sha256" in t}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"is neither a GGUF nor what `inspect --stats --json` prints: {error}"
        raise Unreadable(what, path=reference) from error
    file = GgufFile(reference)
    return {
        name: ternary.codes_sha256()
        for name, info in file.tensors.items()
        if (ternary := file.ternary(info)) is not None
    }

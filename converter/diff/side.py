"""One side of a comparison: a GGUF file or a checkpoint, with tensors and metadata under the names that GGUF has."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import open_source
from tritpack.converter.sources.source_model import from_checkpoint
from tritpack.converter.sources.source_tensors import CheckpointTensor, SourceTensor
from tritpack.formats import float_types, model_metadata
from tritpack.formats.arrays import F32, Bytes, Codes, Scales
from tritpack.formats.errors import TritpackError, Unsupported
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.layouts import catalog
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.pieces import pieces_of
from tritpack.formats.ternary import TernaryTensor

VALUES_AT_ONCE = 1 << 20
"""Floats that are decoded at a time."""


TILED = ("tl1", "tl2")


class Comparable(Protocol):
    """A tensor of either side, rows in the order that GGUF gives them. All methods raise TritpackError with its name.

    layout: of a ternary tensor or of floats. nbytes: as it is stored.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def layout(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def is_ternary(self) -> bool:
        """Whether it has codes."""

    @property
    def readable(self) -> bool:
        """Whether its values can be decoded here."""

    def stored(self) -> Bytes | None:
        """Return its bytes if those of two tensors of one layout are equal where their values are; else None."""

    def codes(self) -> Iterator[Codes]:
        """Yield its codes, some whole rows at a time, in order."""

    def scales(self) -> Scales:
        """Return its scales."""

    def ternary(self) -> TernaryTensor:
        """Return the whole of it."""

    def other_orders(self) -> Iterator[tuple[str, Codes]]:
        """Yield the codes that its bytes give in the byte orders of other tools, each with the order's name."""

    def rows(self, first: int, last: int) -> Iterator[F32]:
        """Yield the values of the rows from first to last, float32, at most VALUES_AT_ONCE at a time."""

    def release(self) -> None:
        """Give back the pages that were read."""


Rows = TypeVar("Rows", F32, Codes)


def in_step(left: Iterator[Rows], right: Iterator[Rows]) -> Iterator[tuple[Rows, Rows]]:
    """Cut two sequences of pieces so that each pair holds the same rows."""
    ours, theirs = next(left, None), next(right, None)
    while ours is not None and theirs is not None:
        count = min(len(ours), len(theirs))
        yield ours[:count], theirs[:count]
        ours = ours[count:] if count < len(ours) else next(left, None)
        theirs = theirs[count:] if count < len(theirs) else next(right, None)


@dataclasses.dataclass(frozen=True)
class Side:
    """A file or checkpoint, opened; only headers were read.

    name: what the caller named. kind: `gguf` or `checkpoint`. spec: None where the model cannot be run here.
    metadata: GGUF keys; of a checkpoint those that `convert` would write. file: of a GGUF.
    """

    name: str
    kind: str
    nbytes: int
    spec: ModelSpec | None
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Comparable]
    file: GgufFile | None = None

    def describe(self) -> dict[str, Any]:
        """Return what JSON has of a side."""
        return {
            "path": self.name,
            "kind": self.kind,
            "nbytes": self.nbytes,
            "architecture": self.metadata.get("general.architecture"),
            "name": self.metadata.get("general.name"),
            "layouts": dict(Counter(tensor.layout for tensor in self.tensors.values())),
        }


def open_side(source: str | Path, quantize: str | None, *, progress: bool = False) -> Side:
    """Open a GGUF file, a split set, a checkpoint folder, or ORG/NAME[@REVISION] on the Hub.

    quantize: how plain floats of a checkpoint are made ternary. Raises what opening and recognising a source raise.
    """
    opened = open_source(source, progress=progress)
    if isinstance(opened, GgufFile):
        return _gguf_side(str(source), opened)
    return _checkpoint_side(str(source), opened, quantize)


def _gguf_side(name: str, file: GgufFile) -> Side:
    try:
        spec = model_metadata.from_gguf(file)
    except TritpackError:
        spec = None
    tensors = {info.name: GgufSide(file, info) for info in file.tensors.values() if not _is_outer_scale(file, info)}
    return Side(name, "gguf", file.size, spec, file.metadata, tensors, file)


def _is_outer_scale(file: GgufFile, info: TensorInfo) -> bool:
    """Whether a tensor is llama.cpp's scale of a ternary one, which `GgufFile.scales` multiplies in."""
    weight = file.tensors.get(info.name.removesuffix("scale") + "weight") if info.name.endswith(".scale") else None
    return weight is not None and file.layout_of(weight) is not None


def _checkpoint_side(name: str, folder: CheckpointFolder, quantize: str | None) -> Side:
    model = from_checkpoint(folder, quantize, None)
    metadata = {
        "general.architecture": model.spec.architecture,
        **model_metadata.to_metadata(model.spec),
        **model.metadata,
    }
    shapes = model.spec.tensor_shapes()
    linears = set(model.spec.linear_names())
    tensors = {
        target: _checkpoint_tensor(tensor, shapes[target], is_linear=target in linears)
        for target, tensor in model.tensors.items()
    }
    nbytes = sum((folder.folder / file).stat().st_size for file in folder.weight_files)
    return Side(name, "checkpoint", nbytes, model.spec, metadata, tensors)


@dataclasses.dataclass(frozen=True)
class GgufSide:
    """A tensor of a GGUF file."""

    file: GgufFile
    info: TensorInfo

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    @property
    def layout(self) -> str:
        return self.info.layout

    @property
    def nbytes(self) -> int:
        return self.info.nbytes

    @property
    def is_ternary(self) -> bool:
        return self.file.layout_of(self.info) is not None

    @property
    def readable(self) -> bool:
        return self.is_ternary or self.layout in float_types.FLOAT_TYPES

    def stored(self) -> Bytes | None:
        # The order of the codes of a tiled layout depends on what the file records of it.
        return None if self.layout in TILED else self.file.bytes_of(self.info)

    def codes(self) -> Iterator[Codes]:
        for _, codes in pieces_of(self.file, self.info):
            if codes is not None:
                yield codes

    def scales(self) -> Scales:
        return self.file.scales(self.info)

    def ternary(self) -> TernaryTensor:
        ternary = self.file.ternary(self.info)
        assert ternary is not None
        return ternary

    def other_orders(self) -> Iterator[tuple[str, Codes]]:
        stored = self.file.bytes_of(self.info)
        for name, layout in catalog.REPAIRABLE.items() if self.layout == "i2_s" else ():
            if not layout.check(stored, self.info.rows, self.info.cols):
                yield name, layout.unpack(stored, self.info.rows, self.info.cols).codes

    def rows(self, first: int, last: int) -> Iterator[F32]:
        if self.is_ternary:
            yield from _dequantized(self.ternary(), first, last)
            return
        data, row_bytes = self.file.bytes_of(self.info), self.nbytes // max(1, self.info.rows)
        step = max(1, VALUES_AT_ONCE // max(1, self.info.cols))
        for start in range(first, last, step):
            stop = min(start + step, last)
            piece = data[start * row_bytes : stop * row_bytes]
            with np.errstate(all="ignore"):  # values that are not finite are compared as they are
                yield float_types.decode_rows(self.layout, piece, stop - start, self.info.cols)

    def release(self) -> None:
        self.file.release(self.info)


@dataclasses.dataclass(frozen=True)
class CheckpointSide:
    """A tensor of a checkpoint, as `convert` would write it."""

    tensor: SourceTensor
    shape: tuple[int, ...]
    layout: str
    nbytes: int
    is_ternary: bool
    readable: bool = True

    def stored(self) -> None:
        return None

    def codes(self) -> Iterator[Codes]:
        yield self.ternary().codes

    def scales(self) -> Scales:
        return self.tensor.scales()

    def ternary(self) -> TernaryTensor:
        if (ternary := self.tensor.ternary()) is None:
            raise Unsupported("holds floats that are not ternary", tensor=self.tensor.name)
        return ternary

    def other_orders(self) -> Iterator[tuple[str, Codes]]:
        return iter(())

    def rows(self, first: int, last: int) -> Iterator[F32]:
        if self.is_ternary:
            yield from _dequantized(self.ternary(), first, last)
            return
        if not isinstance(self.tensor, CheckpointTensor) or self.tensor.is_reordered or self.tensor.log:  # small
            yield np.concatenate([*self.tensor.pieces()])[first:last]
            return
        stored, offset = self.tensor.stored, np.float32(self.tensor.offset)
        step = max(1, VALUES_AT_ONCE // max(1, self.shape[-1]))
        for start in range(first, last, step):
            values = stored.rows_f32(start, min(start + step, last))
            yield values + offset if offset else values

    def release(self) -> None:
        self.tensor.release()


def _checkpoint_tensor(tensor: SourceTensor, shape: tuple[int, ...], *, is_linear: bool) -> CheckpointSide:
    """Return a tensor of a checkpoint. A table is ternary only where it is stored as codes."""
    stored = tensor.stored.dtype.lower() if isinstance(tensor, CheckpointTensor) else "f32"
    nbytes = tensor.stored.nbytes if isinstance(tensor, CheckpointTensor) else 4 * math.prod(shape)
    is_ternary = is_linear or (tensor.may_be_ternary and not tensor.row_nbytes)
    return CheckpointSide(tensor, shape, stored, nbytes, is_ternary)


def _dequantized(tensor: TernaryTensor, first: int, last: int) -> Iterator[F32]:
    """Yield the values of some rows of a ternary tensor."""
    scales = np.repeat(tensor.scales, len(tensor.codes) // len(tensor.scales), axis=0)
    step = max(1, VALUES_AT_ONCE // tensor.shape[1])
    for start in range(first, last, step):
        part = slice(start, min(start + step, last))
        yield TernaryTensor(tensor.codes[part], scales[part]).dequantize()

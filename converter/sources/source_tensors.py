"""Where one tensor of the output comes from, and how it becomes codes and scales or floats when its turn comes.

A checkpoint's tensors go through ternarize.py; a GGUF's through its layout. The plan asks what they are, the conversion
for their data; neither needs to know which kind it deals with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tritpack.converter.families.family import Form
from tritpack.converter.sources import ternarize
from tritpack.converter.sources.checkpoint import FLOATS, StoredTensor
from tritpack.formats import float_types
from tritpack.formats.arrays import Bytes, Scales
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.ternary import TernaryTensor

F32 = npt.NDArray[np.float32]
PIECE_BYTES = 64 << 20
"""Float scratch that one piece of a tensor may take."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """blocks: (row_blocks, col_blocks) of the scales in GGUF's row order. unit: what one scale covers in the source, in
    words (`tensor`, `rows/2`, `group 128`)."""

    blocks: tuple[int, int]
    unit: str


class Origin(Protocol):
    """One tensor of a source. `name` is what the source calls it, for messages."""

    @property
    def name(self) -> str: ...

    def ternary(self) -> TernaryTensor | None:
        """Its codes and scales in GGUF's row order; None if it holds floats that are not ternary."""

    def tiling(self) -> Tiling:
        """How its scales tile it, found with as little reading as that takes."""

    def scales(self) -> Scales:
        """Its scales in GGUF's row order, found with as little reading as that takes."""

    def float_type(self) -> str:
        """The float type that it is stored in."""

    def stored_as(self, kind: str) -> Bytes | None:
        """Its bytes as they are, if the source is a packed file and holds it as this block type already."""

    def pieces(self) -> Iterator[F32]:
        """Its rows as float32 (some rows, cols)."""

    def release(self) -> None:
        """Let go of the pages that were read."""


@dataclasses.dataclass(frozen=True)
class CheckpointTensor:
    """A tensor of a checkpoint. parts: what stands beside it, by suffix (`weight_scale`, `scales`, `biases`).

    order: int64 (rows,), the source's row at each place of the output, where GGUF orders them otherwise.
    offset: added to every value (norms that store w for a factor 1 + w).
    """

    stored: StoredTensor
    shape: tuple[int, ...]
    form: Form
    multiplies: bool = True
    parts: dict[str, StoredTensor] = dataclasses.field(default_factory=dict)
    order: npt.NDArray[np.int64] | None = None
    offset: float = 0.0

    @property
    def name(self) -> str:
        return self.stored.name

    def ternary(self) -> TernaryTensor | None:
        found = self._in_source_order()
        return found if found is None or self.order is None else found.with_rows(self.order)

    def _in_source_order(self) -> TernaryTensor | None:
        rows, cols = self.shape
        if self.form == "packed":
            scale = self.parts.get("weight_scale")
            return ternarize.unpack(self.stored, scale, rows, cols, multiplies=self.multiplies)
        if self.form == "mlx":
            return ternarize.unpack_mlx(self.stored, self.parts.get("scales"), self.parts.get("biases"), cols)
        return ternarize.recover(self.stored) if self.form == "exact" else ternarize.absmean(self.stored)

    def tiling(self) -> Tiling:
        if self.form in ("packed", "online", "absmean"):
            return Tiling((1, 1), "tensor")
        found = self._in_source_order()
        self.release()
        if found is None:
            raise ternarize.not_ternary(self.stored)
        stored = found if self.order is None else found.with_rows(self.order)
        return Tiling(stored.scale_blocks, found.granularity)

    def scales(self) -> Scales:
        if self.form == "packed":
            scale = self.parts.get("weight_scale")
            return np.array([[ternarize.packed_scale(self.stored, scale, self.multiplies)]], np.float32)
        found = self.ternary()
        self.release()
        if found is None:
            raise ternarize.not_ternary(self.stored)
        return found.scales

    def float_type(self) -> str:
        return {"BF16": "bf16", "F16": "f16", "F32": "f32"}.get(self.stored.dtype, "f32")

    def stored_as(self, kind: str) -> Bytes | None:
        return None

    def pieces(self) -> Iterator[F32]:
        if self.stored.dtype not in FLOATS and (ternary := self.ternary()) is not None:
            yield from _dequantized(ternary)
            return
        cols = self.shape[-1]
        step = max(1, PIECE_BYTES // 4 // cols)
        for first in range(0, self.stored.rows, step):
            values = self.stored.rows_f32(first, min(first + step, self.stored.rows))
            if not np.isfinite(values).all():
                raise Unreadable(f"tensor {self.name!r} holds a value that is not finite")
            yield values + np.float32(self.offset) if self.offset else values
            self.stored.release()

    def release(self) -> None:
        for part in (self.stored, *self.parts.values()):
            part.release()


def check_linear(tensor: CheckpointTensor) -> None:
    """Shape and dtype of a linear from its header. Raises Unreadable or Unsupported with the tensor's name."""
    stored, (rows, cols) = tensor.stored, tensor.shape
    expected: tuple[int, ...]
    dtypes: tuple[str, ...]
    if tensor.form == "mlx":
        expected, dtypes = (rows, cols // 16), ("U32",)
    elif tensor.form == "packed" and stored.dtype not in FLOATS:
        if rows % 4:
            raise Unsupported(f"tensor {stored.name!r} has {rows} output rows, which is not a multiple of 4")
        expected, dtypes = (rows // 4, cols), ("U8",)
    else:
        expected, dtypes = (rows, cols), tuple(FLOATS)
        if tensor.form == "packed" and "weight_scale" not in tensor.parts:
            raise Unsupported(
                f"tensor {stored.name!r} is {stored.dtype} in a packed checkpoint, expected U8 (or unpacked codes "
                "beside a weight_scale)"
            )
    if stored.dtype == "U8" and tensor.form in ("exact", "absmean", "online"):
        raise Unsupported(
            f"tensor {stored.name!r} is packed (U8), but no quantization_config in config.json says whether its "
            "weight_scale multiplies or divides, which cannot be guessed"
        )
    if stored.dtype not in dtypes:
        raise Unsupported(
            f"tensor {stored.name!r} is stored as {stored.dtype}, expected {' or '.join(dtypes)} in "
            f"{'an' if tensor.form[0] in 'aeiou' else 'a'} {tensor.form} checkpoint"
        )
    if stored.shape != expected:
        raise Unreadable(f"tensor {stored.name!r} has shape {list(stored.shape)}, expected {list(expected)}")


def check_floats(stored: StoredTensor, shape: tuple[int, ...]) -> None:
    """Shape and dtype of a norm or table from its header. Raises Unreadable or Unsupported with the tensor's name."""
    if stored.shape != shape:
        raise Unreadable(f"tensor {stored.name!r} has shape {list(stored.shape)}, expected {list(shape)}")
    if stored.dtype not in FLOATS:
        raise Unsupported(f"tensor {stored.name!r} is stored as {stored.dtype}, expected {' or '.join(FLOATS)}")


def _dequantized(ternary: TernaryTensor) -> Iterator[F32]:
    """A ternary table that was asked for as floats."""
    rows, cols = ternary.shape
    step = max(1, PIECE_BYTES // 4 // cols)
    scales = np.repeat(ternary.scales, rows // len(ternary.scales), axis=0)
    for first in range(0, rows, step):
        part = slice(first, first + step)
        yield TernaryTensor(ternary.codes[part], scales[part]).dequantize()


@dataclasses.dataclass(frozen=True)
class Computed:
    """A small float tensor that no source holds as such: the rotary factors, a scale that stands apart."""

    name: str
    values: F32

    def ternary(self) -> TernaryTensor | None:
        return None

    def tiling(self) -> Tiling:
        raise Unsupported(f"{self.name} is not ternary")

    def scales(self) -> Scales:
        raise Unsupported(f"{self.name} is not ternary")

    def float_type(self) -> str:
        return "f32"

    def stored_as(self, kind: str) -> Bytes | None:
        return None

    def pieces(self) -> Iterator[F32]:
        yield self.values.reshape(1, -1)

    def release(self) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file."""

    file: GgufFile
    info: TensorInfo

    @property
    def name(self) -> str:
        return self.info.name

    def ternary(self) -> TernaryTensor | None:
        return self.file.ternary(self.info)

    def tiling(self) -> Tiling:
        found = self.ternary()
        self.release()
        if found is None:
            raise Unsupported(
                f"{self.file.path}: tensor {self.name!r} is stored as {self.info.layout}, no ternary layout read here"
            )
        return Tiling(found.scale_blocks, found.granularity)

    def scales(self) -> Scales:
        found = self.ternary()
        self.release()
        assert found is not None  # its tiling was asked for first
        return found.scales

    def float_type(self) -> str:
        if self.file.layout_of(self.info):
            return "f32"
        if self.info.layout not in float_types.FLOAT_TYPES:
            raise Unsupported(
                f"{self.file.path}: tensor {self.name!r} is stored as {self.info.layout}, which cannot be read here"
            )
        return self.info.layout

    def stored_as(self, kind: str) -> Bytes | None:
        # Plain floats go through `pieces`, which looks at their values.
        return self.file.bytes_of(self.info) if kind == self.info.layout and kind in ("q8_0", "q6_k", "q4_k") else None

    def pieces(self) -> Iterator[F32]:
        if (ternary := self.ternary()) is not None:
            yield from _dequantized(ternary)
            return
        kind, stored = self.float_type(), self.file.bytes_of(self.info)
        step = max(1, PIECE_BYTES // 4 // self.info.cols)
        row_bytes = self.info.nbytes // self.info.rows
        for first in range(0, self.info.rows, step):
            last = min(first + step, self.info.rows)
            values = float_types.decode(
                kind, stored[first * row_bytes : last * row_bytes], last - first, self.info.cols
            )
            if not np.isfinite(values).all():
                raise Unreadable(f"tensor {self.name!r} holds a value that is not finite")
            yield values
            self.release()

    def release(self) -> None:
        self.file.release(self.info)

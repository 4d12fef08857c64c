"""The interface of every layout, and what is the same for all of them: packing, unpacking and refusing.

A stored tensor is code bytes and scales. A layout says which shapes and granularities it holds, how codes become bytes
and where its scales are. The contract of the bytes is in formats/README.md.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from tritpack.formats.arrays import Bytes, Codes, Scales
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.layouts import c_packers
from tritpack.formats.layouts.c_packers import Tile
from tritpack.formats.ternary import TernaryTensor, coarsest_both

if TYPE_CHECKING:
    import numpy.typing as npt

HEAD_BYTES = 64
"""How many of its first bytes a tensor's layout may look at to tell its size."""
Blocks = tuple[int, int]
"""(row_blocks, col_blocks): how scales tile a matrix, its granularity."""
Element = TypeVar("Element", bound="np.generic")


class Layout(abc.ABC):
    """One way to store a ternary matrix."""

    name: ClassVar[str]
    half_scales: ClassVar[bool] = False
    """Whether scales are stored as float16."""
    holds_scales: ClassVar[bool] = True
    """Whether scales are in the tensor's bytes. If they are not, unpack gives a scale of one."""
    row_unit: ClassVar[int] = 0
    """Rows whose code bytes stand by themselves in the body, so that so many, and multiples, can be packed alone and in
    any order; 0 if the body is not made of rows, or if scales stand between the codes."""

    # -- what each layout defines --------------------------------------------------------------------------------------

    @abc.abstractmethod
    def shape_misfit(self, rows: int, cols: int) -> str | None:
        """The reason why the layout cannot hold a matrix of this shape; None if it can."""

    @abc.abstractmethod
    def nearest_grid(self, rows: int, cols: int, scale_blocks: Blocks) -> Blocks:
        """The granularity nearest to `scale_blocks` that the layout holds for this shape; the same if it holds that."""

    @abc.abstractmethod
    def nbytes(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> int:
        """Bytes of the stored tensor, everything included."""

    @abc.abstractmethod
    def pack_codes(self, codes: Codes, body: Bytes) -> None:
        """Write codes -1, 0, +1 into the body of a tensor, which is all zero."""

    @abc.abstractmethod
    def unpack_codes(self, body: Bytes, rows: int, cols: int) -> Codes:
        """The codes, int8 (rows, cols); an illegal one comes out as +2."""

    @abc.abstractmethod
    def count_illegal(self, body: Bytes, rows: int, cols: int) -> int:
        """The number of bytes that no packer writes: with a code of 3, or not the canonical form of their trits."""

    def write_scales(self, out: Bytes, tensor: TernaryTensor) -> None:  # noqa: B027 (optional)
        """Write the scales into the tensor's bytes."""

    def read_scales(self, data: Bytes, rows: int, cols: int) -> Scales:
        """The scales as stored, float32 (row_blocks, col_blocks). The granularity need not be the coarsest possible."""
        return np.ones((1, 1), np.float32)

    def body(self, data: Bytes, rows: int, cols: int) -> Bytes:
        """The part of the tensor that `pack_codes` writes to, as a view."""
        return data

    def stored_nbytes(self, rows: int, cols: int, head: bytes) -> int | None:
        """Bytes of the stored tensor that begins with `head`; None if there is none of this shape."""
        return None if self.shape_misfit(rows, cols) else self.nbytes(rows, cols)

    def bad_padding(self, data: Bytes, rows: int, cols: int) -> str | None:
        """What is wrong with the bytes that are neither codes nor scales; None if nothing."""
        return None

    def tiling_of(self, rows: int, cols: int) -> Tile | None:
        """The tiles of a matrix of this shape; None if the layout has none. Raises Unreadable if they are not known."""
        return None

    # -- what callers use ----------------------------------------------------------------------------------------------

    def misfit(self, rows: int, cols: int, scale_blocks: Blocks = (1, 1)) -> str | None:
        """The reason why the layout cannot hold this shape and granularity losslessly; None if it can."""
        if reason := self.shape_misfit(rows, cols):
            return reason
        grid = self.nearest_grid(rows, cols, scale_blocks)
        if grid == scale_blocks:
            return None
        can = "one scale per tensor" if grid == (1, 1) else f"{grid[0]} x {grid[1]} scales at most"
        return f"it holds {can}, not {scale_blocks[0]} x {scale_blocks[1]}"

    def as_stored(self, scales: Scales) -> Scales:
        """The scales in the precision that is stored: rounded to float16, or unchanged."""
        if not self.half_scales:
            return scales
        with np.errstate(over="ignore"):
            return scales.astype(np.float16).astype(np.float32)

    def inexact_scale(self, scales: Scales) -> str | None:
        """Which scale would not come back exactly, with its value before and after; None if all do."""
        if (reason := bad_scale(scales)) is not None:
            return reason
        stored = self.as_stored(scales)
        if np.array_equal(stored, scales):
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(scales > 0, np.abs(stored.astype(np.float64) / scales - 1), 0)
        worst = np.unravel_index(int(error.argmax()), error.shape)
        return (
            f"its scales are float16, and {scales[worst]:.9g} would become {stored[worst]:.9g} "
            f"(a relative change of {error[worst]:.1e})"
        )

    def pack(self, tensor: TernaryTensor) -> Bytes:
        """Store a tensor, uint8 (nbytes,). Raises Unsupported if its shape, its granularity or a scale cannot be held
        exactly."""
        rows, cols = tensor.shape
        reason = self.misfit(rows, cols, tensor.scale_blocks)
        if reason or (reason := self.inexact_scale(tensor.scales) if self.holds_scales else None):
            raise Unsupported(f"{self.name} cannot hold this {rows} x {cols} tensor: {reason}")
        if (tensor.scales == 0).any() and tensor.codes[spread(tensor.scales == 0, rows, cols)].any():
            raise Unsupported(f"this {rows} x {cols} tensor has a scale of 0 over codes that are not zero")
        out = np.zeros(self.nbytes(rows, cols, tensor.scale_blocks), np.uint8)
        self.write_scales(out, tensor)
        self.fill(np.ascontiguousarray(tensor.codes), self.body(out, rows, cols))
        return out

    def unpack(self, data: Bytes, rows: int, cols: int, *, repair: bool = False) -> TernaryTensor:
        """Read codes and scales of a stored tensor, the scales in the coarsest granularity that holds them. Raises
        Unreadable on whatever `check` finds. repair: read illegal codes and rubbish in padding as zeros instead; sizes
        and scales still have to be right."""
        problems = self._frame_problems(data, rows, cols) if repair else self.check(data, rows, cols)
        if problems:
            raise Unreadable(f"{self.name}: {problems[0]}")
        codes = self.codes_of(self.body(data, rows, cols), rows, cols)
        if repair:
            codes[codes == 2] = 0
        scales = self.read_scales(data, rows, cols)
        if (scales == 0).any():  # ik_llama.cpp stores +1 under a scale of 0
            _clear_under_zero_scales(codes, scales)
        return TernaryTensor(codes, coarsest_both(scales))

    def check(self, data: Bytes, rows: int, cols: int) -> list[str]:
        """The reasons why these bytes are not a tensor of this layout; empty if there is none."""
        if problems := self._frame_problems(data, rows, cols):
            return problems
        if self.count_illegal(self.body(data, rows, cols), rows, cols):
            return [self._first_illegal(data, rows, cols)]
        reason = self.bad_padding(data, rows, cols)
        return [reason] if reason else []

    def fill(self, codes: Codes, body: Bytes) -> None:
        """Write codes into a body of zeros, in C if there is a packer for this layout, else in numpy."""
        if not c_packers.pack(self.name, self.tiling_of(*codes.shape), codes, body):
            self.pack_codes(codes, body)

    def codes_of(self, body: Bytes, rows: int, cols: int) -> Codes:
        """The codes in a body, the inverse of `fill`; an illegal one comes out as +2."""
        codes = np.empty((rows, cols), np.int8)
        if c_packers.unpack(self.name, self.tiling_of(rows, cols), body, codes):
            return codes
        return np.ascontiguousarray(self.unpack_codes(body, rows, cols))

    def frame(self, shape: tuple[int, int], scales: Scales) -> tuple[Bytes, Bytes]:
        """The bytes before and after the body of a tensor with these scales; only where row_unit is not 0."""
        out = np.zeros(self.nbytes(*shape, (scales.shape[0], scales.shape[1])), np.uint8)  # no memory until it is used
        self.write_scales(out, TernaryTensor(np.broadcast_to(np.int8(0), shape), scales))
        start, size = self.body_place(out.size, *shape)
        return out[:start].copy(), out[start + size :].copy()

    def body_place(self, nbytes: int, rows: int, cols: int) -> tuple[int, int]:
        """Where the body begins in a tensor of `nbytes` bytes, and how many bytes it has."""
        data = np.zeros(nbytes, np.uint8)  # no memory, since it is not used
        body = self.body(data, rows, cols)
        return body.ctypes.data - data.ctypes.data, body.size

    # -- steps of these ------------------------------------------------------------------------------------------------

    def _frame_problems(self, data: Bytes, rows: int, cols: int) -> list[str]:
        """What is wrong with the shape, the size and the scales, without which nothing can be read."""
        if reason := self.shape_misfit(rows, cols):
            return [reason]
        expected = self.stored_nbytes(rows, cols, bytes(data[:HEAD_BYTES]))
        if expected is None:
            return [f"it does not begin with the header of a {rows} x {cols} tensor"]
        if data.size != expected:
            return [f"expected {expected} bytes for {rows} x {cols}, found {data.size}"]
        reason = bad_scale(self.read_scales(data, rows, cols))
        return [reason] if reason else []

    def threes(self, data: Bytes, rows: int, cols: int) -> int:
        """Return how many codes of a tensor are 3, which stand for no ternary value; 0 if its bytes cannot be read."""
        if self._frame_problems(data, rows, cols):
            return 0
        return int(np.count_nonzero(self.codes_of(self.body(data, rows, cols), rows, cols) == 2))

    def _first_illegal(self, data: Bytes, rows: int, cols: int) -> str:
        threes = np.flatnonzero(self.codes_of(self.body(data, rows, cols), rows, cols) == 2)
        if threes.size:
            row, col = divmod(int(threes[0]), cols)
            return f"code 3 at row {row}, column {col}; only 0, 1, 2 are legal"
        return "a byte of codes that no packer writes: not the canonical form of its trits"


def bad_scale(scales: Scales) -> str | None:
    """Which scale is not a multiplier (finite and >= 0); None if all are."""
    good = np.isfinite(scales) & (scales >= 0)
    if good.all():
        return None
    return f"a scale is {scales[~good][0]}, expected a finite number >= 0"


def spread(blocks: npt.NDArray[Element], rows: int, cols: int) -> npt.NDArray[Element]:
    """Repeat the values of blocks for a finer tiling of (rows, cols) blocks."""
    return np.repeat(np.repeat(blocks, rows // blocks.shape[0], axis=0), cols // blocks.shape[1], axis=1)


def scales_by_block(tensor: TernaryTensor, block: int) -> Scales:
    """The scale of every `block` columns of every row, (rows, cols / block).

    A block of zero codes gets the scale 0, as engines write it, if another block under the same scale has a code that
    is not zero. If all codes under a scale are zero, every block keeps that scale: it could not be read back otherwise.
    """
    (rows, cols), (row_blocks, col_blocks) = tensor.shape, tensor.scale_blocks
    used: npt.NDArray[np.bool_] = np.asarray(tensor.codes.reshape(rows, cols // block, block).any(2))
    # For each scale: whether any code under it is not zero.
    anywhere = np.asarray(used.reshape(row_blocks, rows // row_blocks, col_blocks, -1).any((1, 3)))
    keep = used | ~spread(anywhere, rows, cols // block)
    return np.where(keep, spread(tensor.scales, rows, cols // block), np.float32(0))


def _clear_under_zero_scales(codes: Codes, scales: Scales) -> None:
    rows, cols = codes.shape
    view = codes.reshape(scales.shape[0], rows // scales.shape[0], scales.shape[1], cols // scales.shape[1])
    view[np.broadcast_to((scales == 0)[:, None, :, None], view.shape)] = 0

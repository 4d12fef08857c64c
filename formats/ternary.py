"""TernaryTensor: every checkpoint is decoded to it, and every layout is packed from it."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.arrays import F32, Codes, Scales

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclasses.dataclass(frozen=True, repr=False)
class TernaryTensor:
    """A ternary matrix: weight[r, c] = codes[r, c] * scale of the block that holds (r, c).

    codes: int8 (rows, cols), values -1, 0, +1, in the orientation (outputs, inputs).
    scales: float32 (row_blocks, col_blocks), multipliers; row_blocks divides rows and col_blocks divides cols, so their
        shape gives the granularity: (1, 1) per tensor, (rows, 1) per row, (n, 1) or (1, n) shards, (rows, n) groups.

    Raises ValueError on a wrong dtype or on scales that do not tile the matrix; that is a bug of the caller.
    """

    codes: Codes
    scales: Scales

    def __post_init__(self) -> None:
        if self.codes.dtype != np.int8 or self.codes.ndim != 2:
            raise ValueError(f"codes must be int8 (rows, cols), not {self.codes.dtype} {self.codes.shape}")
        if self.scales.dtype != np.float32 or self.scales.ndim != 2:
            raise ValueError(
                f"scales must be float32 (row_blocks, col_blocks), not {self.scales.dtype} {self.scales.shape}"
            )
        for size, blocks in zip(self.codes.shape, self.scales.shape):
            if blocks < 1 or size % blocks:
                raise ValueError(f"scales {self.scales.shape} do not tile codes {self.codes.shape}")

    def __repr__(self) -> str:
        rows, cols = self.shape
        return f"TernaryTensor({rows} x {cols}, scales: {self.granularity})"

    @classmethod
    def per_tensor(cls, codes: Codes, scale: float | np.floating) -> TernaryTensor:
        """A tensor with one scale for the whole matrix, the float32 nearest to `scale`."""
        return cls(codes, np.array([[scale]], np.float32))

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def scale_blocks(self) -> tuple[int, int]:
        """(row_blocks, col_blocks): how the scales tile the matrix."""
        return self.scales.shape[0], self.scales.shape[1]

    @property
    def granularity(self) -> str:
        """`tensor`, `row`, `rows/N`, `cols/N` (shards) or `group N` (N consecutive inputs of one row)."""
        return granularity(self.shape, self.scale_blocks)

    def with_rows(self, order: npt.NDArray[np.int64]) -> TernaryTensor:
        """The same matrix with its rows in another order, its scales as coarse as that leaves them."""
        scales = np.repeat(self.scales, self.shape[0] // self.scales.shape[0], axis=0)[order]
        return TernaryTensor(np.ascontiguousarray(self.codes[order]), coarsest(scales))

    def with_columns(self, order: npt.NDArray[np.int64]) -> TernaryTensor:
        """The same matrix with its columns in another order, its scales as coarse as that leaves them: groups that the
        order tears apart become smaller ones."""
        codes = np.ascontiguousarray(self.codes[:, order])
        cols, blocks = len(order), self.scales.shape[1]
        if blocks == 1:
            return TernaryTensor(codes, self.scales)
        sources = order // (cols // blocks)
        sizes = (size for size in range(cols // blocks, 0, -1) if cols % size == 0)
        size = next(size for size in sizes if (sources.reshape(-1, size) == sources[::size, None]).all())
        return TernaryTensor(codes, coarsest_both(np.ascontiguousarray(self.scales[:, sources[::size]])))

    def dequantize(self) -> F32:
        """float32 (rows, cols): codes times scales."""
        (rows, cols), (row_blocks, col_blocks) = self.shape, self.scales.shape
        blocks = self.codes.reshape(row_blocks, rows // row_blocks, col_blocks, cols // col_blocks).astype(np.float32)
        return (blocks * self.scales[:, None, :, None]).reshape(rows, cols)

    def codes_sha256(self) -> str:
        """SHA-256 of the int8 codes in C order: the same in whatever layout they are packed."""
        return hashlib.sha256(np.ascontiguousarray(self.codes).data).hexdigest()

    def counts(self) -> tuple[int, int, int]:
        """The numbers of codes that are -1, 0 and +1."""
        plus = int(np.count_nonzero(self.codes == 1))
        minus = int(np.count_nonzero(self.codes == -1))
        return minus, self.codes.size - plus - minus, plus


def granularity(shape: tuple[int, int], scale_blocks: tuple[int, int]) -> str:
    """The granularity of scales that tile a matrix so: `tensor`, `row`, `rows/N`, `cols/N` (shards) or `group N`."""
    (rows, cols), (row_blocks, col_blocks) = shape, scale_blocks
    if scale_blocks == (1, 1):
        return "tensor"
    if col_blocks == 1:
        return "row" if row_blocks == rows else f"rows/{row_blocks}"
    if row_blocks == 1:
        return f"cols/{col_blocks}"
    return f"group {cols // col_blocks}" + ("" if row_blocks == rows else f" of rows/{row_blocks}")


def coarsest(scales: Scales, *, zero_fits: bool = False) -> Scales:
    """Scales (rows, m) with equal rows merged into the fewest blocks that still tile: (n, m).

    zero_fits: a scale of 0 has only zeros under it, so that any other may take its place.
    """
    rows = len(scales)
    for blocks in (count for count in range(1, rows + 1) if rows % count == 0):
        grouped = scales.reshape(blocks, rows // blocks, -1)
        merged: Scales = grouped.max(1)
        equal = grouped == merged[:, None]
        if (equal | (grouped == 0) if zero_fits else equal).all():
            return merged
    return scales


def coarsest_both(scales: Scales) -> Scales:
    """Scales (rows, columns) merged along both into the fewest blocks that still tile; a 0 has only zeros under it."""
    if scales.shape[1] > 1:
        scales = np.ascontiguousarray(coarsest(np.ascontiguousarray(scales.T), zero_fits=True).T)
    return coarsest(scales, zero_fits=True) if len(scales) > 1 else scales


def scales_differ(mine: TernaryTensor, theirs: TernaryTensor) -> tuple[npt.NDArray[np.bool_], Scales, Scales]:
    """Compare the scales of two tensors with the same codes, in the coarsest blocks that divide those of both. Returns
    for each block whether they differ, and both scales. Under a block of zero codes scales never differ."""
    shape = mine.shape
    blocks = [int(np.lcm(x, y)) for x, y in zip(mine.scale_blocks, theirs.scale_blocks)]
    if any(size % count for size, count in zip(shape, blocks)):
        blocks = list(shape)

    def finer(scales: Scales) -> Scales:
        for axis, count in enumerate(blocks):
            scales = np.repeat(scales, count // scales.shape[axis], axis)
        return scales

    a, b = finer(mine.scales), finer(theirs.scales)
    if np.array_equal(a, b):  # without a look at the codes, which takes long
        return a != b, a, b
    tiles = (theirs.codes != 0).reshape(blocks[0], shape[0] // blocks[0], blocks[1], shape[1] // blocks[1])
    return (a != b) & np.asarray(tiles.any((1, 3))), a, b


def entropy_bits(counts: tuple[int, int, int]) -> float:
    """Shannon entropy, in bits per weight, of codes that occur so often."""
    total = sum(counts)
    shares = [count / total for count in counts if count]
    return float(-sum(share * np.log2(share) for share in shares)) + 0.0

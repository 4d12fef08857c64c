"""Codes from blocks of stored rows: in any order, from several threads, without the whole tensor in memory."""

from __future__ import annotations

import abc
from collections.abc import Iterator

from tritpack.formats.arrays import Bytes, Codes, Scales


class RowReader(abc.ABC):
    """One linear that is decoded block by block. All methods raise Unreadable with the tensor's name.

    row_nbytes: of one stored row. groups: the rows of the linear that one stored row holds, a group of rows apart: with
    4 of 64 rows, stored row 3 holds rows 3, 19, 35 and 51. looks_first: `look` has to see all blocks before `scales`
    and `codes` are asked.
    """

    row_nbytes: int
    groups: int = 1
    looks_first: bool = False

    def look(self, first: int, data: Bytes) -> None:  # noqa: B027 (optional)
        """Take note of a block that begins with stored row `first`."""

    @abc.abstractmethod
    def scales(self) -> Scales:
        """Return the scales of the linear."""

    @abc.abstractmethod
    def codes(self, first: int, data: Bytes) -> Iterator[tuple[int, Codes]]:
        """Yield (row of the linear, codes of this row and those after it) of a block that begins with stored row
        `first`."""

"""Tilings of the lookup-table layouts TL1 and TL2 of bitnet.cpp: what they are and where they come from.

The order of the bytes depends on tiles that no file of bitnet.cpp records. So a layout object is made for given
tilings: from our metadata, a kernel_config.ini or the command line; for other shapes a rule chooses one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

from tritpack.formats.errors import Unreadable, UsageError
from tritpack.formats.inputs import read_text
from tritpack.formats.layouts.bases import TrailingScale


class Tiling(NamedTuple):
    """The tiles in whose order TL1 and TL2 store a matrix: BM rows by BK columns, with blocks of bm rows inside."""

    BM: int
    BK: int
    bm: int


LONGEST_TILE = 1 << 21
"""Columns of the longest tile that is looked for: no kernel takes longer rows."""

LONGEST_LINE = 1000
"""Characters of a line of a kernel_config.ini; legal ones have about ten."""

Tilings = Mapping[tuple[int, int], Tiling]
"""The tiling of each shape (rows, cols)."""


class Tiled(TrailingScale):
    """A layout object for given tilings. A shape without one gets the rule's, or is refused if `by_rule` is false."""

    inner: ClassVar[tuple[int, ...]]
    """The values that bm can have."""

    def __init__(self, tilings: Tilings | None = None, by_rule: bool = True) -> None:
        self.tilings = dict(tilings or {})
        self.by_rule = by_rule

    @classmethod
    def illegal_tiling(cls, rows: int, cols: int, tiling: Tiling) -> str | None:
        """The reason why a matrix of this shape cannot be cut so; None if it can."""
        raise NotImplementedError

    @classmethod
    def rule(cls, rows: int, cols: int) -> Tiling | None:
        """The tiling of a shape for which none is given; None if there is none. Tiles have at most 256 rows and the BK
        that bitnet.cpp ships."""
        raise NotImplementedError

    @classmethod
    def candidates(cls, rows: int, cols: int) -> list[Tiling]:
        """Every tiling that a file of such a matrix may have been made with, the likely ones first."""
        tilings = [
            Tiling(BM, BK, bm)
            for bm in cls.inner
            for BM in range(32, rows + 1, 32)
            if rows % BM == 0
            for BK in range(8, min(cols, LONGEST_TILE) + 1, 8)
            if cls.illegal_tiling(rows, cols, Tiling(BM, BK, bm)) is None
        ]
        rule = cls.rule(rows, cols)

        def likeliest_first(tiling: Tiling) -> tuple[bool, bool, bool, Tiling]:
            return tiling != rule, tiling.BM > 320, tiling.BK not in (64, 96, 128, 192, 256), tiling

        return sorted(tilings, key=likeliest_first)

    def tiling_of(self, rows: int, cols: int) -> Tiling:
        tiling = self.tilings.get((rows, cols))
        if tiling is None and self.by_rule:
            tiling = self.rule(rows, cols)
        if tiling is None:
            raise Unreadable(
                f"{self.name}: the file does not say how its tensors of {rows} x {cols} are tiled",
                hint="tritpack repack takes it from --kernel-config or --tiling, or finds it with --reference FILE",
            )
        return tiling

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        if (tiling := self.tilings.get((rows, cols))) is not None:
            return self.illegal_tiling(rows, cols, tiling)
        if rows % 32:
            return f"{rows} rows are not a multiple of 32"
        return None if self.rule(rows, cols) else self.no_rule(cols)

    def no_rule(self, cols: int) -> str:
        """The reason why the rule has no tiling for a multiple of 32 rows of this length."""
        raise NotImplementedError


def tile_rows(rows: int) -> int:
    """BM by rule: the largest multiple of 32 up to 256 that divides the rows."""
    return next(size for size in range(256, 0, -32) if rows % size == 0)


# -- where tilings come from -------------------------------------------------------------------------------------------

WRITTEN = re.compile(r"(\d{1,9})x(\d{1,9})=(\d{1,9}),(\d{1,9}),(\d{1,9})")


def parse_tilings(words: Iterable[str]) -> dict[tuple[int, int], Tiling]:
    """Parse texts `ROWSxCOLS=BM,BK,bm`, as the metadata and --tiling have them. Raises UsageError."""
    tilings: dict[tuple[int, int], Tiling] = {}
    for word in words:
        if not (match := WRITTEN.fullmatch(word.strip())):
            raise UsageError(f"{word!r} is not a tiling", hint="write ROWSxCOLS=BM,BK,bm, as in 1536x4096=256,96,32")
        rows, cols, *tile = map(int, match.groups())
        if 0 in tile:
            raise UsageError(f"{word!r} is not a tiling: a tile of 0")
        if tilings.setdefault((rows, cols), Tiling(*tile)) != Tiling(*tile):
            raise UsageError(f"{rows}x{cols} has two tilings")
    return tilings


def format_tilings(tilings: Tilings) -> list[str]:
    """The texts that parse_tilings reads, sorted by shape."""
    return [f"{rows}x{cols}={BM},{BK},{bm}" for (rows, cols), (BM, BK, bm) in sorted(tilings.items())]


def read_kernel_config(path: str | Path) -> dict[tuple[int, int], Tiling]:
    """Read bitnet.cpp's kernel_config.ini, whose sections have m, k, bm, bk and bmm. Raises Unreadable."""
    import configparser  # which no file needs that records its tiling

    config = configparser.ConfigParser(interpolation=None)  # a value that names others ten times each fills the memory
    tilings = {}
    try:
        text = read_text(Path(path))
        if any(len(line) > LONGEST_LINE for line in text.splitlines()):  # configparser takes the square of its length
            raise ValueError(f"it has a line of more than {LONGEST_LINE} characters")
        config.read_string(text)
        for name in config.sections():
            m, k, bm, bk, bmm = (config.getint(name, key) for key in ("m", "k", "bm", "bk", "bmm"))
            if min(m, k, bm, bk, bmm) < 1:
                raise ValueError(f"section {name!r} holds a size below 1")
            tilings[m, k] = Tiling(bm, bk, bmm)
    except (configparser.Error, ValueError) as error:
        raise Unreadable(f"is not a kernel_config.ini: {str(error).splitlines()[0]}", path=path) from error
    if not tilings:
        raise Unreadable("is not a kernel_config.ini: it has no sections", path=path)
    return tilings

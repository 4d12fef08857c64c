"""What TL1 and TL2 of bitnet.cpp share: lookup-table layouts, whose byte order depends on tiles that no file of theirs
records. So a layout here is made for tilings: chosen by rule, from a kernel_config.ini, or read from our metadata."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

from tritpack.formats.errors import Unreadable, UsageError
from tritpack.formats.layouts.bases import TrailingScale


class Tiling(NamedTuple):
    """The tiles in whose order TL1 and TL2 store a matrix: BM rows by BK columns, with blocks of bm rows inside."""

    BM: int
    BK: int
    bm: int


Tilings = Mapping[tuple[int, int], Tiling]
"""By shape (rows, cols)."""


class Tiled(TrailingScale):
    """A layout made for given tilings. A shape without one gets the rule's; with `by_rule` false it cannot be read."""

    inner: ClassVar[tuple[int, ...]]
    """The bm that there are."""

    def __init__(self, tilings: Tilings | None = None, by_rule: bool = True) -> None:
        self.tilings = dict(tilings or {})
        self.by_rule = by_rule

    @classmethod
    def illegal_tiling(cls, rows: int, cols: int, tiling: Tiling) -> str | None:
        """Why a matrix of this shape cannot be cut so, or None."""
        raise NotImplementedError

    @classmethod
    def rule(cls, rows: int, cols: int) -> Tiling | None:
        """The tiling of a shape where nobody says it: tiles of at most 256 rows and the BK that bitnet.cpp ships."""
        raise NotImplementedError

    @classmethod
    def candidates(cls, rows: int, cols: int) -> list[Tiling]:
        """Every tiling that a file of such a matrix may have been made with, the likely ones first."""
        found = [
            Tiling(BM, BK, bm)
            for bm in cls.inner
            for BM in range(32, rows + 1, 32)
            for BK in range(8, cols + 1, 8)
            if rows % BM == 0 and cls.illegal_tiling(rows, cols, Tiling(BM, BK, bm)) is None
        ]
        rule = cls.rule(rows, cols)
        return sorted(
            found, key=lambda each: (each != rule, each.BM > 320, each.BK not in (64, 96, 128, 192, 256), each)
        )

    def tiling_of(self, rows: int, cols: int) -> Tiling:
        if (found := self.tilings.get((rows, cols))) is None and self.by_rule:
            found = self.rule(rows, cols)
        if found is None:
            raise Unreadable(
                f"{self.name}: the file does not say how its tensors of {rows} x {cols} are tiled",
                hint="tritpack repack takes it from --kernel-config or --tiling, or finds it with --reference FILE",
            )
        return found

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        if (given := self.tilings.get((rows, cols))) is not None:
            return self.illegal_tiling(rows, cols, given)
        if rows % 32:
            return f"{rows} rows are not a multiple of 32"
        return None if self.rule(rows, cols) else self.no_rule(cols)

    def no_rule(self, cols: int) -> str:
        """Why a shape of whole blocks of 32 rows has no tiling."""
        raise NotImplementedError


def tile_rows(rows: int) -> int:
    """BM by rule: the largest multiple of 32 up to 256 that divides the rows."""
    return next(size for size in range(256, 0, -32) if rows % size == 0)


# -- where tilings come from -------------------------------------------------------------------------------------------

WRITTEN = re.compile(r"(\d{1,9})x(\d{1,9})=(\d{1,9}),(\d{1,9}),(\d{1,9})")


def parse_tilings(words: Iterable[str]) -> dict[tuple[int, int], Tiling]:
    """`ROWSxCOLS=BM,BK,bm` each, as the metadata and --tiling have them. Raises UsageError."""
    found: dict[tuple[int, int], Tiling] = {}
    for word in words:
        if not (match := WRITTEN.fullmatch(word.strip())):
            raise UsageError(f"{word!r} is no tiling", hint="write ROWSxCOLS=BM,BK,bm, as in 1536x4096=256,96,32")
        rows, cols, *tile = map(int, match.groups())
        if 0 in tile:
            raise UsageError(f"{word!r} is no tiling: a tile of 0")
        if found.setdefault((rows, cols), Tiling(*tile)) != Tiling(*tile):
            raise UsageError(f"{rows}x{cols} has two tilings")
    return found


def format_tilings(tilings: Tilings) -> list[str]:
    """What parse_tilings reads."""
    return [f"{rows}x{cols}={each.BM},{each.BK},{each.bm}" for (rows, cols), each in sorted(tilings.items())]


def read_kernel_config(path: str | Path) -> dict[tuple[int, int], Tiling]:
    """The tilings of bitnet.cpp's kernel_config.ini: sections with m, k, bm, bk and bmm. Raises Unreadable."""
    config = configparser.ConfigParser()
    found = {}
    try:
        with open(path, encoding="utf-8") as stream:
            config.read_file(stream)
        for name in config.sections():
            m, k, bm, bk, bmm = (config.getint(name, key) for key in ("m", "k", "bm", "bk", "bmm"))
            if min(m, k, bm, bk, bmm) < 1:
                raise ValueError(f"section {name!r} holds a size below 1")
            found[m, k] = Tiling(bm, bk, bmm)
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror or error}") from error
    except (configparser.Error, ValueError) as error:
        raise Unreadable(f"{path}: is no kernel_config.ini: {str(error).splitlines()[0]}") from error
    if not found:
        raise Unreadable(f"{path}: is no kernel_config.ini: it has no sections")
    return found

"""The layout of each name, and the meanings of each GGUF type id.

The same number means different things in different forks (36 to 42 above all), so an id alone never decides: `resolve`
takes the known meaning whose size fits the space that the tensor has in the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tritpack.formats.errors import Unreadable, UsageError
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.layouts.hf_u8 import HfU8
from tritpack.formats.layouts.i2_s import I2S, I2SArm, I2SRows
from tritpack.formats.layouts.iq1_bn import IQ1BN
from tritpack.formats.layouts.iq2_bn import IQ2BN, IQ2BNR4
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.mlx2 import Mlx2
from tritpack.formats.layouts.q2_0 import PQ2, Q2
from tritpack.formats.layouts.stq1_0 import STQ1
from tritpack.formats.layouts.t2 import T2
from tritpack.formats.layouts.t158 import T158
from tritpack.formats.layouts.tiling import Tiled, Tilings, parse_tilings
from tritpack.formats.layouts.tl1 import TL1
from tritpack.formats.layouts.tl2 import TL2
from tritpack.formats.layouts.tq1_0 import PTQ1, TQ1
from tritpack.formats.layouts.tq2_0 import TQ2

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        I2S(), T2(), T158(), TL1(), TL2(), TQ1(), TQ2(), Q2(), PTQ1(), PQ2(), IQ1BN(), IQ2BN(), IQ2BNR4(), HfU8(),
        Mlx2(),
    )
}  # fmt: skip
"""Every layout of names.LAYOUTS and names.CHECKPOINT_LAYOUTS, in that order (tests/formats/test_names.py)."""

READ_ONLY: dict[str, Layout] = {layout.name: layout for layout in (STQ1(),)}
"""Layouts of names.READ_ONLY: files in them are decoded, and neither written nor run."""

REPAIRABLE: dict[str, Layout] = {layout.name: layout for layout in (I2SArm(), I2SRows())}
"""The orders of names.READ_AS, which only broken tools have written: they are read on request and never written."""

TILING_KEY = "tritpack.layout.tiling"


def layouts_of(metadata: Mapping[str, Any], tilings: Tilings = MappingProxyType({})) -> dict[str, Layout]:
    """The layouts as a file with this metadata means them. TL1 and TL2 take the tilings that it records, then the ones
    that are given, and never the rule's. Raises Unreadable if the record makes no sense."""
    recorded = metadata.get(TILING_KEY, ())
    try:
        if not isinstance(recorded, Sequence) or isinstance(recorded, str):
            raise UsageError(f"it is {str(recorded)[:40]!r}, not an array of texts")
        in_file = parse_tilings(map(str, recorded))
    except UsageError as error:
        raise Unreadable(f"metadata {TILING_KEY}: {error.message[:120]}") from error
    return {
        name: type(layout)({**tilings, **in_file}, by_rule=False) if isinstance(layout, Tiled) else layout
        for name, layout in (LAYOUTS | READ_ONLY).items()
    }


Size = Callable[[int, int, bytes], "int | None"]


@dataclasses.dataclass(frozen=True)
class TypeMeaning:
    """One meaning of a GGUF type id: a layout or float type of some engine.

    nbytes: (rows, cols, head) -> the stored size in bytes, or None if the type cannot hold the shape. head: the first
    bytes of the tensor, since some layouts have a header that decides the size. file_type: general.file_type of a file
    with such tensors.
    """

    type_id: int
    name: str
    dialect: str
    nbytes: Size
    file_type: int | None = None

    @property
    def layout(self) -> Layout | None:
        return LAYOUTS.get(self.name) or READ_ONLY.get(self.name)


def _blocks(block: int, size: int) -> Size:
    return lambda rows, cols, head: None if cols % block else rows * cols // block * size


def _of(name: str) -> Size:
    return (LAYOUTS | READ_ONLY)[name].stored_nbytes


def _any_i2_s(rows: int, cols: int, head: bytes) -> int | None:
    """The size of i2_s, also for shapes that only the orders of `repack --read-as` hold; i2_s then refuses them."""
    return rows * cols // 4 + 32 if rows * cols % 4 == 0 else None


def _t5b(rows: int, cols: int, head: bytes) -> int:
    """Five codes per byte and 160 per 32 bytes, in rows, then one scale as i2_s has it."""
    return -(-cols // 160) * 32 * rows + 32


UNREAD_LAYOUTS = ("t5b",)
"""Ternary layouts that are recognised and named, and not decoded."""

MEANINGS: tuple[TypeMeaning, ...] = (
    # Of one id, mainline's meaning comes first; of one layout, the id that its engine has now.
    *(
        TypeMeaning(kind.type_id, kind.name, "ggml", _blocks(kind.block, kind.block_bytes))
        for kind in FLOAT_TYPES.values()
    ),
    TypeMeaning(2, "q4_0", "ggml", _blocks(32, 18)),
    TypeMeaning(3, "q4_1", "ggml", _blocks(32, 20)),
    TypeMeaning(6, "q5_0", "ggml", _blocks(32, 22)),
    TypeMeaning(7, "q5_1", "ggml", _blocks(32, 24)),
    TypeMeaning(9, "q8_1", "ggml", _blocks(32, 36)),
    TypeMeaning(10, "q2_k", "ggml", _blocks(256, 84)),
    TypeMeaning(11, "q3_k", "ggml", _blocks(256, 110)),
    TypeMeaning(13, "q5_k", "ggml", _blocks(256, 176)),
    TypeMeaning(15, "q8_k", "ggml", _blocks(256, 292)),
    TypeMeaning(16, "iq2_xxs", "ggml", _blocks(256, 66)),
    TypeMeaning(17, "iq2_xs", "ggml", _blocks(256, 74)),
    TypeMeaning(18, "iq3_xxs", "ggml", _blocks(256, 98)),
    TypeMeaning(19, "iq1_s", "ggml", _blocks(256, 50)),
    TypeMeaning(20, "iq4_nl", "ggml", _blocks(32, 18)),
    TypeMeaning(21, "iq3_s", "ggml", _blocks(256, 110)),
    TypeMeaning(22, "iq2_s", "ggml", _blocks(256, 82)),
    TypeMeaning(23, "iq4_xs", "ggml", _blocks(256, 136)),
    TypeMeaning(24, "i8", "ggml", _blocks(1, 1)),
    TypeMeaning(25, "i16", "ggml", _blocks(1, 2)),
    TypeMeaning(26, "i32", "ggml", _blocks(1, 4)),
    TypeMeaning(27, "i64", "ggml", _blocks(1, 8)),
    TypeMeaning(28, "f64", "ggml", _blocks(1, 8)),
    TypeMeaning(29, "iq1_m", "ggml", _blocks(256, 56)),
    TypeMeaning(34, "tq1_0", "llama.cpp", _of("tq1_0"), 36),
    TypeMeaning(35, "tq2_0", "llama.cpp", _of("tq2_0"), 37),
    TypeMeaning(36, "i2_s", "bitnet.cpp", _any_i2_s, 40),
    TypeMeaning(38, "tl1", "bitnet.cpp", _of("tl1"), 38),
    TypeMeaning(42, "q2_0", "llama.cpp", _of("q2_0"), 41),
    TypeMeaning(142, "pq2_0", "PrismML", _of("pq2_0"), 141),
    TypeMeaning(42, "pq2_0", "PrismML until mid 2026, and CAT-Q", _of("pq2_0")),
    TypeMeaning(42, "tl2", "bitnet.cpp since July 2026", _of("tl2"), 39),
    TypeMeaning(43, "stq1_0", "llama.cpp PR 22836", _of("stq1_0"), 42),
    TypeMeaning(42, "stq1_0", "llama.cpp PR 22836 until mid 2026", _of("stq1_0"), 41),
    TypeMeaning(253, "stq1_0", "a fork of llama.cpp", _of("stq1_0")),
    TypeMeaning(43, "t5b", "bitnet-t5b", _t5b),
    TypeMeaning(39, "tl2", "bitnet.cpp until May 2026", _of("tl2"), 39),
    TypeMeaning(39, "mxfp4", "llama.cpp", _blocks(32, 17)),
    TypeMeaning(40, "nvfp4", "llama.cpp", _blocks(64, 36)),
    TypeMeaning(41, "q1_0", "llama.cpp", _blocks(128, 18)),
    TypeMeaning(134, "iq1_bn", "ik_llama.cpp", _of("iq1_bn"), 136),
    TypeMeaning(135, "iq2_bn", "ik_llama.cpp", _of("iq2_bn"), 137),
    TypeMeaning(335, "iq2_bn_r4", "ik_llama.cpp", _of("iq2_bn_r4"), 337),
    TypeMeaning(143, "ptq1_0", "PrismML", _of("ptq1_0"), 143),
    TypeMeaning(1582, "t2", "tritpack", _of("t2"), 1582),
    TypeMeaning(1585, "t158", "tritpack", _of("t158"), 1585),
)


def meanings(type_id: int) -> list[TypeMeaning]:
    """Every known meaning of a type id, mainline's first; empty for an unknown one."""
    return [meaning for meaning in MEANINGS if meaning.type_id == type_id]


def resolve(
    type_id: int, rows: int, cols: int, room: int, alignment: int, head: bytes
) -> list[tuple[TypeMeaning, int]]:
    """The meanings whose size fills the space exactly, else the first one if it fits there, each with that size.

    room: bytes from the tensor's start to the next tensor, or to the end of the file. head: the first of them. Writers
    pad each tensor to the alignment, so a size fills the space if less than that is left. Several meanings are left for
    a small tensor only, whose padding hides what they differ by.
    """
    sized = [(meaning, size) for meaning in meanings(type_id) if (size := meaning.nbytes(rows, cols, head)) is not None]
    if filling := [(meaning, size) for meaning, size in sized if size <= room < size + alignment]:
        return filling
    # A later meaning must fill its space: a small one would fit into what a truncated file leaves of a larger one.
    return sized[:1] if sized and sized[0][1] <= room else []


def type_of(name: str) -> TypeMeaning:
    """The meaning that is written for a layout or float type of this name."""
    return next(meaning for meaning in MEANINGS if meaning.name == name)

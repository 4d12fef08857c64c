"""Name -> layout, and the many meanings of a GGUF type id.

The same number means different things in different forks (36 to 42 above all), so an id alone never decides: the
resolver lists every known meaning and keeps those whose size fits the room the tensor has in the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Protocol, cast

from formats.float_types import FLOAT_TYPES
from formats.layouts import hf_u8, i2_s, t2
from formats.ternary import Bytes, TernaryTensor


class Layout(Protocol):
    """The face every layout module has."""

    NAME: str

    def fits(self, rows: int, cols: int, scale_blocks: tuple[int, int] = (1, 1)) -> str | None: ...
    def nbytes(self, rows: int, cols: int, scale_blocks: tuple[int, int] = (1, 1)) -> int: ...
    def pack(self, tensor: TernaryTensor) -> Bytes: ...
    def unpack(self, data: Bytes, rows: int, cols: int) -> TernaryTensor: ...
    def check(self, data: Bytes, rows: int, cols: int) -> list[str]: ...


def _layout(module: ModuleType) -> Layout:
    return cast(Layout, module)


LAYOUTS: dict[str, Layout] = {module.NAME: _layout(module) for module in (i2_s, t2, hf_u8)}
"""Every ternary layout by its name. Adding one is adding a module here and a meaning below."""


Size = Callable[[int, int, Bytes], "int | None"]


@dataclasses.dataclass(frozen=True)
class TypeMeaning:
    """One meaning of a GGUF type id. `nbytes(rows, cols, head)` is the stored size, which some layouts tell in the
    bytes they begin with (`head`); None where there is no size for the shape."""

    type_id: int
    name: str
    dialect: str
    nbytes: Size
    file_type: int | None = None

    @property
    def layout(self) -> Layout | None:
        return LAYOUTS.get(self.name)


def _blocks(block: int, size: int) -> Size:
    return lambda rows, cols, head: None if cols % block else rows * cols // block * size


def _rows(header: int, block: int, size: int) -> Size:
    """ik_llama.cpp: a header at the start of each row, then blocks."""
    return lambda rows, cols, head: None if cols % block else rows * (header + cols // block * size)


def _i2_s(rows: int, cols: int, head: Bytes) -> int | None:
    return None if i2_s.fits(rows, cols) else i2_s.nbytes(rows, cols)


def _tl1(rows: int, cols: int, head: Bytes) -> int | None:
    return None if cols % 4 else rows * cols // 4 + 32


def _tl2(rows: int, cols: int, head: Bytes) -> int | None:
    if cols < 256:
        return None
    body = (cols - 256) * rows // 3 * 5 // 8 + 256 * rows // 2 * 4 // 8
    return (body + 31) // 32 * 32 + 32


MEANINGS: tuple[TypeMeaning, ...] = (
    *(
        TypeMeaning(kind.type_id, kind.name, "ggml", _blocks(kind.block, kind.block_bytes))
        for kind in FLOAT_TYPES.values()
    ),
    TypeMeaning(2, "q4_0", "ggml", _blocks(32, 18)),
    TypeMeaning(3, "q4_1", "ggml", _blocks(32, 20)),
    TypeMeaning(6, "q5_0", "ggml", _blocks(32, 22)),
    TypeMeaning(7, "q5_1", "ggml", _blocks(32, 24)),
    TypeMeaning(10, "q2_k", "ggml", _blocks(256, 84)),
    TypeMeaning(11, "q3_k", "ggml", _blocks(256, 110)),
    TypeMeaning(12, "q4_k", "ggml", _blocks(256, 144)),
    TypeMeaning(13, "q5_k", "ggml", _blocks(256, 176)),
    TypeMeaning(24, "i8", "ggml", _blocks(1, 1)),
    TypeMeaning(25, "i16", "ggml", _blocks(1, 2)),
    TypeMeaning(26, "i32", "ggml", _blocks(1, 4)),
    TypeMeaning(27, "i64", "ggml", _blocks(1, 8)),
    TypeMeaning(28, "f64", "ggml", _blocks(1, 8)),
    TypeMeaning(34, "tq1_0", "llama.cpp", _blocks(256, 54), 36),
    TypeMeaning(35, "tq2_0", "llama.cpp", _blocks(256, 66), 37),
    TypeMeaning(36, "i2_s", "bitnet.cpp", _i2_s, 40),
    TypeMeaning(38, "tl1", "bitnet.cpp", _tl1, 38),
    TypeMeaning(39, "tl2", "bitnet.cpp until May 2026", _tl2, 39),
    TypeMeaning(39, "mxfp4", "llama.cpp", _blocks(32, 17)),
    TypeMeaning(40, "nvfp4", "llama.cpp", _blocks(64, 36)),
    TypeMeaning(41, "q1_0", "llama.cpp", _blocks(128, 18)),
    TypeMeaning(42, "q2_0", "llama.cpp", _blocks(64, 18), 41),
    TypeMeaning(42, "pq2_0", "PrismML until mid 2026", _blocks(128, 34)),
    TypeMeaning(42, "tl2", "bitnet.cpp since July 2026", _tl2, 39),
    TypeMeaning(134, "iq1_bn", "ik_llama.cpp", _rows(2, 64, 13), 136),
    TypeMeaning(135, "iq2_bn", "ik_llama.cpp", _rows(4, 64, 16), 137),
    TypeMeaning(335, "iq2_bn_r4", "ik_llama.cpp", _rows(4, 64, 16), 337),
    TypeMeaning(142, "pq2_0", "PrismML", _blocks(128, 34)),
    TypeMeaning(143, "ptq1_0", "PrismML", _blocks(128, 28)),
    TypeMeaning(1582, "t2", "tritpack", t2.nbytes_by_header, 1582),
)


def meanings(type_id: int) -> list[TypeMeaning]:
    """Every known meaning of a type id, mainline's first; empty for an unknown one."""
    return [meaning for meaning in MEANINGS if meaning.type_id == type_id]


def resolve(
    type_id: int, rows: int, cols: int, room: int, alignment: int, head: Bytes
) -> tuple[TypeMeaning, int] | None:
    """The meaning whose size fills the room exactly, else the first whose size fits in it, with that size; else None.

    room: bytes from the tensor's offset to the next tensor's (or to the end of the file), head: the first of them.
    Writers pad each tensor to the alignment, so a size fills its room if only that padding is left.
    """
    sized = [(meaning, size) for meaning in meanings(type_id) if (size := meaning.nbytes(rows, cols, head)) is not None]
    for meaning, size in sized:
        if size <= room < size + alignment:
            return meaning, size
    return next(((meaning, size) for meaning, size in sized if size <= room), None)


def type_of(name: str) -> TypeMeaning:
    """The meaning that we write for a layout or float type of this name."""
    return next(meaning for meaning in MEANINGS if meaning.name == name)

"""Seeds of the C fuzzers: a legal case of each layout, in the order in which tests/fuzz/c/*.c take their numbers."""

from __future__ import annotations

import struct

from tritpack.runtime.abi import LAYOUT_IDS

UNITS = (1, 2, 8, 32, 64, 128, 256)
BODY = b"\x01" + bytes(0x24 + 7 * i & 0xFF for i in range(24))
LAYOUTS = list(LAYOUT_IDS)


def size(number: int) -> bytes:
    """As take_size reads it: a count of one of its units, or eight bytes."""
    for kind, unit in reversed(list(enumerate(UNITS))):
        if number % unit == 0 and 0 <= number // unit < 256:
            return bytes((kind, number // unit))
    return b"\xf0" + struct.pack("<q", number)


def shape(layout: str, rows: int, cols: int) -> bytes:
    tile = {"tl1": (32, 64, 32), "tl2": (32, 96, 32)}.get(layout, (0, 0, 0))
    return bytes([LAYOUTS.index(layout)]) + size(rows) + size(cols) + b"".join(map(size, tile))


def pack_seeds() -> dict[str, bytes]:
    """has_tile, another size in bytes, whether it counts, the body."""
    return {name: shape(name, 32, 256) + b"\x01" + size(64) + b"\x01" + BODY for name in LAYOUTS}


def tensor_seeds() -> dict[str, bytes]:
    """flags, scale, another size in bytes, the grid of scales, tokens, the bytes."""
    rest = size(64), size(2), size(2), b"\x04", BODY
    return {name: shape(name, 32, 256) + struct.pack("<Bf", 1, 0.5) + b"".join(rest) for name in LAYOUTS}


def model_seeds() -> dict[str, bytes]:
    """kind, table, head, linear, no pokes, the session, its steps."""
    session = bytes([3, 9, 1, 0, 3, 0]) + bytes([1, 2, 3, 4, 3, 1]) * 3
    pokes = bytes([2, 3, 7, 0, 1, 200, 4, 9, 1, 0, 1, 5])
    seeds = {}
    for i in range(16):
        seeds[f"recipe{i}"] = bytes([i, i % 6, i, i % 13, 0]) + session
        seeds[f"poked{i}"] = bytes([i, i % 6, i, i % 13]) + pokes + session
    return seeds


SEEDS = {"pack": pack_seeds, "tensor": tensor_seeds, "model": model_seeds}

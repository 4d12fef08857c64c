"""The slot for the packers in C. runtime/packers.py fills it; while it is empty, numpy packs and unpacks.

Nothing in formats/ needs a compiler, so the backend is handed in from above. It gives the same bytes as the numpy
bodies, which are the specification (tests/runtime/test_packers.py compares them).
"""

from __future__ import annotations

from typing import Protocol

from tritpack.formats.arrays import Bytes, Codes

Tile = tuple[int, int, int]
"""BM, BK and bm of a TL layout: its `Tiling` (tiling.py)."""


class PackBackend(Protocol):
    """Packers and unpackers of many layouts. Both methods return False, and write nothing, for what they do not do."""

    def pack(self, layout: str, tiling: Tile | None, codes: Codes, body: Bytes) -> bool: ...
    def unpack(self, layout: str, tiling: Tile | None, body: Bytes, codes: Codes) -> bool: ...


_backend: PackBackend | None = None


def use(backend: PackBackend | None) -> None:
    """Pack and unpack with this backend from now on; None goes back to numpy."""
    global _backend
    _backend = backend


def pack(layout: str, tiling: Tile | None, codes: Codes, body: Bytes) -> bool:
    """Write codes (rows, cols), contiguous, into the zeroed body of a tensor. Returns whether the backend did it."""
    return _backend is not None and _backend.pack(layout, tiling, codes, body)


def unpack(layout: str, tiling: Tile | None, body: Bytes, codes: Codes) -> bool:
    """Fill codes (rows, cols), contiguous, from the body of a tensor. Returns whether the backend did it."""
    return _backend is not None and _backend.unpack(layout, tiling, body, codes)

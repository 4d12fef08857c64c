"""The slot for what C does with blocks of rows: encoding, decoding, absmean, checksums. runtime/blocks.py fills it,
numpy serves while it is empty.

C gives the same bytes as the numpy bodies, which are the specification (tests/runtime/test_blocks.py compares them).
It runs without the interpreter lock, so that threads work on several blocks at once.
"""

from __future__ import annotations

from typing import Protocol

from tritpack.formats.arrays import F32, F64, Bytes, Codes


class BlockBackend(Protocol):
    """Operations on the bytes of (rows, cols) floats of a plain type. Each method tells "not done" for what it does not
    do or refuses; then numpy does it, and finds the words of the refusal."""

    def encode(self, to: str, stored: str, rows: int, cols: int, values: Bytes, out: Bytes | None) -> bool | None:
        """Fill `out`, or judge the values alone. Return whether every value survived; None for not done."""

    def decode(self, kind: str, rows: int, cols: int, data: Bytes, out: F32) -> bool: ...
    def abs_sums(self, stored: str, rows: int, cols: int, values: Bytes, sums: F64) -> bool: ...
    def absmean_codes(self, stored: str, values: Bytes, reciprocal: float, codes: Codes) -> bool: ...
    def checksum(self, data: Bytes, first_word: int) -> int: ...


_backend: BlockBackend | None = None


def use(backend: BlockBackend | None) -> None:
    """Work with this backend from now on; None goes back to numpy."""
    global _backend
    _backend = backend


def backend() -> BlockBackend | None:
    """Return the backend, if there is one."""
    return _backend

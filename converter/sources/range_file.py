"""A file of which parts are read: on the Hub (hub_file.py) or at an address (url_file.py)."""

from __future__ import annotations

from typing import Protocol

from tritpack.formats.errors import Unreadable

LARGEST = 1 << 42
"""Bytes of the largest file that is believed: file systems hold 16 TiB, and no model has a third of that."""


class RangeFile(Protocol):
    """name: of the file. shown: what messages call it. size: in bytes."""

    size: int

    @property
    def name(self) -> str: ...

    @property
    def shown(self) -> str: ...

    def read(self, first: int, last: int) -> bytes:
        """Return bytes [first, last). Raises NetworkTrouble, IntegrityFailed, Unreadable."""


def check_size(size: int, shown: str) -> None:
    """Raise Unreadable for a size that no file has."""
    if size > LARGEST:
        raise Unreadable(f"the server says that it has more than {LARGEST >> 40} TiB, which no model has", path=shown)

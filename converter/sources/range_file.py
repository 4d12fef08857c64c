"""A file of which parts are read: on the Hub (hub_file.py) or at an address (url_file.py)."""

from __future__ import annotations

from typing import Protocol


class RangeFile(Protocol):
    """name: of the file. shown: what messages call it. size: in bytes."""

    size: int

    @property
    def name(self) -> str: ...

    @property
    def shown(self) -> str: ...

    def read(self, first: int, last: int) -> bytes:
        """Return bytes [first, last). Raises NetworkTrouble, IntegrityFailed, Unreadable."""

"""Placeholder until the C twins are merged."""

from __future__ import annotations


def install() -> None:
    """Pack and unpack in C where the library is there."""

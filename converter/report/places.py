"""Where a tensor stands in a model, by its name alone: which layer, and which part of it."""

from __future__ import annotations

from collections.abc import Iterable

from tritpack.formats.model_spec import LINEARS


def place(name: str) -> tuple[int | None, str]:
    """Return the layer of a tensor, None outside of the layers, and its name there without `.weight`."""
    pieces = name.split(".")
    for index, piece in enumerate(pieces[:-1]):
        if piece.isascii() and piece.isdigit() and len(piece) < 5:
            return int(piece), ".".join(pieces[index + 1 :]).removesuffix(".weight")
    return None, name.removesuffix(".weight")


def ordered(parts: Iterable[str]) -> list[str]:
    """Return names of parts with the linears first, in their order in a layer."""
    return sorted(parts, key=lambda part: LINEARS.index(part) if part in LINEARS else len(LINEARS))

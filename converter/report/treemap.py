"""A treemap as nested boxes of a page: areas are in proportion to values, as square as they can be.

Layout: "Squarified Treemaps" (Bruls, Huizing, van Wijk, 2000). Boxes are placed in per cent of the box around them, so
that the map fits any screen; colours come from the page's style sheet by class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup

from tritpack.formats.printable import printable

LABELLED = 0.004
"""The smallest share of the whole that has room for a word."""


@dataclasses.dataclass(frozen=True)
class Box:
    """One box. value: its area, in any unit. kind: its class in the style sheet. note: what it says when pointed at.

    detail: a second line where there is room. parts: the boxes in it; their values add up to its own.
    """

    label: str
    value: float
    kind: str = ""
    note: str = ""
    detail: str = ""
    parts: Sequence[Box] = ()


def treemap(boxes: Sequence[Box], aspect: float) -> Markup:
    """Return the HTML of the boxes, to stand in a positioned element. aspect: the width of that over its height."""
    total = sum(box.value for box in boxes)
    return Markup("").join(_placed(boxes, aspect, total)) if total > 0 else Markup("")


def _placed(boxes: Sequence[Box], aspect: float, total: float) -> list[Markup]:
    ordered = sorted((box for box in boxes if box.value > 0), key=lambda box: -box.value)
    pieces = []
    for box, (x, y, width, height) in zip(ordered, squarified([box.value for box in ordered], aspect)):
        style = f"left:{x:.2f}%;top:{y:.2f}%;width:{width:.2f}%;height:{height:.2f}%"
        share = box.value / total
        words = Markup("")
        if share >= LABELLED and box.label:
            words = Markup("<span><b>{}</b></span>").format(printable(box.label))
            if box.detail and share >= 4 * LABELLED:
                words += Markup("<small><b>{}</b></small>").format(printable(box.detail))
        inner = _placed(box.parts, aspect * width / height, total) if box.parts else []
        title = Markup(' title="{}"').format(printable(box.note)) if box.note else Markup("")
        outer = Markup('<div class="box {}" style="{}"{}>{}{}</div>')
        pieces.append(outer.format(box.kind, style, title, Markup("").join(inner), words))
    return pieces


def squarified(values: Sequence[float], aspect: float) -> list[tuple[float, float, float, float]]:
    """Return (left, top, width, height) of each value, in per cent of a box of that aspect; values from the largest."""
    places: list[tuple[float, float, float, float]] = []
    left, top, width, height = 0.0, 0.0, float(aspect), 1.0
    remaining, first = float(sum(values)), 0
    while first < len(values):
        area = width * height / remaining
        side = min(width, height)
        last = first + 1
        while last < len(values) and _worst(values[first : last + 1], area, side) <= _worst(
            values[first:last], area, side
        ):
            last += 1
        row = sum(values[first:last])
        thickness = row * area / side
        along = 0.0
        for value in values[first:last]:
            length = value * area / thickness
            box = (left, top + along, thickness, length) if width >= height else (left + along, top, length, thickness)
            places.append((100 * box[0] / aspect, 100 * box[1], 100 * box[2] / aspect, 100 * box[3]))
            along += length
        if width >= height:
            left, width = left + thickness, width - thickness
        else:
            top, height = top + thickness, height - thickness
        remaining, first = remaining - row, last
    return places


def _worst(row: Sequence[float], area: float, side: float) -> float:
    """Return the largest aspect of the boxes of a row along a side."""
    total = sum(row) * area
    return max(side**2 * max(row) * area / total**2, total**2 / (side**2 * min(row) * area))

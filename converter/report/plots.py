"""Small charts as SVG text, to stand in a page that loads nothing: points, bars, lines over layers, and heat maps.

Colours come from the page's style sheet (classes `mark`, `line`, `s0` ... `s6`, `limit`), so that one page serves light
and dark. Every chart has a title for those who do not see it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from tritpack.formats.printable import printable

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 36
SMALLEST = 1e-9
"""On logarithmic axes, what is smaller (an exact 0 above all) stands at the bottom."""


class Frame:
    """Axes of one chart, and where a value stands on them."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], *, log: bool, x_label: str, y_label: str) -> None:
        self.log = log
        self.parts: list[str] = []
        self.x0, self.x1 = min(xs, default=0.0), max(xs, default=1.0)
        if self.x0 == self.x1:
            self.x0, self.x1 = self.x0 - 0.5, self.x1 + 0.5
        levels = [self._level(y) for y in ys if math.isfinite(y)] or [0.0, 1.0]
        self.y0, self.y1 = min(levels), max(levels)
        if log:
            self.y0, self.y1 = math.floor(self.y0), math.ceil(self.y1)
        else:
            self.y0 = min(self.y0, 0.0)
        if self.y1 - self.y0 < 1e-12:
            self.y1 = self.y0 + 1
        self._axes(x_label, y_label)

    def _level(self, y: float) -> float:
        return math.log10(max(y, SMALLEST)) if self.log else y

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        level = self._level(value) if math.isfinite(value) else self.y1
        return HEIGHT - BOTTOM - (level - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def _axes(self, x_label: str, y_label: str) -> None:
        if self.log:
            step = max(1, round((self.y1 - self.y0) / 5))
            levels = [float(level) for level in range(int(self.y0), int(self.y1) + 1, step)]
            labels = [f"1e{int(level)}" for level in levels]
        else:
            levels = _round_steps(self.y0, self.y1)
            labels = [f"{level:.4g}" for level in levels]
        for level, label in zip(levels, labels):
            at = HEIGHT - BOTTOM - (level - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            self.parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
        for value in _round_steps(self.x0, self.x1, whole=True):  # positions, layers, powers of ten
            at, label = self.x(value), f"{value:.4g}"
            self.parts.append(
                f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>'
            )
        middle = (HEIGHT - BOTTOM + TOP) / 2
        self.parts.append(
            f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
            f"{escaped(x_label)}</text>"
            f'<text class="label" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escaped(y_label)}</text>"
        )

    def limit(self, value: float, label: str) -> None:
        """A horizontal line that nothing should cross, if it lies within the axes."""
        if self.y0 <= self._level(value) <= self.y1:
            at = self.y(value)
            self.parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            self.parts.append(
                f'<text class="limit-label" x="{WIDTH - RIGHT}" y="{at - 4:.1f}" text-anchor="end">'
                f"{escaped(label)}</text>"
            )

    def svg(self, title: str) -> str:
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(title)}">'
            f"<title>{escaped(title)}</title>{''.join(self.parts)}</svg>"
        )


def escaped(text: str) -> str:
    """Return a text of a file for a page: nothing in it is a tag or moves a cursor."""
    return html.escape(printable(text))


def _round_steps(low: float, high: float, *, whole: bool = False, wanted: int = 6) -> list[float]:
    """Round numbers within [low, high], about so many."""
    raw = (high - low) / wanted
    if whole and raw <= 1:
        return [float(value) for value in range(math.ceil(low), math.floor(high) + 1)]
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def points(
    xs: Sequence[float], ys: Sequence[float], *, title: str, x_label: str, y_label: str, limits: Mapping[str, float]
) -> str:
    """A point for each (x, y), y logarithmic; limits: lines by their label."""
    frame = Frame(xs, [*ys, *limits.values()], log=True, x_label=x_label, y_label=y_label)
    for x, y in zip(xs, ys):
        frame.parts.append(f'<circle class="mark" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2"/>')
    for label, value in limits.items():
        frame.limit(value, label)
    return frame.svg(title)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    limits: Mapping[str, float] | None = None,
) -> str:
    """A line with points for each named (xs, ys). The legend is the caller's: `legend`."""
    limits = limits or {}
    all_x = [x for xs, _ in series.values() for x in xs]
    all_y = [y for _, ys in series.values() for y in ys]
    frame = Frame(all_x, [*all_y, *limits.values()], log=log, x_label=x_label, y_label=y_label)
    for index, (name, (xs, ys)) in enumerate(series.items()):
        places = [(frame.x(x), frame.y(y)) for x, y in zip(xs, ys)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in places)
        frame.parts.append(
            f'<g class="s{index % 7}"><title>{escaped(name)}</title><polyline points="{path}"/>{dots}</g>'
        )
    for label, value in limits.items():
        frame.limit(value, label)
    return frame.svg(title)


def histogram(values: Sequence[float], *, title: str, x_label: str, y_label: str, bins: int = 32) -> str:
    """How many values there are of each size, the sizes logarithmic."""
    logs = [math.log10(max(value, SMALLEST)) for value in values if math.isfinite(value)]
    if not logs:
        return ""
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high = high if high > low else low + 1
    counts = [0] * bins
    for value in logs:
        counts[min(bins - 1, int((value - low) / (high - low) * bins))] += 1
    frame = Frame([low, high], [0, *counts], log=False, x_label=x_label, y_label=y_label)
    width = (high - low) / bins
    for index, count in enumerate(counts):
        left, right = frame.x(low + index * width), frame.x(low + (index + 1) * width)
        top, bottom = frame.y(count), frame.y(0)
        if count:
            frame.parts.append(
                f'<rect class="mark" x="{left + 0.5:.1f}" width="{max(right - left - 1, 1):.1f}" y="{top:.1f}" '
                f'height="{bottom - top:.1f}"><title>{count}</title></rect>'
            )
    return frame.svg(title)


MAP_WIDTH, MAP_ROW, MAP_BOTTOM = 480, 22, 40
MAP_LETTER = 6.6
"""How wide a letter of a row's name is at most, on the average."""


def heat_map(
    rows: Mapping[str, Mapping[int, float]],
    *,
    title: str,
    x_label: str,
    number: str = ".3g",
    span: tuple[float, float] | None = None,
) -> str:
    """A cell per row and whole x, the darker the larger its value; a cell without a value stays empty.

    rows: x -> value by the name of the row. number: the format of values. span: the values of the lightest and the
    darkest shade, for values whose differences may be noise; default: the least and the largest. Empty if there are no
    values.
    """
    finite = {name: {x: value for x, value in row.items() if math.isfinite(value)} for name, row in rows.items()}
    values = [value for row in finite.values() for value in row.values()]
    if not values:
        return ""
    low, high = span or (min(values), max(values))

    def cell(value: float) -> tuple[str, str]:
        share = 1.0 if high == low else (value - low) / (high - low)
        return f'class="cell" fill-opacity="{0.1 + 0.9 * share:.2f}"', f"{value:{number}}"

    cells = {name: {x: cell(value) for x, value in row.items()} for name, row in finite.items()}
    return _map(cells, title, x_label, _shades(low, high, number, len(rows) * MAP_ROW + MAP_BOTTOM))


def verdict_map(rows: Mapping[str, Mapping[int, tuple[str, str]]], *, title: str, x_label: str) -> str:
    """A cell per row and whole x, coloured by the style sheet. rows: x -> (class, words) by the name of the row."""
    cells = {
        name: {x: (f'class="cell {escaped(kind)}"', escaped(words)) for x, (kind, words) in row.items()}
        for name, row in rows.items()
    }
    return _map(cells, title, x_label, "")


def _map(cells: Mapping[str, Mapping[int, tuple[str, str]]], title: str, x_label: str, footer: str) -> str:
    """Cells with their attributes and words, names of rows to their left, and numbers below."""
    columns = max((x for row in cells.values() for x in row), default=-1) + 1
    if not columns:
        return ""
    left = min(10 + MAP_LETTER * max(map(len, cells)), MAP_WIDTH / 2)
    height, width = len(cells) * MAP_ROW + MAP_BOTTOM, (MAP_WIDTH - left) / columns
    label, parts = escaped(x_label), [footer]
    for line, (name, row) in enumerate(cells.items()):
        top, shown = line * MAP_ROW, escaped(name)
        parts.append(f'<text class="tick" x="{left - 6:.0f}" y="{top + 15}" text-anchor="end">{shown}</text>')
        for x, (attributes, words) in row.items():
            parts.append(
                f'<rect {attributes} x="{left + x * width:.1f}" y="{top}" width="{width * 0.94:.1f}" '
                f'height="{MAP_ROW - 2}"><title>{label} {x}, {shown}: {words}</title></rect>'
            )
    for value in _round_steps(0, max(columns - 1, 1), whole=True):
        if value < columns:
            at = left + (value + 0.47) * width
            parts.append(f'<text class="tick" x="{at:.1f}" y="{height - 26}" text-anchor="middle">{value:.0f}</text>')
    parts.append(f'<text class="label" x="{left:.0f}" y="{height - 4}">{label}</text>')
    return (
        f'<svg viewBox="0 0 {MAP_WIDTH} {height}" role="img" aria-label="{escaped(title)}">'
        f"<title>{escaped(title)}</title>{''.join(parts)}</svg>"
    )


def _shades(low: float, high: float, number: str, height: int) -> str:
    """What the shades of a heat map mean: five steps between the least and the largest value."""
    steps = "".join(
        f'<rect class="cell" x="{MAP_WIDTH - 150 + 16 * step}" y="{height - 12}" width="15" height="9" '
        f'fill-opacity="{0.1 + 0.225 * step:.2f}"/>'
        for step in range(5)
    )
    return (
        f'{steps}<text class="tick" x="{MAP_WIDTH - 155}" y="{height - 4}" text-anchor="end">{low:{number}}</text>'
        f'<text class="tick" x="{MAP_WIDTH - 66}" y="{height - 4}">{high:{number}}</text>'
    )


def legend(names: Sequence[str]) -> str:
    """HTML for the names of `lines`, in order."""
    entries = "".join(f'<li class="s{index % 7}">{escaped(name)}</li>' for index, name in enumerate(names))
    return f'<ul class="legend">{entries}</ul>'

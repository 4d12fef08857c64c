"""Sizes and times as people read them. JSON has the numbers themselves."""

from __future__ import annotations

from collections.abc import Sequence


def size(nbytes: int) -> str:
    """Return bytes in the largest decimal unit below it, with three digits: `1.19 GB`."""
    value, unit = float(nbytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    digits = 0 if unit == "bytes" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Return a time to the second or, from ten minutes on, to the minute: `12 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def count(number: int) -> str:
    """Return a number with three digits and a word from a million on: `2.41 billion`, `328 million`, `12,345`."""
    for unit, word in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if number >= 0.9995 * unit:
            value = number / unit
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {word}"
    return f"{number:,}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return words as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""

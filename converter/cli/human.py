"""Sizes and times as people read them. JSON has the numbers themselves."""

from __future__ import annotations


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

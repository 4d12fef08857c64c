"""Text of others in Markdown: reports and cards."""

from __future__ import annotations

import re

from tritpack.formats.printable import printable

MARKUP = re.compile(r"[\\`*_\[\]<>|~!&$]|:(?=//)|(?<=www)\.")
"""What begins anything within a line of Markdown, bare addresses included."""


def text(value: str) -> str:
    """Text that stays text, also in a cell of a table: no link, image, emphasis or tag, and nobody is mentioned."""
    escaped = MARKUP.sub(r"\\\g<0>", printable(" ".join(value.split())))
    return escaped.replace("@", "@\u2060")  # a mention needs the name right after the sign


def heading_anchor(heading: str) -> str:
    """The fragment by which GitHub links to a heading: lower case, hyphens for spaces, no other punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def code(value: str) -> str:
    """A code span, in which nothing is markup. Its fence is longer than any run of backticks inside."""
    shown = printable(" ".join(value.split()))
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown or ' '}{fence}"

"""Names that are proposed for a mistyped one."""

from __future__ import annotations

import pytest

from tritpack.formats.suggestions import did_you_mean

NAMES = ("convert", "inspect", "verify", "metadata", "perplexity", "engines")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("convrt", "did you mean convert?"),
        ("Verfy", "did you mean verify?"),
        ("perp", "did you mean perplexity?"),
        ("prove", None),
        ("engineer", "did you mean engines?"),
        ("context", None),
        ("info", None),
    ],
)
def test_near_names_alone_are_proposed(word: str, hint: str | None) -> None:
    assert did_you_mean(word, NAMES) == hint

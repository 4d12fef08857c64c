"""Names that are proposed for a mistyped one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritpack.formats.suggestions import did_you_mean, near_files

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
        ("metadatas-of-a-file", "did you mean metadata?"),
    ],
)
def test_near_names_alone_are_proposed(word: str, hint: str | None) -> None:
    assert did_you_mean(word, NAMES) == hint


@pytest.mark.parametrize(
    ("path", "hub"),
    [("bitnet-b1.58-2B-4T", True), ("tritpack-nobody/model", None), ("prompt.txt", False), ("prompts.jsonl", False)],
)
def test_only_what_may_be_a_repository_is_sought_on_the_hub(
    path: str, hub: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hint = near_files(Path(path))
    if hub is None:
        assert hint == "there is no folder tritpack-nobody"
    else:
        assert hint.startswith("no file in . is called so") and ("ORG/NAME" in hint) is hub

"""What a release takes over from its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritpack.converter.release.recipe import packaging
from tritpack.converter.release.recipe.recipe import Output, Recipe, Source
from tritpack.formats.errors import Unreadable

RECIPE = Recipe("m", Source(path="checkpoint"), (Output(),))


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer.json"])
def test_a_link_out_of_the_source_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (tmp_path / "secret").write_text("a file of this machine")
    (folder / name).symlink_to("../secret")
    with pytest.raises(Unreadable, match="is a link to ") as caught:
        packaging._copies(RECIPE, folder)
    assert caught.value.path == folder / name


def test_links_within_the_source_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--m" / "snapshots" / ("0" * 40)
    blobs = snapshot.parents[1] / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "a").write_text("do what you like")
    (snapshot / "LICENSE").symlink_to("../../blobs/a")
    (snapshot / "NOTICE").symlink_to("LICENSE")
    (tmp_path / "link").symlink_to(snapshot)
    for source in (snapshot, tmp_path / "link"):
        assert list(packaging._copies(RECIPE, source)) == ["LICENSE", "NOTICE"], source

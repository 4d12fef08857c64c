"""The recipes that come with tritpack, which are called by name, and those of others, which are called by path."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from tritpack.converter.release.recipe.checks import check_recipe
from tritpack.converter.release.recipe.reader import Document, read_recipe
from tritpack.formats.errors import Unreadable
from tritpack.formats.suggestions import did_you_mean

SUFFIXES = (".yaml", ".yml")


def shipped() -> dict[str, Path]:
    """Return the recipes of this installation by name: that of the file, without `.yaml`."""
    folder = Path(str(resources.files("tritpack"))) / "recipes"
    return {path.stem: path for path in sorted([*folder.glob("*.yaml"), *folder.glob("demo/*.yaml")])}


def find(recipe: str | Path) -> Path:
    """Return the path of a recipe that is given by its path or by the name of a shipped one. Raises Unreadable.

    A folder hides no name: `bundle extract demo.tar.zst` makes a folder demo.
    """
    path = Path(recipe)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:  # text that no file name can be
        raise Unreadable(f"{str(recipe)[:60]!r}... is not the name of a recipe: {error}") from error
    known = shipped()
    if is_folder and str(recipe) in known:
        return known[str(recipe)]
    if exists or path.suffix in SUFFIXES or len(path.parts) > 1:
        if not exists:
            raise Unreadable("does not exist", path=path, hint="`tritpack recipe list` shows the shipped ones")
        return path
    if str(recipe) not in known:
        hint = did_you_mean(str(recipe), known) or "`tritpack recipe list` shows all of them"
        raise Unreadable(f"no shipped recipe is called {str(recipe)!r}, and no file", hint=hint)
    return known[str(recipe)]


def load(recipe: str | Path, *, overrides: Sequence[str] = ()) -> Document:
    """Return a recipe, read and checked. Raises Unreadable, UsageError."""
    document = read_recipe(find(recipe), overrides=overrides)
    check_recipe(document)
    return document

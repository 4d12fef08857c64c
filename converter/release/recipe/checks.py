"""What must hold in a recipe beyond its types; nothing here asks the network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tritpack.converter.families.family import families
from tritpack.converter.options import ConvertOptions
from tritpack.converter.release.recipe.reader import Document
from tritpack.converter.release.recipe.recipe import Output, Recipe
from tritpack.converter.sources.hub import parse_reference
from tritpack.converter.targets import engines
from tritpack.converter.verify.rungs import HIGHEST, LEVELS, RUNGS
from tritpack.formats.errors import UsageError
from tritpack.formats.split_writer import parse_size
from tritpack.formats.suggestions import did_you_mean

NOT_PINNED = "source.revision is {!r}, no commit, and may have other files tomorrow"


def check_recipe(document: Document) -> None:
    """Raise UsageError, with the place of the value, for what cannot be done."""
    _check_source(document)
    _check_outputs(document)
    _check_verification(document)
    names = [family.name for family in families()]
    if document.recipe.family not in (None, *names):
        hint = did_you_mean(str(document.recipe.family), names) or f"one of {', '.join(names)}"
        document.refuse(["family"], f"no family is called {document.recipe.family!r}", hint)


def warnings_of(recipe: Recipe) -> list[str]:
    """Return one line for everything that is right and should be known nevertheless."""
    warnings = [] if recipe.is_pinned else [NOT_PINNED.format(recipe.source.revision)]
    if RUNGS.index(HIGHEST.get(recipe.verify.level, recipe.verify.level)) < RUNGS.index("weights"):
        warnings.append(f"verify.level is {recipe.verify.level!r}: codes and scales are not compared")
    return warnings


def options_of(recipe: Recipe, output: Output) -> ConvertOptions:
    """Return the options of `convert` for an output."""
    return ConvertOptions(
        outtype=output.outtype,
        embedding_type=output.embedding_type,
        target=output.engine,
        name=recipe.name if recipe.source.repository is None else None,  # a folder's says nothing of the model
        quantize=recipe.source.quantize,
        allow_scale_rounding=output.allow_scale_rounding,
        allow_wrong_engine=output.allow_wrong_engine,
        split_max_bytes=None if output.split_max_size is None else parse_size(output.split_max_size),
        split_max_tensors=output.split_max_tensors,
    )


def _check_source(document: Document) -> None:
    source = document.recipe.source
    if (source.repository is None) == (source.path is None):
        document.refuse(["source"], "expected either a repository or a path", "write `repository: ORG/NAME`")
    if source.repository is not None:
        if parse_reference(f"{source.repository}@{source.revision}") is None:
            document.refuse(["source", "repository"], "no repository on the Hub has this name and revision")
        if source.url is not None and parse_reference(source.url) not in (None, (source.repository, None)):
            document.refuse(["source", "url"], f"is not the page of {source.repository}")
    elif not _is_there(str(source.path)):
        document.refuse(["source", "path"], f"{source.path} does not exist")


def _check_outputs(document: Document) -> None:
    recipe = document.recipe
    for index, output in enumerate(recipe.outputs):
        layouts = engines.by_name(output.engine).layouts
        if layouts is not None and output.outtype not in ("auto", *layouts):
            hint = f"{output.engine} loads {', '.join(layouts)}"
            document.refuse(["outputs", index, "outtype"], f"{output.engine} does not load {output.outtype}", hint)
        try:
            options_of(recipe, output)
        except UsageError as error:
            document.refuse(["outputs", index], error.message, error.hint)
    names = Counter((output.outtype, output.suffix) for output in recipe.outputs)
    for index, output in enumerate(recipe.outputs):
        if names[output.outtype, output.suffix] > 1:
            document.refuse(["outputs", index], "two outputs have the same name", "give one of them a suffix")


def _check_verification(document: Document) -> None:
    recipe = document.recipe
    climbed = RUNGS[: RUNGS.index(HIGHEST.get(recipe.verify.level, recipe.verify.level)) + 1]
    for index, threshold in enumerate(recipe.verify.thresholds):
        place: list[str | int] = ["verify", "thresholds", index]
        if threshold.rung not in climbed:
            document.refuse([*place, "rung"], f"the level {recipe.verify.level} stops before the rung {threshold.rung}")
        if threshold.least is None and threshold.most is None:
            document.refuse(place, "has no bound", "give `least` or `most`")
    for name, rung in (("golden", "generation"), ("text", "text")):
        asked = recipe.golden if name == "golden" else recipe.verify.text
        if asked and rung not in climbed:
            keys = ["golden"] if name == "golden" else ["verify", "text"]
            hint = f"choose a level from {rung} on: {', '.join(LEVELS[RUNGS.index(rung) :])}"
            message = f"{'.'.join(keys)} is for the rung {rung}, and the level {recipe.verify.level} stops before it"
            document.refuse(keys, message, hint)
    if recipe.verify.text is not None and not _is_there(recipe.verify.text):
        document.refuse(["verify", "text"], f"{recipe.verify.text} does not exist")


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # text that no file name can be
        return False

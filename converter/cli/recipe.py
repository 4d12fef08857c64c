"""tritpack recipe."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.fleet_options import fleet_options, take_fleet
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import ByteSize, json_option
from tritpack.converter.cli.progress import Progress
from tritpack.formats.errors import TritpackError, UsageError
from tritpack.formats.names import ExitCode

if TYPE_CHECKING:
    from tritpack.converter.release.recipe.recipe import Recipe
    from tritpack.converter.release.recipe.run import Release

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the recipe: source.revision=COMMIT, outputs.0.outtype=t158. Can be given several times.",
)


@click.group("recipe")
def command() -> None:
    """Make a whole release from a recipe: convert, verify, attest, describe, bundle.

    A RECIPE is a YAML file, or the name of one that comes with tritpack (`tritpack recipe list`). recipes/README.md
    explains every key.
    """


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the recipes that come with tritpack."""
    from tritpack.converter.release.recipe.reader import read_recipe
    from tritpack.converter.release.recipe.shelf import shipped

    recipes = {name: read_recipe(path).recipe for name, path in shipped().items()}
    if as_json:
        print_json({"schema": "tritpack.recipe.list/1", "recipes": [_row(*item) for item in recipes.items()]})
        return
    width = max(map(len, recipes), default=0)
    for name, recipe in recipes.items():
        outputs = ", ".join(output.outtype for output in recipe.outputs)
        show(f"{name:<{width}}  {_source(recipe)}: {outputs}")


@command.command("show", short_help="Print a recipe as `run` reads it.")
@click.argument("recipe", type=PATH, metavar="RECIPE")
@set_option
@json_option
def show_command(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print RECIPE as `run` would read it, with what --set has changed."""
    from tritpack.converter.release.recipe.reader import yaml_text
    from tritpack.converter.release.recipe.shelf import load

    document = load(recipe, overrides=overrides)
    if as_json:
        print_json({"schema": "tritpack.recipe/1", **dataclasses.asdict(document.recipe)})
        return
    show(yaml_text(document.root, {}).rstrip("\n"), lines=True)


@command.command("check", short_help="Read recipes without a network, and say what is wrong.")
@click.argument("recipes", type=PATH, nargs=-1, metavar="[RECIPE]...")
@set_option
@json_option
@click.option("--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=lambda *a: _print_schema(*a),
              help="Print the JSON Schema of recipes.")  # fmt: skip
def check_command(recipes: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Read every RECIPE (all that come with tritpack, if none is given) without a network, and say what is wrong.

    A revision that is not a commit is a warning.
    """
    from tritpack.converter.release.recipe.checks import warnings_of
    from tritpack.converter.release.recipe.shelf import load, shipped

    rows, worst = [], ExitCode.GOOD
    for name in recipes or shipped():
        row: dict[str, Any] = {"recipe": name, "error": None, "hint": None, "warnings": []}
        try:
            row["warnings"] = warnings_of(load(name, overrides=overrides).recipe)
        except TritpackError as error:
            row["error"], row["hint"] = str(error), error.hint
            worst = worst or error.exit_code
        rows.append(row)
        if not as_json:
            _show_check(row)
    if as_json:
        print_json({"schema": "tritpack.recipe.check/1", "recipes": rows})
    else:
        _show_warnings(rows)
    sys.exit(worst)


def _show_check(row: dict[str, Any]) -> None:
    show(f"{row['recipe']}: {'wrong' if row['error'] else 'good'}")
    if row["error"]:
        show(f"error: {row['error']}", err=True)
    if row["hint"]:
        show(f"hint: {row['hint']}", err=True)


def _show_warnings(rows: list[dict[str, Any]]) -> None:
    """Print each warning once, with the recipes that it is about: it is true of most that come with tritpack."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for warning in row["warnings"]:
            names.setdefault(warning, []).append(row["recipe"])
    for warning, recipes in names.items():
        others = f" and {len(recipes) - 1} more" if len(recipes) > 1 else ""
        show(f"warning: {recipes[0]}{others}: {warning}", err=True)


def _print_schema(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from tritpack.converter.release.recipe.schema import schema

        print_json(schema())
        context.exit()


@command.command("run", short_help="Do everything that a recipe says.")
@click.argument("recipes", type=PATH, nargs=-1, required=True, metavar="RECIPE...")
@click.option(
    "-o",
    "--output",
    default="releases",
    show_default=True,
    type=PATH,
    metavar="DIR",
    help="Folder for the releases: each is DIR/NAME, and DIR/NAME.tar.zst.",
)
@set_option
@click.option("--force", is_flag=True, help="Replace a release that was made from something else.")
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Threads to work with; 0, the default, is all cores. The output is the same with any number.",
)
@click.option(
    "--max-memory",
    type=ByteSize(),
    default="1G",
    show_default=True,
    metavar="SIZE",
    help="Memory that a conversion may take besides the interpreter.",
)
@click.option(
    "--publish",
    metavar="ORG/NAME",
    help="Upload the release to this repository on the Hub if it is proved, as `tritpack publish --upload` does.",
)
@fleet_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings, errors and the summary.")
def run_command(recipes: tuple[str, ...], publish: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Do everything that RECIPE says: plan, convert in one pass, verify, attest, card, manifest, bundle.

    What an earlier run has made is kept if it has the hashes that were written down then, so a run that was killed goes
    on with the same command. An error of one recipe stops none of the others, and the exit code is that of the first
    error: 1 if an output is not proved.
    """
    from tritpack.converter.release.fleet import run_fleet
    from tritpack.converter.release.recipe.run import run_recipe

    if publish is not None and len(recipes) > 1:
        raise UsageError("--publish takes the release of one recipe", hint="run `tritpack publish` for each release")
    fleet = take_fleet(options)
    if fleet.executor == "local":  # what is shown meanwhile is of this process
        options |= {"progress": Progress("working", quiet=quiet), "say": _say_nothing if quiet else _say}
    else:
        options |= {"threads": options["threads"] or fleet.threads_for(len(recipes))}
    named = [str(Path(recipe).absolute()) if Path(recipe).is_file() else recipe for recipe in recipes]
    run = functools.partial(run_recipe, output=Path(options.pop("output")).absolute(), **options)
    rows, worst, bug = [], ExitCode.GOOD, None
    for outcome in run_fleet(named, run, fleet):
        error, release = outcome.error, outcome.result
        if error is not None:
            if len(recipes) == 1:
                raise error
            if not isinstance(error, TritpackError):
                bug = bug or error
                continue
            rows.append({"recipe": outcome.recipe, "verdict": "error", "error": str(error), "hint": error.hint,
                         "exit_code": int(error.exit_code)})  # fmt: skip
            show(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True, lines=True)
            worst = worst or error.exit_code
            continue
        rows.append(_result(outcome.recipe, release))
        if not as_json:
            _show_release(release)
        for warning in release.warnings:
            show(f"warning: {release.name}: {warning}", err=True)
        if release.verdict != "pass":
            worst = worst or ExitCode.CHECK_FAILED
        elif publish is not None:
            rows[-1]["published"] = _published(release, publish, quiet=quiet, as_json=as_json)
    if as_json:
        print_json({"schema": "tritpack.recipe.run/1", "releases": rows})
    if bug is not None:
        raise bug
    sys.exit(worst)


def _published(release: Release, repository: str, *, quiet: bool, as_json: bool) -> str | None:
    """Upload a release, and return its address."""
    from tritpack.converter.release.publish import publish

    done = publish(release.folder, repository, upload=True, progress=Progress("uploading", quiet=quiet))
    if not as_json:
        show(f"published: {done.url}")
    return done.url


def _say(line: str) -> None:
    show(line, err=True)


def _say_nothing(line: str) -> None:
    pass


def _show_release(release: Release) -> None:
    """Print what was made, one line per output."""
    for output in release.outputs:
        parts = f" in {len(output.files)} files" if len(output.files) > 1 else ""
        verdict = click.style(output.verdict.upper(), fg="green" if output.verdict == "pass" else "red", bold=True)
        show_styled = f"{Path(output.files[0])}: {size(output.nbytes)}{parts}, {output.outtype}, for {output.engine}"
        click.echo(f"{verdict}  {show_styled}")
        for failure in output.failures:
            show(f"      {failure}")
    done = sum(not step.skipped for step in release.steps)
    show(f"source: {release.source}, {release.sha256}")
    show(f"release: {release.folder}" + ("" if release.verdict == "pass" else ", without card, manifest and bundle"))
    if release.bundle is not None:
        show(f"bundle: {release.bundle}, {size(release.bundle.stat().st_size)}")
    show(f"steps: {done} done, {len(release.steps) - done} kept from an earlier run")


def _result(name: str, release: Release) -> dict[str, Any]:
    record = dataclasses.asdict(release)
    return {"recipe": name, **record, "folder": str(release.folder), "verdict": release.verdict,
            "bundle": None if release.bundle is None else str(release.bundle)}  # fmt: skip


def _row(name: str, recipe: Recipe) -> dict[str, Any]:
    outputs = [output.outtype for output in recipe.outputs]
    return {"recipe": name, "source": _source(recipe), "pinned": recipe.is_pinned, "outputs": outputs}


def _source(recipe: Recipe) -> str:
    source = recipe.source
    return f"{source.repository}@{source.revision}" if source.repository else str(source.path)

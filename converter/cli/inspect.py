"""tritpack inspect."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, unpacked
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.formats import names
from tritpack.formats.errors import TritpackError, Unsupported, UsageError
from tritpack.formats.names import ExitCode

WIDEST = 110
"""Columns of a paragraph on a terminal: longer lines are hard to read."""


@click.command("inspect")
@click.argument("files", type=PATH, nargs=-1, metavar="[FILE]...")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option(
    "--stats",
    is_flag=True,
    help="Decode every ternary tensor (scale, shares, entropy, hash of the codes), and compare all recorded hashes.",
)
@click.option("--metadata", is_flag=True, help="List the metadata.")
@click.option(
    "--engines", is_flag=True, help="Say why each engine runs a file right or wrong, and what makes one for it."
)
@click.option(
    "-c",
    "--context",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens for which memory is counted; default: the longest of the model, as far as 4 GiB hold them.",
)
@click.option("--bandwidth", type=click.FloatRange(min=0, min_open=True), metavar="GB/s",
              help="Of the memory; without it, this machine's is measured once and remembered.")  # fmt: skip
@click.option("--fail-on", multiple=True, metavar="damage|unknown-origin|engine:NAME",
              help="End with exit code 1 if that is so; repeatable. damage decodes all, as --stats does. NAME is an "
              "engine that `tritpack engines` lists, with all its versions, or a name that --for takes.")  # fmt: skip
@click.option("--shape", type=click.Choice(names.PUBLISHED_SHAPES), help="Instead of FILE: a model that is not here.")
@click.option(
    "--outtype", type=click.Choice(("auto", *names.LAYOUTS)), help="With --shape: the layout (default: auto)."
)
@click.option("--embedding-type", type=click.Choice(names.FLOAT_TYPES), help="With --shape (default: f16).")
@click.option("--markdown", is_flag=True, help="Print Markdown, for a model card or an issue.")
@click.option("--html", type=PATH, metavar="OUT", help="Write one page that loads nothing, with --stats and charts.")
@click.option("--force", is_flag=True, help="Overwrite an existing page.")
@json_option
def command(
    files: Sequence[str],
    shape: str | None,
    outtype: str | None,
    embedding_type: str | None,
    fail_on: Sequence[str],
    as_json: bool,
    markdown: bool,
    **options: Any,
) -> None:
    """Say what a FILE is, whether it is intact, which programs run it, what it needs, and where it comes from.

    FILE is a GGUF, one in a bundle, a checkpoint folder, a safetensors file, ORG/NAME[@REVISION] on the Hub, a file in
    it (ORG/NAME/FILE.gguf), or an http(s) address. Of what is not here, headers alone are read; --stats downloads it
    from the Hub. Several files, or a folder of several GGUFs, give a table with one line per file; --json of a folder
    of GGUFs is always a list.

    The sizes of tensors decide their layouts, because forks use the same type id for different layouts. Damage (tensors
    that are missing and, with --stats, codes or padding that no packer writes (stray bytes after an
    i2_s scale, which bitnet.cpp leaves to chance, are none), and hashes of tensors that differ from
    those that the file records) ends with exit code 1, a part of a split file without the others with 3.
    """
    _check_page(files, shape, options)
    if shape is not None:
        _inspect_shape(shape, files, outtype, embedding_type, as_json, markdown, options)
        return
    if outtype or embedding_type:
        raise UsageError("--outtype and --embedding-type go with --shape", hint="a FILE has its own types")
    if not files:
        raise UsageError("FILE is missing", hint="'tritpack inspect --help' shows what it takes; --shape needs no FILE")
    from tritpack.converter.inspect.fail_on import DAMAGE, check_conditions
    from tritpack.converter.inspect.table import SCHEMA, files_of

    check_conditions(fail_on)
    expanded = [files_of(file) for file in files]
    paths = [path for file, inside in zip(files, expanded) for path in inside or [file]]
    is_table = len(paths) > 1 or (as_json and expanded[0] is not None)  # a script gets a list, however many there are
    if is_table:
        _refuse_for_table(as_json, options)
    options["decode"] = options["stats"] or options["html"] or DAMAGE in fail_on
    try:
        results = [_inspect(path, fail_on, options, catch=is_table) for path in paths]
    except Unsupported as error:
        if options["html"]:
            raise
        from tritpack.converter.inspect.inputs import files_named_by

        is_table = True
        results = [_inspect(path, fail_on, options, catch=True) for path in files_named_by(error, paths[0])]
    if as_json:
        print_json({"schema": SCHEMA, "files": [_as_json(result) for result in results]} if is_table else results[0])
    else:
        _print(_lines(results, is_table, markdown, options))
    for result in results:
        for failure in result.get("failed", ()):
            show(f"failed: {result['file']}: {failure}", err=True)
    sys.exit(max(map(_exit_code, results)))


def _inspect(file: str, fail_on: Sequence[str], options: dict[str, Any], *, catch: bool) -> dict[str, Any]:
    """The result of one file, with the conditions that failed. catch: let an error be the result of its file."""
    from tritpack.converter.inspect.fail_on import failures
    from tritpack.converter.inspect.inspect import inspect_as
    from tritpack.converter.inspect.needs import NeedsOptions

    try:
        with unpacked(file) as path:
            needs = NeedsOptions(options["context"], options["bandwidth"])
            result = inspect_as(file, path, stats=bool(options["decode"]), options=needs)
            if options["html"]:
                _write_page(result, path, options)
        if isinstance(path, Path):  # nobody can open the files of a copy that is gone
            result["files"] = [Path(copy).name for copy in result["files"]]
        return {**result, "failed": failures(result, fail_on)} if fail_on else result
    except UsageError:
        raise
    except TritpackError as error:
        if not catch:
            raise
        return {"file": file, "error": error}


def _refuse_for_table(as_json: bool, options: dict[str, Any]) -> None:
    """Refuse what a table does not show. JSON has all of it."""
    for name in ("html", *(() if as_json else ("tensors", "metadata", "engines"))):
        if options[name]:
            raise UsageError(
                f"--{name} is for one FILE", hint="without it, several files are a table; name one of them"
            )


def _check_page(files: Sequence[str], shape: str | None, options: dict[str, Any]) -> None:
    """Refuse a page before the work, where it cannot or must not be written."""
    if options["html"] is None:
        return
    if shape is not None:
        raise UsageError("--html is for a FILE, not for --shape", hint="--shape has --markdown and --json")
    from tritpack.converter.report.pages import refuse_page

    refuse_page(options["html"], force=options["force"], inputs=files)


def _write_page(result: dict[str, Any], path: str | Path, options: dict[str, Any]) -> None:
    from tritpack.converter.inspect.page import write_page

    write_page(result, path, options["html"], force=options["force"])


def _as_json(result: dict[str, Any]) -> dict[str, Any]:
    error = result.get("error")
    return {**result, "error": str(error)} if error else result


def _exit_code(result: dict[str, Any]) -> int:
    if error := result.get("error"):
        return int(error.exit_code)
    part = result.get("part")
    if part and (part["missing"] or part["problem"]):
        return ExitCode.UNREADABLE
    return ExitCode.CHECK_FAILED if result["damage"] or result.get("failed") else ExitCode.GOOD


def _lines(results: list[dict[str, Any]], is_table: bool, markdown: bool, options: dict[str, Any]) -> Iterable[str]:
    if markdown:
        from tritpack.converter.inspect.markdown import markdown_lines, table_markdown

        if is_table:
            return table_markdown(results)
        tensors = options["tensors"] or options["stats"]
        return markdown_lines(results[0], tensors=tensors, metadata=options["metadata"])
    if is_table:
        from tritpack.converter.inspect.table import table_lines

        return table_lines(results)
    from tritpack.converter.inspect.text import result_lines

    details = {name: options[name] for name in ("tensors", "stats", "metadata", "engines")}
    return result_lines(results[0], _width(), **details)


def _inspect_shape(
    shape: str, files: Sequence[str], outtype: str | None, embedding_type: str | None, as_json: bool, markdown: bool,
    options: dict[str, Any],
) -> None:  # fmt: skip
    from tritpack.converter.inspect.markdown import shape_markdown
    from tritpack.converter.inspect.shapes import inspect_shape
    from tritpack.converter.inspect.text import shape_lines

    if files:
        raise UsageError(
            "give either a FILE or --shape", hint="--shape describes a model that is not here, without FILE"
        )
    for name in ("tensors", "stats", "metadata", "engines"):
        if options[name]:
            raise UsageError(f"--{name} is for a FILE, not for --shape")
    result = inspect_shape(shape, outtype=outtype or "auto", embedding_type=embedding_type or "f16",
                           context=options["context"], bandwidth=options["bandwidth"])  # fmt: skip
    if as_json:
        print_json(result)
    else:
        _print(shape_markdown(result) if markdown else shape_lines(result, _width()))


def _width() -> int:
    """Return the width of a paragraph in columns; 0 means no limit, since scripts read whole lines."""
    return min(shutil.get_terminal_size().columns, WIDEST) if sys.stdout.isatty() else 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        show(line)

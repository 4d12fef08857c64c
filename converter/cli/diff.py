"""tritpack diff."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, quantize_option, unpacked
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Progress
from tritpack.formats.names import ExitCode
from tritpack.formats.printable import printable

WORDS = {
    "equal": "equal",
    "rounded": "rounded",
    "differs": "differ",
    "only_in_a": "only in A",
    "only_in_b": "only in B",
}
FEW = 6
"""Keys that are named; --metadata lists all."""


@click.command("diff")
@click.argument("a", type=PATH, metavar="A")
@click.argument("b", type=PATH, metavar="B")
@click.option(
    "--ignore",
    multiple=True,
    type=click.Choice(("tokenizer", "rounding")),
    help="Let the tokenizer (and chat template), or rounding of floats and scales to a shorter type, differ and not "
    "count; repeatable. Two tensors of one type are never taken as rounded.",
)
@click.option("--strict", is_flag=True, help="Let what only describes the model (name, licence, ...) count too.")
@quantize_option
@click.option("--tensors", is_flag=True, help="List every tensor that differs.")
@click.option("--metadata", is_flag=True, help="List every key that differs, with its values.")
@click.option("--html", type=PATH, metavar="OUT", help="Write what is found as one page that loads nothing.")
@click.option("--force", is_flag=True, help="Overwrite an existing page.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(
    a: str,
    b: str,
    ignore: tuple[str, ...],
    strict: bool,
    quantize: str | None,
    tensors: bool,
    metadata: bool,
    html: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare two models across layouts and containers: A and B are GGUF files, split sets, bundles, checkpoint folders
    or repositories on the Hub.

    Hyperparameters, tokenizer, chat template and the values of all tensors, to the last bit, count: they decide what
    the model answers. Layouts, containers, hashes and versions do not count.

    The exit code is 0 for the same model and 1 for different ones, 3 if a side cannot be read, 4 if it is not
    supported.

    \b
    Examples: tritpack diff model-i2_s.gguf model-t158.gguf
              tritpack diff ORG/NAME model.gguf --ignore rounding
    """
    from tritpack.converter.diff.diff import diff
    from tritpack.converter.diff.page import write_page
    from tritpack.converter.report.pages import refuse_page
    from tritpack.converter.sources.open import local_path

    if html is not None:
        refuse_page(html, force=force, inputs=[a, b])
    with contextlib.ExitStack() as stack:
        paths = [local_path(stack.enter_context(unpacked(path, quiet=quiet)), progress=not quiet) for path in (a, b)]
        progress = Progress("comparing", quiet=quiet)
        result = diff(*paths, ignore=ignore, strict=strict, quantize=quantize, progress=progress)
    result["a"]["path"], result["b"]["path"] = a, b
    if html is not None:
        write_page(result, html, force=force)
    if as_json:
        print_json(result)
    else:
        _show(result, tensors=tensors, metadata=metadata)
    if result["verdict"] == "different":
        sys.exit(ExitCode.CHECK_FAILED)


def _show(result: dict[str, Any], *, tensors: bool, metadata: bool) -> None:
    for side in "ab":
        about = result[side]
        layouts = ", ".join(f"{count} x {layout}" for layout, count in about["layouts"].items())
        show(f"{side.upper()}  {about['path']}: {about['kind']}, {size(about['nbytes'])}, {layouts}")
    verdict = result["verdict"]
    colour = {"same": "green", "different": "red"}[verdict]
    click.echo(click.style(verdict.upper(), fg=colour, bold=True) + f": {printable(result['conclusion'])}")
    for kind, name in (("ternary", "ternary tensors"), ("floats", "float tensors")):
        counts = ", ".join(f"{count} {WORDS[key]}" for key, count in result["summary"][kind].items() if count)
        show(f"{name}: {counts or 'none'}")
    show(f"tokenizer: {_tokenizer(result)}")
    _show_metadata(result["metadata"], every=metadata)
    for note in result["notes"]:
        show(f"note: {note}")
    for difference in result["differences"]:
        if difference["part"] == "description":
            continue
        counts = "" if difference["counts"] else " (not counted)"
        show(f"{difference['part']}{counts}: {difference['sentence']}")
    for row in result["tensors"] if tensors else ():
        if row["verdict"] != "equal":
            show(f"  {row['sentence']}")


def _tokenizer(result: dict[str, Any]) -> str:
    tokenizer = result["tokenizer"]
    if tokenizer["compared"] == "keys":
        return "all keys are equal"
    if tokenizer["compared"] == "nothing":
        return "not compared" if any(row["part"] == "tokenizer" for row in result["differences"]) else "neither has one"
    same = tokenizer["texts"] - tokenizer["differing"]
    return f"{same} of {tokenizer['texts']} texts have the same ids"


def _show_metadata(groups: dict[str, list[dict[str, Any]]], *, every: bool) -> None:
    titles = {
        "model": "of the model, compared by what they mean",
        "tokenizer": "of the tokenizer",
        "description": "of the description",
        "by_nature": "of how the file was made (layouts, hashes, versions)",
    }
    for group, title in titles.items():
        rows = groups[group]
        if not rows:
            continue
        names = ", ".join(row["key"] for row in rows[:FEW]) + (", ..." if len(rows) > FEW else "")
        count = "1 key" if len(rows) == 1 else f"{len(rows)} keys"
        show(f"metadata: {count} {title}" + ("" if every else f": {names}"))
        for row in rows if every else ():
            values = "; ".join(f"{side.upper()}: {row[side]}" for side in "ab" if side in row)
            show(f"  {row['key']} {row['change']}  {values}")

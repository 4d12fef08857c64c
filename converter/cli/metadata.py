"""tritpack metadata."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, unpacked
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.formats import names
from tritpack.formats.errors import UsageError
from tritpack.formats.names import ExitCode

SHOWN = 6
"""Elements of an array that are shown."""
LONGEST = 100
"""Characters of a value that are shown."""


def writing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what changes a file."""
    options = (
        click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing."),
        click.option(
            "-o", "--output", type=PATH, metavar="OUT", help="Write the result to OUT and leave FILE as it is."
        ),
        click.option("--force", is_flag=True, help="Overwrite OUT if it exists."),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group("metadata")
def command() -> None:
    """Read and change the metadata of a GGUF file, or repair its known faults.

    A change that fits into one block of the header is made in place. Any other change writes a new file, which takes
    the name of the old one once it is complete. A run that is killed leaves the old file or the changed one, never a
    part. Of a split file, give the first part. Tensors and their recorded hashes keep every bit.
    """


@command.command("get", short_help="Print metadata keys with their types.")
@click.argument("file", type=PATH, metavar="FILE")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@json_option
def get_command(file: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Print the type and the value of each KEY of FILE, or of all. Long values are cut, but not with --json.

    A single KEY that is text or a number is printed as it is, so that a script can use it.
    """
    from tritpack.converter.metadata.metadata import get_metadata

    with unpacked(file) as path:
        result = get_metadata(path, keys)
    result["file"] = file
    if as_json:
        print_json(result)
        return
    if len(keys) == 1 and not isinstance(value := result["metadata"][keys[0]]["value"], list):
        show(_scalar(value), lines=True)
        return
    for key, row in result["metadata"].items():
        show(f"{key} ({row['type']}) = {_short(row['value'])}")


@command.command("set", short_help="Give a metadata key a value.")
@click.argument("file", type=PATH, metavar="FILE")
@click.argument("key", metavar="KEY")
@click.argument("value", metavar="VALUE")
@click.option("--type", "type", metavar="TYPE", help="Type of the value: str, bool, u8 to u64, i8 to i64, f32, f64, or "
              "an array of one of them, like arr[i32]. By default the type that KEY has; of a new key, the one that "
              "readers expect or, if none knows KEY, what VALUE looks like.")  # fmt: skip
@writing_options
def set_command(**options: Any) -> None:
    """Set KEY of FILE to VALUE. An array is written as JSON; @PATH takes the text of a file, and @@
    is an @. A warning says what can no longer be run, or would be computed otherwise, after the change.

    \b
    Examples: tritpack metadata set model.gguf general.name "My model"
              tritpack metadata set model.gguf tokenizer.chat_template @template.jinja
              tritpack metadata set model.gguf my.numbers "[1, 2, 3]" --type arr[u16]
    """
    from tritpack.converter.metadata.metadata import set_metadata

    value = options.pop("value")
    if value.startswith("@@"):
        value = value[1:]
    elif value.startswith("@"):
        from tritpack.formats.inputs import read_text

        value = read_text(Path(value[1:]))
    _finish(options, lambda file, key, **rest: set_metadata(file, key, value, **rest))


@command.command("rm", short_help="Take metadata keys out.")
@click.argument("file", type=PATH, metavar="FILE")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@writing_options
def rm_command(**options: Any) -> None:
    """Take each KEY out of FILE. In quotes, * matches any characters. A warning says if the model no longer runs
    without these keys, or computes something else.

    \b
    Example: tritpack metadata rm model.gguf "tritpack.source.*" general.author
    """
    from tritpack.converter.metadata.metadata import remove_metadata

    _finish(options, remove_metadata)


@command.command("fix", short_help="Repair the known faults of a file.")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--source", metavar="SOURCE", help="The checkpoint that the file was made of (a folder, or ORG/NAME on "
              "the Hub, of which only what is needed is fetched), or a right GGUF of the same model; it must have the "
              "codes of the file.")  # fmt: skip
@click.option("--activation", type=click.Choice(names.ACTIVATIONS), help="The activation function of the model.")
@click.option("--read-as", type=click.Choice(names.READ_AS), help="How the bytes of i2_s tensors are really ordered: "
              "i2_s_arm is bitnet.cpp's order for ARM.")  # fmt: skip
@writing_options
def fix_command(**options: Any) -> None:
    """Repair the known faults of FILE, and say of each what was found and what was done, or why nobody can know.

    Keys: an architecture under which the file has no keys, a missing pre-tokenizer, activation or end token, a file
    type that is not that of the tensors, the stub of a chat template, names and type ids that their engines have
    given up, the keys of a rotated basis, and a model that cannot be run. Tensors: i2_s in the order that
    bitnet.cpp writes on ARM, and stray bytes after a scale, which bitnet.cpp leaves to chance: no reader uses them.
    Exits with 1 if a fault stays.
    """
    from tritpack.converter.metadata.fix import fix_metadata

    result = _finish(options, fix_metadata, shown=_findings)
    if any(finding["status"] == "left" for finding in result["findings"]):
        sys.exit(ExitCode.CHECK_FAILED)


def _finish(
    options: dict[str, Any], change: Callable[..., dict[str, Any]], shown: Callable[..., None] | None = None
) -> dict[str, Any]:
    """Run a change and print its result."""
    as_json, file = options.pop("as_json"), _local(options.pop("file"))
    result = change(file, **options)
    for warning in result["warnings"]:
        show(f"warning: {warning}", err=True)
    if as_json:
        print_json(result)
        return result
    (shown or _changes)(result)
    target, would = result["output"] or result["file"], "would be " if result["dry_run"] else ""
    if result["written"] == "unchanged":
        show(f"{target}: nothing to change")
    elif result["output"]:
        show(f"{target}: {would or 'was '}written")
    else:
        how = "changed in place" if result["written"] == "in place" else "written anew"
        show(f"{target}: {would or 'was '}{how}")
    return result


def _local(file: str) -> str:
    """Return a FILE that can be changed, a path. Raises UsageError for a bundle, and for what is not here."""
    if file.partition("#")[0].endswith(".tar.zst"):
        hint = "tritpack bundle extract unpacks it; its manifest has the hash of the file as it is"
        raise UsageError("is a bundle, whose files are not changed", path=file, hint=hint)
    if not Path(file).exists():
        from tritpack.converter.sources.hub import parse_file, parse_reference
        from tritpack.converter.sources.url_file import is_address

        if parse_file(file) or parse_reference(file) or is_address(file):
            hint = "fetch it with `hf download` or a browser first, and give its path"
            raise UsageError("is not a file here, and only those can be changed", path=file, hint=hint)
    return file


def _changes(result: dict[str, Any]) -> None:
    for change in result["changes"]:
        before, after = (None if side is None else f"({side['type']}) {_short(side['value'])}"
                         for side in (change["before"], change["after"]))  # fmt: skip
        if after is None:
            show(f"{change['key']}: removed, was {before}")
        else:
            show(f"{change['key']}: {'new' if before is None else before} -> {after}")


def _findings(result: dict[str, Any]) -> None:
    words = {"fixed": "would fix" if result["dry_run"] else "fixed", "left": "left", "unproved": "unproved"}
    for finding in result["findings"]:
        show(f"{words[finding['status']]} {finding['fix']}: {finding['found']}; {finding['done']}")
        if finding["hint"]:
            show(f"  hint: {finding['hint']}")
    if not result["findings"]:
        show("no known fault was found")


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _short(value: Any) -> str:
    if isinstance(value, list):
        count = f" of {len(value)}" if len(value) > SHOWN else ""
        text = f"[{', '.join(map(_short, value[:SHOWN]))}{', ...' if count else ''}]"
        return (text if len(text) <= LONGEST else f"{text[: LONGEST - 4]}...]") + count
    text = repr(value) if isinstance(value, str) else _scalar(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."

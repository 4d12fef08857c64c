"""Several files as a table: one line per file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tritpack.converter.cli.human import count, size
from tritpack.converter.inspect.origin import FAMILY_KEY
from tritpack.formats.split_files import first_part_of

COLUMNS = ("file", "size", "parameters", "stored as", "bits", "intact", "right in", "from")
SCHEMA = "tritpack.inspect-files/1"


def files_of(argument: str) -> list[str] | None:
    """Return the GGUF files in a folder that is not a checkpoint, of a split file its first part alone, in the order of
    their names; None for everything else."""
    folder = Path(argument)
    if not folder.is_dir() or (folder / "config.json").exists():
        return None
    names = sorted(path.name for path in folder.glob("*.gguf"))
    later = {name for name in names if first_part_of(name) != name and first_part_of(name) in names}
    return [str(folder / name) for name in names if name not in later] or None


def cells(result: Mapping[str, Any]) -> list[str]:
    """Return the cells of a file's line. A file that cannot be read has its error under `error`."""
    if "error" in result:
        return [result["file"], "", "", "", "", f"not readable: {result['error']}", "", ""]
    bits, origin = result["ternary_bits_per_weight"], result["origin"]
    hashed = "yes" if result.get("integrity") else "no fault found"
    intact = hashed if result["decoded"] else "not checked (--stats)"
    right = [row["engine"] for row in result["engines"] if row["verdict"] == "right"]
    return [
        result["file"],
        size(result["nbytes"]),
        count(result["parameters"]),
        ", ".join(result["ternary_layouts"] or result["layouts"]),
        f"{bits:.2f}" if bits else "",
        "no" if result["damage"] else "one part" if result.get("part") else intact,
        "- (damaged)" if result["damage"] else ", ".join(right),
        origin["repository"] or origin["url"] or _unknown(result["metadata"].get(FAMILY_KEY)),
    ]


def _unknown(family: object) -> str:
    return f"unknown (family {family[:40]})" if isinstance(family, str) else "unknown"


def remarks(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one line per file that is damaged or cannot be read."""
    for result in results:
        if "error" in result:
            yield f"not readable: {result['error']}"
        elif result["damage"]:
            yield f"damaged: {result['file']}: {result['answers']['intact'].removeprefix('No: ')}"


def table_lines(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the table for a terminal."""
    rows = [list(COLUMNS), *(cells(result) for result in results if "error" not in result)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip()
    yield from remarks(results)

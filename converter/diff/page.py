"""`diff --html`: one page that loads nothing, with the verdict first and every tensor on one map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tritpack.converter.cli.human import size
from tritpack.converter.report import plots
from tritpack.converter.report.pages import refuse_page, template, write_file
from tritpack.converter.report.places import ordered, place
from tritpack.converter.version import VERSION

VERDICTS = {
    "equal": "equal",
    "rounded": "rounded",
    "differs": "differs",
    "only_in_a": "only in A",
    "only_in_b": "only in B",
}
GROUPS = {
    "model": "of the model, compared by what they mean",
    "tokenizer": "of the tokenizer",
    "description": "that describe the model",
    "by_nature": "of how the files were made: layouts, hashes, versions",
}


def write_page(result: Mapping[str, Any], output: str | Path, *, force: bool = False) -> None:
    """Write the page of what `diff` returned. Raises UsageError and WriteFailed."""
    refuse_page(output, force=force, inputs=[result[side]["path"] for side in "ab"])
    write_file(output, page(result), force=force)


def page(result: Mapping[str, Any]) -> str:
    """Return the HTML."""
    outside = [row for row in result["tensors"] if place(row["name"])[0] is None]
    text: str = template("diff.html.j2").render(
        version=VERSION,
        result=result,
        names={side: Path(result[side]["path"]).name or str(result[side]["path"]) for side in "ab"},
        verdicts=VERDICTS,
        map=Markup(_map(result)),
        shares=Markup(_shares(result)),
        not_compared=_not_compared(result),
        outside=outside,
        groups={title: result["metadata"].get(group, []) for group, title in GROUPS.items()},
        rows=[row for row in result["tensors"] if row["verdict"] != "equal"],
        size=size,
    )
    return text


def _map(result: Mapping[str, Any]) -> str:
    """Return the map of what became of each tensor of the layers."""
    by_part: dict[str, dict[int, tuple[str, str]]] = {}
    for row in result["tensors"]:
        layer, part = place(row["name"])
        if layer is not None:
            words = row["sentence"] or VERDICTS.get(row["verdict"], row["verdict"])
            by_part.setdefault(part, {})[layer] = (row["verdict"], words)
    rows = {part: by_part[part] for part in ordered(by_part)}
    return plots.verdict_map(rows, title="Every tensor of the layers", x_label="layer")


def _shares(result: Mapping[str, Any]) -> str:
    """Return the heat map of the shares of codes that differ; empty where none does."""
    by_part: dict[str, dict[int, float]] = {}
    for row in result["tensors"]:
        layer, part = place(row["name"])
        if layer is not None and "codes" in row:
            by_part.setdefault(part, {})[layer] = row["codes"]["share"]
    if not any(share for row in by_part.values() for share in row.values()):
        return ""
    rows = {part: by_part[part] for part in ordered(by_part)}
    return plots.heat_map(rows, title="Share of codes that differ", x_label="layer", span=(0.0, 1.0))


def _not_compared(result: Mapping[str, Any]) -> list[str]:
    """Return the parts of layers that the heat map leaves out: ternary tensors whose codes cannot be compared."""
    rows = [row for row in result["tensors"] if row.get("ternary") and place(row["name"])[0] is not None]
    drawn = {place(row["name"])[1] for row in rows if "codes" in row}
    return ordered({place(row["name"])[1] for row in rows} - drawn)

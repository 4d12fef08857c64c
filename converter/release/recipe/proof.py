"""The proof of one output: verify with the recipe's level and prompts, its report, and the recipe's thresholds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tritpack.converter.release.recipe.recipe import Recipe, Threshold
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.rung import Report
from tritpack.formats.split_files import name_of_set


def report_folder(first: str) -> str:
    """Return the name of the folder for the report of an output. first: the name of its file, or of its first part."""
    return f"{name_of_set(first)}.report"


def prove(recipe: Recipe, folder: Path, first: str, source: Path, shown: str) -> Report:
    """Compare an output with its source, and write its report.

    first: the name of its file in the folder. source: where the source is here, and shown: how the report names it.
    """
    from tritpack.converter.report.render import write_report

    pinned = [{"prompt": golden.prompt, "greedy": list(golden.greedy)} for golden in recipe.golden if golden.greedy]
    prompts = [golden.prompt for golden in recipe.golden if not golden.greedy]
    with tempfile.TemporaryDirectory(prefix="tritpack-") as aside:
        golden = Path(aside) / "golden.json"
        golden.write_text(json.dumps(pinned), "utf-8")
        report = verify(
            folder / first,
            source,
            level=recipe.verify.level,
            quantize=recipe.source.quantize,
            oracle=recipe.verify.oracle,
            text=recipe.verify.text,
            golden=golden if pinned else None,
            prompt=prompts,
            strict=recipe.verify.strict,
        )
    report.file, report.source = first, shown
    write_report(folder / report_folder(first), report.without_times(), force=True)
    return report


def failures_of(report: Report, recipe: Recipe) -> list[str]:
    """Return one line for everything that is wrong: the first finding, and bounds of the recipe that do not hold."""
    found = [] if report.verdict == "pass" else [report.first_finding or report.conclusion]
    return [*found, *(line for bound in recipe.verify.thresholds if (line := _exceeded(report, bound)))]


def _exceeded(report: Report, bound: Threshold) -> str | None:
    figures = {rung.name: rung.figures for rung in report.rungs}
    value = figures.get(bound.rung, {}).get(bound.figure)
    name = f"{bound.rung}: {bound.figure}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{name} was not measured, and the recipe has a bound on it"
    if bound.least is not None and not value >= bound.least:
        return f"{name} is {value:g}, the recipe wants at least {bound.least:g}"
    if bound.most is not None and not value <= bound.most:
        return f"{name} is {value:g}, the recipe wants at most {bound.most:g}"
    return None

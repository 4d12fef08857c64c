"""Writes a verify report as files: report.json, report.md, junit.xml, and report.html with charts."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tritpack.converter.report import plots
from tritpack.converter.report.pages import template
from tritpack.converter.verify.alone import ALONE
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Report, Rung
from tritpack.converter.verify.rungs import RUNGS
from tritpack.formats.errors import UsageError, WriteFailed
from tritpack.formats.files import atomic_output, refuse_existing, refuse_impossible
from tritpack.formats.json_text import json_text
from tritpack.formats.model_spec import LINEARS
from tritpack.formats.printable import printable

FILES = ("report.json", "report.md", "junit.xml", "report.html")
SCHEMA_FILE = "verify.schema.json"
LAYER_POINTS = ("attn_q_rope", "attn_out", "attn_output", "ffn_mul", "layer_out")
"""The steps through a layer that the chart shows; report.json has all of them."""


def schema() -> dict[str, Any]:
    """The JSON Schema of `verify --json` and report.json, with the rungs and kinds of findings that there are."""
    text = (resources.files(__package__) / SCHEMA_FILE).read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    definitions = document["$defs"]
    definitions["rung"]["properties"]["name"]["enum"] = [*dict.fromkeys((*RUNGS, "reproduction", *ALONE))]
    definitions["diagnosis"]["properties"]["kind"]["enum"] = [kind.value for kind in Kind]
    return document


def write_report(folder: str | Path, report: Report, *, force: bool = False) -> list[Path]:
    """Write all FILES, each completely or not at all. Raises UsageError if one exists and `force` is not given,
    WriteFailed."""
    target = Path(folder)
    prepare_folder(target, force=force)
    texts = (json_text(report.as_json()) + "\n", as_markdown(report), as_junit(report), as_html(report))
    for name, text in zip(FILES, texts):
        data = text.encode("utf-8")
        with atomic_output(target / name, len(data), force=True) as stream:
            stream.write(data)
    return [target / name for name in FILES]


def prepare_folder(folder: str | Path, *, force: bool = False, inputs: Iterable[str | Path | None] = ()) -> None:
    """Create the folder, before the work.

    inputs: files that no report may replace. Raises UsageError for one of them, for what is not a folder, and if it
    holds a report and `force` is not given; WriteFailed if nothing can be written there.
    """
    target = Path(folder)
    if str(folder) == "":
        raise UsageError("--report: the name of the folder is empty")
    refuse_impossible(target)
    if target.exists() and not target.is_dir():
        raise UsageError("--report: is a file, expected the name of a folder", path=target)
    for name in FILES if target.is_dir() else ():
        refuse_existing(target / name, force=force, inputs=inputs)
    try:
        target.mkdir(parents=True, exist_ok=True)
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise WriteFailed(f"it cannot be written to: {error.strerror or error}", path=target) from error


def as_markdown(report: Report) -> str:
    """The report as Markdown, for a pull request."""
    return _render("report.md.j2", report)


def as_html(report: Report) -> str:
    """The report as one HTML page that loads nothing."""
    return _render("report.html.j2", report, charts={rung.name: _charts(rung) for rung in report.rungs})


def as_junit(report: Report) -> str:
    """The report as JUnit XML, which CI systems read: one test case per rung."""
    counts = {kind: sum(rung.verdict == kind for rung in report.rungs) for kind in ("fail", "skipped")}
    total = _time(sum(rung.seconds or 0 for rung in report.rungs) if report.is_timed else None)
    attributes = {"tests": str(len(report.rungs)), "failures": str(counts["fail"]), "skipped": str(counts["skipped"])}
    timestamp = {"timestamp": str(report.provenance["created"])} if "created" in report.provenance else {}
    root = ElementTree.Element("testsuites", {**attributes, **total})
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {"name": _xml(f"tritpack verify {report.file}"), **attributes, "errors": "0", **total, **timestamp},
    )  # fmt: skip
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in report.provenance.items():
        if isinstance(value, str):
            ElementTree.SubElement(properties, "property", {"name": key, "value": _xml(value)})
    for rung in report.rungs:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": "tritpack.verify", "name": rung.name, **_time(rung.seconds)}
        )
        if rung.verdict == "fail":
            failure = ElementTree.SubElement(case, "failure", {"message": _xml(rung.sentences[0])})
            failure.text = _lines(rung.sentences)
        elif rung.verdict == "skipped":
            ElementTree.SubElement(case, "skipped", {"message": _xml(rung.skipped or "")})
        if rung.notes:
            ElementTree.SubElement(case, "system-out").text = _lines(rung.notes)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _time(seconds: float | None) -> dict[str, str]:
    """The attribute of JUnit for a time, if it is known."""
    return {} if seconds is None else {"time": f"{seconds:.3f}"}


def _xml(text: str) -> str:
    """The text without characters that XML cannot hold, or that would move the cursor of a terminal that shows it."""
    return printable(re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(map(_xml, texts))


def _render(name: str, report: Report, **more: Any) -> str:
    text: str = template(name).render(report=report, figures=shown_figures, **more)
    return text


def figure(value: Any) -> str:
    """A figure in the form that people read."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ") if abs(value) >= 100_000 else str(value)
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def shown_figures(rung: Rung) -> dict[str, str]:
    """Numbers and words; lists and tables are in report.json."""
    return shown(rung.figures)


def shown(figures: Mapping[str, Any]) -> dict[str, str]:
    """Figures of a rung, as it has them or as report.json does, in the form that people read."""
    return {
        key.replace("_", " "): figure(value) for key, value in figures.items() if isinstance(value, (int, float, str))
    }


# -- charts ------------------------------------------------------------------------------------------------------------


def _charts(rung: Rung) -> list[dict[str, str]]:
    """Title, SVG, caption and legend of each chart of a rung; no chart for what was not measured."""
    series = rung.series
    charts = []
    if series.get("error"):
        svg = plots.points(
            series["position"],
            series["error"],
            title="Error per position",
            x_label="position of the text",
            y_label="largest difference / largest value",
            limits={"exact: 1e-5": 1e-5, "limit on text: 2e-2": 2e-2},
        )
        caption = "Positions without a flipped int8 code agree to float32 noise, after a flip to a few 1e-3."
        charts.append(_chart("Error per position", svg, caption))
    if series.get("kl"):
        svg = plots.histogram(
            series["kl"], title="KL divergence per position", x_label="log10 of the KL divergence", y_label="positions"
        )
        charts.append(_chart("KL divergence per position", svg, "Of FILE's predictions from the oracle's, in nats."))
    if series.get("step_error"):
        charts.append(_layers(series))
    if series.get("tensor"):
        charts += [
            _by_layer(series, "scale", "Scale by layer", "mean scale"),
            _by_layer(series, "zero_share", "Zeros by layer", "share of zero weights"),
        ]
    return charts


def _layers(series: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    by_point: dict[str, tuple[list[float], list[float]]] = {point: ([], []) for point in LAYER_POINTS}
    for layer, point, error in zip(series["layer"], series["point"], series["step_error"]):
        if point in by_point and layer >= 0:
            by_point[point][0].append(layer)
            by_point[point][1].append(error)
    svg = plots.lines(
        by_point,
        title="Error by layer",
        x_label="layer",
        y_label="largest difference / largest value",
        log=True,
        limits={"a wrong step: 1e-4": 1e-4},
    )
    caption = "Runtime and oracle step by step on one prompt, near-ties followed; equal bits are drawn at 1e-9."
    return _chart("Error by layer", svg, caption, plots.legend(list(by_point)))


def _by_layer(series: Mapping[str, Sequence[Any]], key: str, title: str, label: str) -> dict[str, str]:
    by_linear: dict[str, tuple[list[float], list[float]]] = {linear: ([], []) for linear in LINEARS}
    for tensor, value in zip(series["tensor"], series[key]):
        parts = tensor.split(".")
        if parts[0] == "blk" and parts[-1] in by_linear:
            by_linear[parts[-1]][0].append(int(parts[1]))
            by_linear[parts[-1]][1].append(value)
    svg = plots.lines(by_linear, title=title, x_label="layer", y_label=label)
    return _chart(title, svg, "", plots.legend(list(by_linear)))


def _chart(title: str, svg: str, caption: str, legend: str = "") -> dict[str, str]:
    return {"title": title, "svg": svg, "caption": caption, "legend": legend}

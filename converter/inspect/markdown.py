"""The result of inspect as Markdown, for a model card or an issue. Text of files stays text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tritpack.converter.cli.human import size
from tritpack.converter.inspect.table import COLUMNS, cells, remarks
from tritpack.converter.inspect.text import LABELS, short
from tritpack.converter.report.markdown import code, text

Result = Mapping[str, Any]


def markdown_lines(result: Result, *, tensors: bool, metadata: bool) -> Iterator[str]:
    """Yield the five answers as a table, what is wrong, the engines, and the details that were asked for."""
    yield f"## {text(result['file'])}"
    yield ""
    yield from _table(("question", "answer"), ((label, result["answers"][key]) for key, label in LABELS.items()))
    if result["problems"]:
        yield ""
    for problem in result["problems"]:
        yield f"- {'damage' if problem in result['damage'] else 'problem'}: {text(problem)}"
    if result["engines"]:
        yield ""
        rows = ((row["engine"], row["verdict"], row["why"], row["evidence"]) for row in result["engines"])
        yield from _table(("engine", "verdict", "why", "evidence"), rows)
    if tensors:
        yield ""
        yield from _tensors(result["tensors"])
    if metadata:
        yield ""
        yield "| key | value |"
        yield "|---|---|"
        for key, value in result["metadata"].items():
            yield f"| {text(key)} | {code(short(value)).replace('|', chr(92) + '|')} |"


def table_markdown(results: Sequence[Result]) -> Iterator[str]:
    """Yield one line per file, and what is wrong with those that are damaged."""
    yield from _table(COLUMNS, map(cells, results))
    damaged = list(remarks([result for result in results if "error" not in result]))
    yield from ["", *(f"- {text(remark)}" for remark in damaged)] if damaged else []


def shape_markdown(result: Result) -> Iterator[str]:
    """Yield what a model of a shape needs, and the arithmetic behind it."""
    yield f"## {text(result['shape'])}"
    for answer in result["answers"].values():
        yield ""
        yield text(answer)
    yield ""
    for line in result["arithmetic"]:
        yield f"- {text(line)}"


def _tensors(rows: Sequence[Result]) -> Iterator[str]:
    columns = ("tensor", "layout", "shape", "size", "scale", "zeros", "entropy", "codes")
    yield from _table(columns, map(_tensor, rows))


def _tensor(row: Result) -> list[str]:
    start = [row["name"], row["layout"], " x ".join(map(str, row["shape"])), size(row["nbytes"])]
    if "codes_sha256" not in row:
        return [*start, "", "", "", ""]
    scale = f"{row['scale']:.6g}" if "scale" in row else row["granularity"]
    return [*start, scale, f"{row['zero']:.3f}", f"{row['entropy_bits']:.3f}", row["codes_sha256"][:12]]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(map(text, row))} |"

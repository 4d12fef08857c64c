"""What tests ask of a report: its findings in words, and their kinds."""

from __future__ import annotations

from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Report


def findings(report: Report) -> str:
    return "\n".join(f"{rung.name}: {finding}" for rung in report.rungs for finding in rung.sentences)


def kinds(report: Report) -> list[Kind]:
    return [kind for rung in report.rungs for kind in rung.kinds]

"""What a rung of the ladder says, and the report they make together."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Verdict = Literal["pass", "fail", "skipped"]
SCHEMA = "tritpack.verify/1"


@dataclasses.dataclass
class Rung:
    """One rung's verdict, figures and findings. A finding of `fail` is a sentence that names the tensor or the key;
    `notes` are worth telling and fail nothing (a rounding that was asked for, a flip)."""

    name: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    findings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    skipped: str | None = None

    @property
    def verdict(self) -> Verdict:
        return "skipped" if self.skipped else "fail" if self.findings else "pass"

    def as_json(self) -> dict[str, Any]:
        skipped = {"reason": self.skipped} if self.skipped else {}
        return {
            "name": self.name,
            "verdict": self.verdict,
            "figures": self.figures,
            "findings": self.findings,
            "notes": self.notes,
            **skipped,
        }


@dataclasses.dataclass
class Report:
    """All rungs that were climbed. It fails if any rung does."""

    file: str
    source: str
    rungs: list[Rung]

    @property
    def verdict(self) -> Verdict:
        return "fail" if any(rung.verdict == "fail" for rung in self.rungs) else "pass"

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "file": self.file,
            "source": self.source,
            "rungs": [rung.as_json() for rung in self.rungs],
        }

"""What a rung of the ladder says, and the report they make together."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Verdict = Literal["pass", "fail", "skipped"]
SCHEMA = "tritpack.verify/1"
PINNED = "pinned is"
"""In findings about golden tokens, which neither file nor source has to answer for."""


@dataclasses.dataclass
class Rung:
    """One rung's verdict, figures and findings. A finding of `fail` is a sentence that names the tensor or the key;
    `notes` are worth telling and fail nothing (a rounding that was asked for, a flip).

    compares: what is held against what, in words. series: what plots are made of, one list of numbers or names a key.
    """

    name: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    findings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    skipped: str | None = None
    compares: str = ""
    series: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        return "skipped" if self.skipped else "fail" if self.findings else "pass"

    def as_json(self) -> dict[str, Any]:
        skipped = {"reason": self.skipped} if self.skipped else {}
        return {
            "name": self.name,
            "verdict": self.verdict,
            "compares": self.compares,
            "figures": self.figures,
            "findings": self.findings,
            "notes": self.notes,
            **skipped,
            "series": self.series,
            "seconds": round(self.seconds, 3),
        }


@dataclasses.dataclass
class Report:
    """All rungs that were climbed. It fails if any rung does.

    provenance: hashes of both sides, oracle, kernels that ran, machine and versions: what each figure is a figure of.
    """

    file: str
    source: str
    rungs: list[Rung]
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Rung:
        """The rung of that name. Raises KeyError if it was not climbed."""
        return {rung.name: rung for rung in self.rungs}[name]

    @property
    def verdict(self) -> Verdict:
        return "fail" if any(rung.verdict == "fail" for rung in self.rungs) else "pass"

    @property
    def conclusion(self) -> str:
        """What is wrong, in one sentence: the file, a kernel, or what runs it."""
        verdicts = {rung.name: rung.verdict for rung in self.rungs}
        failed = [name for name, verdict in verdicts.items() if verdict == "fail"]
        if not failed:
            climbed = [name for name, verdict in verdicts.items() if verdict == "pass"]
            return f"the file is right, as far as was climbed: {', '.join(climbed)}"
        if any(name in failed for name in ("structure", "weights", "tokenizer")):
            return "the file is wrong" + ("; so is a kernel of this machine" if "kernels" in failed else "")
        if "kernels" in failed:
            return "a kernel is wrong on this machine, not the file"
        if failed == ["generation"] and all(PINNED in finding for finding in self["generation"].findings):
            return "the file is right by its source, and the pinned tokens are others"
        if "weights" not in verdicts or verdicts["weights"] != "pass":
            return "the file does not run as its source does"
        return "the file holds what the source holds, but what runs it computes something else"

    @property
    def first_finding(self) -> str | None:
        """What the lowest rung that failed found first: others may only follow from it."""
        return next((f"{rung.name}: {rung.findings[0]}" for rung in self.rungs if rung.findings), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "conclusion": self.conclusion,
            "file": self.file,
            "source": self.source,
            "provenance": self.provenance,
            "rungs": [rung.as_json() for rung in self.rungs],
        }

"""What came of comparing an engine with our runtime, for people and for JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from tritpack.converter.verify.engine.answers import AGREEMENT, HABIT, WIDE_MARGIN, Comparison
from tritpack.converter.verify.engine.program import Program

SCHEMA = "tritpack.verify-engine/1"
RIGHT, FILE_WRONG, OTHER_MODEL = "right", "file_wrong", "other_model"
CONCLUSIONS = {
    RIGHT: "file right, engine right",
    FILE_WRONG: "file wrong",
    OTHER_MODEL: "file right, this engine computes another model",
}


@dataclasses.dataclass(frozen=True)
class EngineReport:
    """What came of a comparison.

    verdict: right, file_wrong or other_model. program: of the engine; None if it was not asked. reasons: why the engine
    is wrong, likeliest first, each with the engine as `it`. findings: what is wrong with the file. runs: for each way
    of evaluating, its figures. habit: how far our own logits move without the rounding of activations. mistakes: the
    distance of the engine's answers to each mistake, by reason. notes: worth reading; they change no verdict.
    """

    file: str
    verdict: str
    program: Program | None = None
    findings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    runs: dict[str, Comparison] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    habit: float = 0.0
    mistakes: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def conclusion(self) -> str:
        """The last line, in words."""
        reason = f": {self.reasons[0]}" if self.reasons else f": {self.findings[0]}" if self.findings else ""
        return CONCLUSIONS[self.verdict] + reason

    def as_json(self) -> dict[str, Any]:
        """Return what `verify --engine --json` prints."""
        engine = self.program and {
            "path": str(self.program.path), "kind": self.program.kind, "version": self.program.version,
        }  # fmt: skip
        return {
            "schema": SCHEMA,
            "file": self.file,
            "engine": engine,
            "verdict": self.verdict,
            "conclusion": self.conclusion,
            "reasons": list(self.reasons),
            "findings": list(self.findings),
            "runs": {way: comparison.as_json() for way, comparison in self.runs.items()},
            "failures": self.failures,
            "habit": self.habit,
            "mistakes": self.mistakes,
            "criteria": {"habit": HABIT, "wide_margin": WIDE_MARGIN, "agreement": AGREEMENT},
            "notes": list(self.notes),
        }

"""What a rung of the ladder reports, and the report that all rungs make together."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tritpack.converter.verify.compare.tolerances import LARGEST_SCALE_ROUNDING
from tritpack.converter.verify.findings import Finding, Kind

if TYPE_CHECKING:
    from tritpack.converter.verify.context import Context

Verdict = Literal["pass", "fail", "skipped"]
ReportVerdict = Literal["pass", "fail", "unproved", "unsupported"]
"""`unproved`: nothing failed, and there was no source to prove the file by. `unsupported`: likewise, and tritpack does
not know the architecture, so that most checks could not run."""
Blame = Literal["file", "kernel", "runtime"]
"""What a failed rung accuses: the file, a kernel of this machine, or what runs the file."""
Need = Literal["model"]
"""`model`: the rung runs the file, so it is skipped where the file cannot be run."""
SCHEMA = "tritpack.verify/1"
NOT_PROVED = (
    "whether its codes, scales, norms, tables and hyperparameters are those of the model that it names: a model with "
    "wrong scales or another activation function can still produce language",
    "whether its tokenizer gives the ids that the model was trained with",
    "whether what runs it computes what the model's own code does",
)
"""What no file can prove of itself."""


class RungModule(Protocol):
    """What each module of `rungs/` defines."""

    name: str
    blames: Blame
    needs: frozenset[Need]
    options: tuple[str, ...]
    """Options of `verify` that no other rung looks at."""

    def run(self, context: Context) -> Rung:
        """Compare, and return what was found. An error that leaves it becomes a finding if the rung needs the model."""


@dataclasses.dataclass(repr=False)
class Rung:
    """The verdict, figures and findings of one rung.

    findings: what is wrong; one makes the rung fail. notes: sentences worth reading that fail nothing (a rounding that
    was asked for, a near-tie). skipped: why the rung did not run. compares: what is compared with what, in words.
    series: what plots are made of, by key a list of numbers or names.
    """

    name: str
    blames: Blame
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    skipped: str | None = None
    compares: str = ""
    series: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    seconds: float | None = None

    def add(self, kind: Kind, sentence: str, *, tensor: str | None = None, **figures: Any) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, sentence, tensor, figures))

    def __repr__(self) -> str:
        return f"Rung({self.name!r}, {self.verdict}, {len(self.findings)} findings)"

    @property
    def verdict(self) -> Verdict:
        return "skipped" if self.skipped else "fail" if self.findings else "pass"

    @property
    def sentences(self) -> list[str]:
        """The findings in words."""
        return [finding.sentence for finding in self.findings]

    @property
    def kinds(self) -> list[Kind]:
        """The kind of each finding."""
        return [finding.kind for finding in self.findings]

    def as_json(self) -> dict[str, Any]:
        skipped = {"reason": self.skipped} if self.skipped else {}
        return {
            "name": self.name,
            "verdict": self.verdict,
            "compares": self.compares,
            "figures": self.figures,
            "findings": self.sentences,
            "diagnoses": [finding.as_json() for finding in self.findings],
            "notes": self.notes,
            **skipped,
            "series": self.series,
            **({} if self.seconds is None else {"seconds": round(self.seconds, 3)}),
        }


@dataclasses.dataclass(repr=False)
class Report:
    """All rungs that were climbed. It fails if any rung does.

    source: None where the file was checked by itself.
    unsupported: why tritpack cannot check a file that may well be right.
    provenance: hashes of both sides, oracle, kernels that ran, machine and versions: what the figures belong to.
    """

    file: str
    source: str | None
    rungs: list[Rung]
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    unsupported: str | None = None

    def __repr__(self) -> str:
        against = "" if self.source is None else f" against {self.source}"
        return f"Report({self.verdict}: {self.file}{against}: {self.conclusion})"

    def __getitem__(self, name: str) -> Rung:
        """The rung of that name. Raises KeyError if it was not climbed."""
        return {rung.name: rung for rung in self.rungs}[name]

    @property
    def is_timed(self) -> bool:
        """Whether it says how long each rung took."""
        return all(rung.seconds is not None for rung in self.rungs)

    def without_times(self) -> Report:
        """The same report for a release: climbed again on the same machine, it has the same bytes."""
        provenance = {key: value for key, value in self.provenance.items() if key != "created"}
        rungs = [dataclasses.replace(rung, seconds=None) for rung in self.rungs]
        return dataclasses.replace(self, rungs=rungs, provenance=provenance)

    @property
    def verdict(self) -> ReportVerdict:
        if any(rung.verdict == "fail" for rung in self.rungs):
            return "fail"
        if self.unsupported is not None:
            return "unsupported"
        return "unproved" if self.source is None else "pass"

    @property
    def not_proved(self) -> list[str]:
        """What the checks could not show, in words; [] with a source, where each rung says what it compares."""
        if self.source is not None:
            return []
        skipped = [f"{rung.name} was skipped: {rung.skipped}" for rung in self.rungs if rung.skipped]
        return [*skipped, *NOT_PROVED]

    @property
    def conclusion(self) -> str:
        """What was proved, or what is wrong, in one sentence: the file, a kernel, or what runs it."""
        passed = [rung.name for rung in self.rungs if rung.verdict == "pass"]
        blamed = {rung.blames for rung in self.rungs if rung.verdict == "fail"}
        same_weights = "weights" in passed
        if not blamed and self.unsupported is not None:
            read = f" ({', '.join(passed)})" if passed else ""
            return (
                f"{self.unsupported}, so it cannot check this file; nothing wrong was found in what it could read{read}"
            )
        if not blamed and self.source is None:
            return f"nothing is wrong that the file alone can show; checks passed: {', '.join(passed) or 'none'}"
        if not blamed:
            proved = "the file holds the model of its source" if same_weights else "the file agrees with its source"
            changed = max((rung.figures.get("scale_rounding", 0.0) for rung in self.rungs), default=0.0)
            if changed > LARGEST_SCALE_ROUNDING:
                proved = "the file holds the codes of its source, but other scales, so its logits differ"
            if changed:
                proved += f" (relative change of scales: up to {changed:.2g})"
            skipped = [rung.name for rung in self.rungs if rung.verdict == "skipped"]
            left_out = f"; skipped: {', '.join(skipped)}" if skipped else ""
            return f"{proved}; rungs passed: {', '.join(passed)}{left_out}"
        kinds = {kind for rung in self.rungs for kind in rung.kinds}
        if Kind.SOURCE_DIFFERS in kinds:
            return "the file was not made from this source"
        if kinds == {Kind.NO_LANGUAGE}:
            return "the model does not produce language; nothing else is wrong that the file alone can show"
        if kinds == {Kind.SOURCE_HASH_DIFFERS}:
            return "the file was made from other files than this source has, as far as its records say"
        if "file" in blamed:
            return "the file is wrong" + ("; so is a kernel of this machine" if "kernel" in blamed else "")
        if "kernel" in blamed:
            return "a kernel is wrong on this machine, not the file"
        if self.source is None:
            return "the file does not run as it should"
        if kinds == {Kind.PINNED_TOKEN_DIFFERS}:
            return "the file generates what its source does; the pinned tokens are different ones"
        if not same_weights:
            return "the file does not run as its source does"
        return "the file holds what the source holds, but what runs it computes something else"

    @property
    def first_finding(self) -> str | None:
        """What the lowest rung that failed found first: other findings may only follow from it."""
        return next((f"{rung.name}: {rung.sentences[0]}" for rung in self.rungs if rung.findings), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "conclusion": self.conclusion,
            "file": self.file,
            "source": self.source,
            "not_proved": self.not_proved,
            "provenance": self.provenance,
            "rungs": [rung.as_json() for rung in self.rungs],
        }

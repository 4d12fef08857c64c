"""Runs a recipe: one pass for all outputs, the proof of each, and everything that belongs to the release."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tritpack.converter.convert import Planned, RunOptions, prepare, write_planned
from tritpack.converter.plan import MAX_MEMORY, Plan
from tritpack.converter.release.recipe import packaging
from tritpack.converter.release.recipe.checks import options_of, warnings_of
from tritpack.converter.release.recipe.journal import Journal, alone_in, hash_of
from tritpack.converter.release.recipe.proof import failures_of, prove
from tritpack.converter.release.recipe.reader import Document
from tritpack.converter.release.recipe.recipe import Recipe
from tritpack.converter.release.recipe.shelf import load
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.origin import Origin, snapshot_of
from tritpack.converter.version import VERSION
from tritpack.formats.errors import IntegrityFailed, Unsupported
from tritpack.formats.files import sha256_file
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.progress import Progress

OUTPUT = "releases"
"""The folder that releases go to by default."""

KEPT = "is there, and has its hashes"


@dataclasses.dataclass
class Made:
    """One output of a release. files: names in its folder. verdict: `pass` or `fail`. failures: what is wrong."""

    files: list[str]
    outtype: str
    engine: str
    nbytes: int
    verdict: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Step:
    """One step of a run. skipped: what it makes was there and has its hashes."""

    name: str
    skipped: bool
    seconds: float


@dataclasses.dataclass
class Release:
    """The result of a recipe.

    folder: where everything is. bundle: the same in one file, or None. commit: what the revision was, or None.
    sha256: of the source's files. verdict: `pass` if every output was proved; else nothing was packaged.
    """

    name: str
    folder: Path
    bundle: Path | None
    source: str
    commit: str | None
    sha256: str
    outputs: list[Made]
    steps: list[Step]
    warnings: list[str]

    @property
    def verdict(self) -> str:
        return "pass" if all(output.verdict == "pass" for output in self.outputs) else "fail"


def run_recipe(
    recipe: str | Path,
    output: str | Path = OUTPUT,
    *,
    overrides: Sequence[str] = (),
    threads: int = 0,
    max_memory: int = MAX_MEMORY,
    force: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Release:
    """Make the release of a recipe in the folder OUTPUT/NAME, and OUTPUT/NAME.tar.zst.

    recipe: the path of one, or the name of a shipped one. overrides: KEY=VALUE, see read_recipe. threads, max_memory:
    see `convert`. force: replace a release that was made from something else. say: is told each step.
    What an earlier run has made is kept if it has the hashes that were written down then. A wrong output is no error:
    see `verdict`. Raises what convert, verify and the steps of packaging raise.
    """
    document = load(recipe, overrides=overrides)
    packaging.require_extras(document.recipe)
    folder = Path(output) / document.recipe.name
    with alone_in(folder):
        run = _Run(document, folder, RunOptions(None, False, threads, max_memory, force, progress), say)
        return run.all()


class _Run:
    """One run: its opened source, its plans, its journal."""

    def __init__(self, document: Document, folder: Path, options: RunOptions, say: Callable[[str], None]) -> None:
        self.document, self.recipe, self.folder, self.options, self.say = (
            document, document.recipe, folder, options, say,
        )  # fmt: skip
        self.started = time.monotonic()
        self.steps: list[Step] = []
        source = self.recipe.source
        say(f"source: {source.repository or source.path}")
        # Not a folder of that name, which ORG/NAME would be as an argument.
        reference = f"hf:{source.repository}" if source.repository else str(source.path)
        if source.repository:
            options = dataclasses.replace(options, revision=source.revision)
        self.source, self.planned = self._plan(reference, options)
        self.path = self.source.folder if isinstance(self.source, CheckpointFolder) else self.source.path
        self.origin = Origin(*snapshot_of(self.path))
        self.sha256 = self.source.sha256
        if source.sha256 not in (None, self.sha256):
            raise IntegrityFailed(f"has the SHA-256 {self.sha256}, the recipe says {source.sha256}", path=self.path)
        self.journal = Journal(folder, self._key(), force=options.force)

    def _key(self) -> str:
        """What the release is made from, as one hash: neither folders nor names of branches are a part of it."""
        return hash_of({"source": self.sha256, "origin": [self.origin.repository, self.origin.commit], "by": VERSION})

    def all(self) -> Release:
        """Do all steps that are not done."""
        planned = self.planned
        outputs = [
            Made([shard.path.name for shard in shards], plan.outtype, output.engine, sum(s.nbytes for s in shards))
            for output, (plan, shards) in zip(self.recipe.outputs, planned)
        ]
        warnings = [*warnings_of(self.recipe), *_differences(self.recipe, planned[0][0])]
        warnings += [warning for plan, _ in planned for warning in plan.warnings]
        package = packaging.Package(self.document, self.folder, self.source, self.origin.commit)
        proofs = {output.files[0]: packaging.proof_files(self.recipe, output.files[0]) for output in outputs}
        made = [path for output in outputs for path in (*output.files, *proofs[output.files[0]])]
        self.journal.keep_only([*made, *(path for paths in package.steps.values() for path in paths)])
        warnings += self._convert(outputs)
        for output in outputs:
            self._prove(output, proofs[output.files[0]])
        is_proved = all(output.verdict == "pass" for output in outputs)
        if is_proved:
            self._package(package, outputs)
        else:  # nothing that an earlier run has said of other files may stay
            for name, paths in package.steps.items():
                self.journal.begin(name, paths)
        return Release(
            self.recipe.name, self.folder, package.bundle if is_proved else None, self._shown(), self.origin.commit,
            self.sha256, outputs, self.steps, list(dict.fromkeys(warnings)),
        )  # fmt: skip

    def _step(self, name: str, inputs: Mapping[str, Any], paths: Sequence[str], work: Callable[[], object]) -> bool:
        """Do a step unless it is done. work returns False for a step that has failed. Returns whether it was done."""
        started = time.monotonic()
        skipped = self.journal.is_done(name, inputs)
        self.say(f"{name}: {KEPT if skipped else '...'}")
        if not skipped:
            self.journal.begin(name, paths)
            if work() is False:
                return False
            there = [path for path in paths if (self.folder / path).exists()]
            self.journal.finish(name, inputs, there)
        self.steps.append(Step(name, skipped, round(time.monotonic() - started, 3)))
        return True

    # -- conversion ----------------------------------------------------------------------------------------------------

    @property
    def _paths(self) -> list[Path]:
        """The name of each output, in which {FTYPE} stands for its layout."""
        stems = ["-".join(filter(None, (self.recipe.name, output.suffix))) for output in self.recipe.outputs]
        return [self.folder / f"{stem}-{{FTYPE}}.gguf" for stem in stems]

    def _plan(self, reference: str, options: RunOptions) -> tuple[CheckpointFolder | GgufFile, Planned]:
        # Existing outputs are judged by their hashes, later, and not refused.
        wanted = [options_of(self.recipe, output) for output in self.recipe.outputs]
        source, planned = prepare(reference, self._paths, wanted, dataclasses.replace(options, force=True))
        expected, found = self.recipe.family, planned[0][0].metadata.get("tritpack.source.family")
        if expected is not None and found not in (None, expected):
            raise Unsupported(f"is of the family {found}, the recipe says {expected}", path=reference)
        return source, planned

    def _convert(self, outputs: Sequence[Made]) -> list[str]:
        """Write the outputs that are not there, in one pass. Returns its warnings."""
        started = time.monotonic()
        inputs = [
            {**dataclasses.asdict(output), "quantize": self.recipe.source.quantize} for output in self.recipe.outputs
        ]
        names = [f"convert {output.files[0]}" for output in outputs]
        missing = [index for index, name in enumerate(names) if not self.journal.is_done(name, inputs[index])]
        for index, output in enumerate(outputs):
            if index in missing:
                self.journal.begin(names[index], output.files)
            else:
                self.say(f"{names[index]}: {KEPT}")
                self.steps.append(Step(names[index], True, 0.0))
        if not missing:
            return []
        self.say(f"convert: {len(missing)} of {len(outputs)} outputs, in one pass")
        conversions = write_planned(self.source, [self.planned[index] for index in missing], self.options)
        for index in missing:
            self.journal.finish(names[index], inputs[index], outputs[index].files)
            self.steps.append(Step(names[index], False, round(time.monotonic() - started, 3)))
        return [warning for conversion in conversions for warning in conversion.warnings]

    # -- proof and packaging -------------------------------------------------------------------------------------------

    def _prove(self, output: Made, paths: Sequence[str]) -> None:
        first, text = output.files[0], self.recipe.verify.text
        inputs = {
            "files": self.journal.files(f"convert {first}"),
            "verify": {**dataclasses.asdict(self.recipe.verify), "text": text and sha256_file(Path(text))},
            "golden": [dataclasses.asdict(golden) for golden in self.recipe.golden],
            "paths": list(paths),
        }

        def work() -> bool:
            report = prove(self.recipe, self.folder, first, self.path, self._shown())
            output.failures = failures_of(report, self.recipe)
            if not output.failures:
                packaging.attest(self.recipe, self.folder, first, report)
            return not output.failures

        output.verdict = "pass" if self._step(f"verify {first}", inputs, paths, work) else "fail"

    def _shown(self) -> str:
        """The source as reports name it: without the folders of this machine."""
        if self.origin.repository:
            return f"{self.origin.repository}@{self.origin.commit}"
        return self.path.name

    def _package(self, package: packaging.Package, outputs: Sequence[Made]) -> None:
        """Write card, recipe, tokenizer and licence, the manifest, and the bundle."""
        done = [f"{work} {output.files[0]}" for output in outputs for work in ("convert", "verify")]
        for name, paths in package.steps.items():
            inputs = {"files": self.journal.files(*done), "recipe": package.recipe_text}
            self._step(name, inputs, paths, lambda name=name: package.write(name, self.options))  # type: ignore[misc]
            done.append(name)


def _differences(recipe: Recipe, plan: Plan) -> list[str]:
    """Return what the source is and the recipe does not say."""
    expected = {name: size for name, size in dataclasses.asdict(recipe.shape).items() if size is not None}
    found = {name: getattr(plan.spec, name, None) for name in expected}
    other = [f"{name} {found[name]} (not {size})" for name, size in expected.items() if found[name] != size]
    warnings = [f"the source has another shape than the recipe says: {', '.join(other)}"] if other else []
    licence = plan.metadata.get("general.license")
    if recipe.license is not None and licence != recipe.license:
        warnings.append(f"the source's licence is {licence or 'not given'}, the recipe says {recipe.license}")
    return warnings

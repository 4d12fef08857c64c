"""`verify` climbs the ladder: each rung up to the level that was asked for, skipping those that cannot run.

Without a source it runs the checks of alone/, which need the file only.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tritpack.converter.sources.open import local_path
from tritpack.converter.verify.alone import LEVELS_ALONE, split_alone
from tritpack.converter.verify.alone.context import AloneContext, AloneModule
from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.context import Context, ErrorOfOption, Options
from tritpack.converter.verify.findings import Kind, summarised
from tritpack.converter.verify.provenance import describe, describe_alone
from tritpack.converter.verify.rung import Report, Rung, RungModule
from tritpack.converter.verify.rungs import DEFAULT_LEVEL, LEVELS, load, split_at
from tritpack.formats.errors import CheckFailed, MissingRequirement, Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_metadata import refuse_adapter, refuse_unread_layouts
from tritpack.formats.printable import printable
from tritpack.runtime import packers

ORACLES = ("reference", "transformers")


def verify(
    file: str | Path,
    source: str | Path | None = None,
    *,
    level: str = DEFAULT_LEVEL,
    quantize: str | None = None,
    revision: str | None = None,
    oracle: str = "reference",
    tokens: Sequence[int] | None = None,
    text: str | Path | None = None,
    golden: str | Path | None = None,
    prompt: Sequence[str] = (),
    against: str | Path | None = None,
    strict: bool = False,
    reproduce: bool = False,
    progress: Callable[[str], None] = lambda rung: None,
    climbed: Callable[[Rung], None] = lambda rung: None,
) -> Report:
    """Compare FILE with SOURCE: a checkpoint folder, ORG/NAME[@REVISION] on the Hub, or another GGUF. Without SOURCE,
    check what FILE alone can show: the verdict is `unproved` then, or `fail`.

    level: one of LEVELS; `full` samples nothing but slow kernels and the built-in text of a large model. quantize:
    `absmean` where `convert` needed it. oracle: gives the outputs that count as right, `reference` (numpy),
    `transformers`, or a .npy of outputs for `tokens`. text: a file of ordinary text for the rungs text and perplexity;
    a built-in one by default. golden: a JSON file of pinned greedy tokens (see golden.py). prompt: texts to generate
    from, besides the beginning of the text and a chat. against: a second packed file, whose predictions the perplexity
    rung compares with FILE's. strict: fail if FILE records another hash of its source, which is a note otherwise.
    reproduce: convert SOURCE again and compare the bytes. progress and climbed are called before and after each rung.
    Raises Unreadable if FILE or SOURCE cannot be read, Unsupported for a SOURCE of another kind, UsageError.
    """
    options = Options(
        quantize, oracle, tokens, text, golden, tuple(prompt) or None, against, strict, level == "full", reproduce
    )
    if source is None:
        _refuse_what_needs_a_source(level, options, revision)
    rungs = [] if source is None else _choose_rungs(level, options)
    packers.use_c_packers()
    report = Report(printable(str(file)), None if source is None else printable(str(source)), [])
    opened = GgufFile(file)
    _require_ternary(opened)
    if source is None:
        return _check_alone(opened, level, options, report, progress, climbed)
    context = Context(opened, local_path(source, revision=revision), options, report)
    with ThreadPoolExecutor(2) as aside, context:
        context.hashing = aside.submit(lambda: context.source.sha256)
        digest = aside.submit(lambda: opened.sha256)
        for module in rungs:
            progress(module.name)
            climbed(_timed(module, context))
        for hashed in (digest, context.hashing):
            hashed.result()
        report.provenance = describe(report, context, level)
    return report


def _refuse_what_needs_a_source(level: str, options: Options, revision: str | None) -> None:
    """Raise UsageError for a level or option that compares with a source."""
    if level not in LEVELS_ALONE:
        _require_level(level)
        hint = f"give --source, or one of: {', '.join(LEVELS_ALONE)}"
        raise UsageError(f"--level {level} compares with a source", hint=hint)
    unusable = {**dataclasses.asdict(options), "revision": revision}
    usual = {**dataclasses.asdict(Options()), "revision": None}
    for name, value in unusable.items():
        if name not in ("text", "everything") and value != usual[name]:
            raise UsageError(f"--{name} is for comparing with a source", hint="give --source")


def _check_alone(
    file: GgufFile,
    level: str,
    options: Options,
    report: Report,
    progress: Callable[[str], None],
    climbed: Callable[[Rung], None],
) -> Report:
    """Run the checks that need no source."""
    words = None if options.text is None else read_text(options.text)
    if words is not None and not words.strip():
        raise UsageError(f"--text {options.text}: holds no text")
    with AloneContext(file, report, words, options.everything) as context:
        for module in split_alone(level):
            progress(module.name)
            climbed(_timed(module, context))
    report.provenance = describe_alone(report, file, level, options)
    return report


def _require_ternary(file: GgufFile) -> None:
    """Raise Unsupported for a file whose matrices are all of other types: an ordinary model, or a LoRA adapter."""
    refuse_adapter(file)
    refuse_unread_layouts(file)
    matrices = [info for info in file.tensors.values() if len(info.shape) == 2]
    if matrices and all(file.layout_of(info) is None for info in matrices):
        types = Counter(info.layout or f"type {info.type_id}" for info in matrices)
        counts = ", ".join(f"{count} x {name}" for name, count in types.most_common())
        raise Unsupported(
            f"this is not a ternary model: its matrices are {counts}",
            path=file.path,
            hint="verify proves files of ternary models; `tritpack inspect` shows any GGUF",
        )


def _require_level(level: str) -> None:
    if level not in LEVELS:
        raise UsageError(f"--level {level} is unknown", hint=f"choose one of: {', '.join(LEVELS)}")


def _choose_rungs(level: str, options: Options) -> list[RungModule]:
    """The rungs of a level. Raises UsageError for options that are unknown or do not go together."""
    _require_level(level)
    if options.oracle not in ORACLES and not options.oracle.endswith(".npy"):
        hint = f"choose {' or '.join(ORACLES)}, or give a .npy file"
        raise UsageError(f"--oracle {options.oracle} is unknown", hint=hint)
    rungs, above = split_at(level)
    for module in above:
        for option in module.options:
            if getattr(options, option) is not None:
                raise UsageError(f"--{option} is for the rung {module.name}, and --level {level} stops before it")
    if options.oracle.endswith(".npy") != (options.tokens is not None):
        raise UsageError("--tokens and --oracle FILE.npy belong together: they are the tokens of its rows")
    return [*rungs, load("reproduction")] if options.reproduce else rungs


def _timed(module: Any, context: Any) -> Rung:
    """Run one rung or check, and put its result into the report."""
    started = time.perf_counter()
    rung = _climb(module, context)
    rung.findings = summarised(rung.findings)
    rung.seconds = time.perf_counter() - started
    context.report.rungs.append(rung)
    return rung


def _climb(module: RungModule | AloneModule, context: Any) -> Rung:
    """Run one rung. An error of a rung that runs the file becomes its finding; one for something that is not installed
    is raised, unless something was found already, which must not be lost."""
    runs_the_file = "model" in module.needs
    if reason := context.stopped or (context.cannot_run if runs_the_file else None):
        return Rung(module.name, module.blames, skipped=reason)
    try:
        return module.run(context)
    except ErrorOfOption as wrapped:
        raise wrapped.error from wrapped.error.__cause__
    except MissingRequirement as error:
        if not runs_the_file or context.report.verdict == "pass":
            raise
        context.cannot_run = error.without_path
        return Rung(module.name, module.blames, skipped=error.without_path)
    except (Unreadable, Unsupported, UsageError, CheckFailed) as error:
        if not runs_the_file:
            raise
        context.cannot_run = "the file cannot be run"
        rung = Rung(module.name, module.blames)
        rung.add(Kind.CANNOT_RUN, f"the file cannot be run: {error}", tensor=error.tensor)
        return rung

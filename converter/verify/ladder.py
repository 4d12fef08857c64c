"""`verify` climbs the ladder: which rungs there are, what each needs, and what skips the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.open import is_gguf, local_path, open_source
from tritpack.converter.targets.scale_rounding import rounded
from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.comparison import Comparison
from tritpack.converter.verify.metadata_values import printable
from tritpack.converter.verify.oracle.codes import Coded
from tritpack.converter.verify.oracle.judges import Judge, Transformers, recorded
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.packed import PackedOracle
from tritpack.converter.verify.provenance import describe, source_sha256
from tritpack.converter.verify.rung import Report, Rung
from tritpack.converter.verify.rungs.generation import check_generation, golden_of, parse_golden, prompts_of
from tritpack.converter.verify.rungs.kernels import check_kernels
from tritpack.converter.verify.rungs.logits import check_logits, check_recorded, check_text, text_windows
from tritpack.converter.verify.rungs.perplexity import check_perplexity, compare_with, open_base
from tritpack.converter.verify.rungs.structure import check_hashes, check_structure
from tritpack.converter.verify.rungs.tokenizer import check_tokenizer
from tritpack.converter.verify.rungs.weights import check_weights
from tritpack.formats import float_types
from tritpack.formats.errors import CheckFailed, MissingRequirement, TritpackError, Unreadable, Unsupported, UsageError
from tritpack.formats.files import sha256_file
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime import packers
from tritpack.runtime.model import Model

F32 = npt.NDArray[np.float32]

RUNGS = ("structure", "weights", "kernels", "tokenizer", "logits", "text", "generation", "perplexity")
LEVELS = (*RUNGS, "full")
"""How far to climb: up to that rung, those below included. `logits` includes the text rung."""
NEEDED_RUNG = {"tokens": "logits", "golden": "generation", "prompt": "generation", "against": "perplexity"}
"""Options that only one rung looks at."""
ORACLES = ("reference", "transformers")


@dataclasses.dataclass(frozen=True)
class Options:
    """What `verify` was asked for besides FILE and SOURCE."""

    quantize: str | None = None
    oracle: str = "reference"
    tokens: Sequence[int] | None = None
    text: str | Path | None = None
    golden: str | Path | None = None
    prompt: Sequence[str] = ()
    against: str | Path | None = None


def verify(
    file: str | Path,
    source: str | Path,
    *,
    level: str = "full",
    quantize: str | None = None,
    revision: str | None = None,
    oracle: str = "reference",
    tokens: Sequence[int] | None = None,
    text: str | Path | None = None,
    golden: str | Path | None = None,
    prompt: Sequence[str] = (),
    against: str | Path | None = None,
    progress: Callable[[str], None] = lambda rung: None,
    climbed: Callable[[Rung], None] = lambda rung: None,
) -> Report:
    """Hold FILE against SOURCE: a checkpoint folder, ORG/NAME[@REVISION] on the Hub, or another GGUF.

    level: one of LEVELS. quantize: `absmean` where `convert` needed it. oracle: who says what is right, `reference`
    (numpy), `transformers`, or a .npy of outputs for `tokens`. text: a file of ordinary text for the rungs text and
    perplexity; a built-in one otherwise. golden: a JSON file of pinned greedy tokens (see generation.parse_golden).
    prompt: texts to generate from, besides the beginning of the text and a chat. against: a second packed file, whose
    predictions the perplexity rung compares with FILE's. progress and climbed are called before and after each rung.
    Raises Unreadable if FILE or SOURCE cannot be read, Unsupported for a SOURCE of another kind, UsageError.
    """
    if level not in LEVELS:
        raise UsageError(f"--level {level} is unknown", hint=f"choose one of: {', '.join(LEVELS)}")
    if oracle not in ORACLES and not oracle.endswith(".npy"):
        raise UsageError(f"--oracle {oracle} is unknown", hint=f"choose {' or '.join(ORACLES)}, or give a .npy file")
    top = RUNGS.index("text" if level == "logits" else "perplexity" if level == "full" else level)
    given = {"tokens": tokens, "golden": golden, "prompt": list(prompt) or None, "against": against}
    for option, needed in NEEDED_RUNG.items():
        if given[option] is not None and RUNGS.index(needed) > top:
            raise UsageError(f"--{option} is for the rung {needed}, and --level {level} stops before it")
    if oracle.endswith(".npy") != (tokens is not None):
        raise UsageError("--tokens and --oracle FILE.npy belong together: they are the tokens of its rows")
    options = Options(quantize, oracle, tokens, text, golden, prompt, against)
    packers.use_c_packers()
    climb = Ladder(GgufFile(file), local_path(source, revision=revision), options)
    report = Report(printable(str(file)), printable(str(source)), [])
    with ThreadPoolExecutor(2) as aside, climb:
        climb.hashing = aside.submit(source_sha256, climb.source)
        digest = aside.submit(sha256_file, Path(file))
        for name in RUNGS[: top + 1]:
            progress(name)
            started = time.perf_counter()
            try:
                rung = climb.step(name, report)
            except _OfTheCall as wrapped:
                raise wrapped.error from wrapped.error.__cause__
            rung.seconds = time.perf_counter() - started
            report.rungs.append(rung)
            climbed(rung)
        report.provenance = describe(report, digest.result(), climb.hashing.result(), climb.judge_name, level)
    return report


class Ladder:
    """FILE and SOURCE opened, and what several rungs share, made when the first of them needs it."""

    def __init__(self, packed: GgufFile, origin: Path, options: Options) -> None:
        self.packed, self.origin, self.options = packed, origin, options
        # What the caller gave is read before anything that takes long.
        self.words = read_text(options.text)
        if options.text is not None and not self.words.strip():
            raise UsageError(f"--text {options.text}: holds no text")
        self.pinned = None if options.golden is None else parse_golden(Path(options.golden))
        self.exact = self._oracle()
        self.base = None if options.against is None else open_base(Path(options.against), self.exact.spec.vocab_size)
        self.hashing: Future[str]  # of the source, aside
        self.comparison: Comparison | None = None
        self.stopped: str | None = None  # why nothing can be run any more

    def __enter__(self) -> Ladder:
        return self

    def __exit__(self, *error: object) -> None:
        for model in (self.__dict__.get("model"), self.base):
            if model is not None:
                model.close()

    def step(self, name: str, report: Report) -> Rung:
        """One rung. What goes wrong in it is its finding; what is missing here is raised, unless something was found
        already."""
        if name == "structure":
            rung = check_structure(self.packed, self.source, self.exact)
            check_hashes(rung, self.packed, self.source, self.hashing.result())
            if rung.verdict == "fail":
                self.stopped = "the file's structure is wrong"
            return rung
        if name == "weights":
            return check_weights(self.packed, self.exact)
        if name == "tokenizer":
            return check_tokenizer(self.packed, self.source)
        if self.stopped:
            return Rung(name, skipped=self.stopped)
        try:
            rung = getattr(self, f"_{name}")(report)
            assert isinstance(rung, Rung)
            return rung
        except MissingRequirement as error:
            if report.verdict == "pass":
                raise
            # What was found already must not be lost because the rest cannot run here.
            self.stopped = error.message
            return Rung(name, skipped=error.message)
        except (Unreadable, Unsupported, UsageError, CheckFailed) as error:
            self.stopped = "the file cannot be run"
            return Rung(name, findings=[f"the file cannot be run: {error}"])

    # -- rungs ---------------------------------------------------------------------------------------------------------

    def _kernels(self, report: Report) -> Rung:
        return check_kernels(self.packed, int8=self.exact.spec.int8_activations)

    def _logits(self, report: Report) -> Rung:
        if self.options.tokens is not None:
            with _of_the_call():
                expected = recorded(Path(self.options.oracle), self.options.tokens, self.model)
            return check_recorded(self.model, self.oracle, expected, self.options.tokens)
        return check_logits(self.model, self.oracle, self.judge)

    def _text(self, report: Report) -> Rung:
        if not self.has_tokenizer:
            return Rung("text", skipped="neither file nor source has a tokenizer to read a text with")
        rung, self.comparison = check_text(self.model, self.oracle, self.windows, self.judge)
        return rung

    def _generation(self, report: Report) -> Rung:
        prompts = {"text": self.text_tokens[:8]}
        with _of_the_call():
            golden = [] if self.pinned is None else golden_of(self.pinned, self.model)
            prompts |= prompts_of(self.options.prompt, self.model)
        return check_generation(self.model, self.oracle, self.judge, prompts, golden)

    def _perplexity(self, report: Report) -> Rung:
        if self.comparison is None:
            return Rung("perplexity", skipped=report["text"].skipped)
        rung = check_perplexity(self.comparison, self.judge_name, report["text"])
        if self.base is not None:
            if rung.verdict != "skipped":
                with _of_the_call():
                    compare_with(rung, self.model, self.base, self.windows)
            else:
                rung.notes.append(f"{self.base.file.path.name} was not compared with")
        return rung

    # -- what they share -----------------------------------------------------------------------------------------------

    def _oracle(self, **as_stored: Any) -> Oracle:
        if is_gguf(self.origin):
            return PackedOracle(self.origin, **as_stored)
        return Oracle(self.origin, quantize=self.options.quantize, **as_stored)

    @functools.cached_property
    def source(self) -> CheckpointFolder | GgufFile:
        return open_source(self.origin)

    @functools.cached_property
    def oracle(self) -> Oracle:
        """Computes with tables and scales as FILE's types round them; whether they do, the weights rung says."""
        return self._oracle(rounded=_rounding(self.packed), rescaled=_rescaling(self.packed))

    @functools.cached_property
    def judge(self) -> Judge:
        if self.options.oracle != "transformers":
            return self.oracle
        with _of_the_call():
            if is_gguf(self.origin):
                raise UsageError("--oracle transformers judges a checkpoint folder, and the source is a GGUF")
            return Transformers(self.origin, self.oracle)

    @property
    def judge_name(self) -> str:
        name = self.judge.name if "judge" in self.__dict__ else self.exact.name
        return name if self.options.tokens is None else f"{name}; {Path(self.options.oracle).name} for the logits"

    @functools.cached_property
    def model(self) -> Model:
        return Model(self.packed)

    @functools.cached_property
    def has_tokenizer(self) -> bool:
        """False only where the source has none either, so that FILE cannot be blamed."""
        keys = "tokenizer.ggml.tokens"
        return keys in self.packed.metadata or not (
            isinstance(self.source, GgufFile) and keys not in self.source.metadata
        )

    @functools.cached_property
    def text_tokens(self) -> list[int]:
        """Of the text; without a tokenizer some tokens or other."""
        if not self.has_tokenizer:
            return list(range(min(8, self.model.spec.vocab_size)))
        return self.model.tokenizer.encode(self.words)

    @functools.cached_property
    def windows(self) -> list[Sequence[int]]:
        return text_windows(self.model, self.text_tokens)


class _OfTheCall(Exception):
    """Carries an error of what the caller gave besides FILE past those that are findings about FILE."""

    def __init__(self, error: TritpackError) -> None:
        super().__init__(error.message)
        self.error = error


@contextlib.contextmanager
def _of_the_call() -> Iterator[None]:
    try:
        yield
    except TritpackError as error:
        raise _OfTheCall(error) from error


def _rounding(packed: GgufFile) -> Callable[[str, F32], F32]:
    def as_stored(name: str, rows: F32) -> F32:
        kind = packed.tensors[f"{name}.weight"].layout
        if kind not in float_types.FLOAT_TYPES:
            return rows  # a ternary table holds its values exactly, or the weights rung has said so
        return float_types.decode(kind, float_types.encode(kind, rows), rows.shape[0], rows.shape[1])

    return as_stored


def _rescaling(packed: GgufFile) -> Callable[[str, Coded], Coded]:
    def as_stored(name: str, coded: Coded) -> Coded:
        info = packed.tensors[f"{name}.weight"]
        layout = packed.layout_of(info)
        if layout is None or f"{name}.scale" in packed.tensors:
            return coded
        return coded[0], rounded(TernaryTensor(*coded), layout).scales

    return as_stored

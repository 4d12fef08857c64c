"""What a call of `verify` was given, opened, and what several rungs share."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from tritpack.converter.sources.open import is_gguf, open_source
from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.compare.foreign import has_foreign_tables, is_silent_on_activations
from tritpack.converter.verify.compare.near_ties import searches
from tritpack.converter.verify.compare.outputs import OutputComparison
from tritpack.converter.verify.compare.source_record import SourceRecord
from tritpack.converter.verify.compare.tensors import stored_scales
from tritpack.converter.verify.compare.tolerances import MAX_LOGITS, MIN_POSITIONS
from tritpack.converter.verify.golden import Golden, parse_golden
from tritpack.converter.verify.oracle.hybrid import open_folder
from tritpack.converter.verify.oracle.hybrid_packed import open_packed
from tritpack.converter.verify.oracle.judges import Judge, Transformers
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.rounding import EXACTLY, StoredScales, StoredTable, StoredTypes
from tritpack.converter.verify.rung import Report
from tritpack.formats.errors import TritpackError, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import TABLES, ModelSpec
from tritpack.formats.names import FLOAT_TYPES
from tritpack.runtime.model import Model

WINDOW = 256
TEXT_POSITIONS = MIN_POSITIONS + 12
"""Tokens of the text that are compared even if the vocabulary is large."""
LARGE_POSITIONS = 3 * WINDOW
"""Tokens of the built-in text that --level full compares if the model has more than 1e9 weights and the vocabulary is
large: the oracle takes 4 s for 1e9 weights and a window on two cores. A fault in one position of 250 is in one of 768
with 95 %."""


def compared_positions(spec: ModelSpec, *, full: bool, given: bool) -> int | None:
    """How many tokens of the text are compared at most; None for all. full: as `--level full`. given: by --text."""
    some = max(TEXT_POSITIONS, MAX_LOGITS // spec.vocab_size)
    if not full:
        return some
    return None if given or searches(spec) else max(LARGE_POSITIONS, some)


@dataclasses.dataclass(frozen=True)
class Options:
    """What `verify` was asked for besides FILE and SOURCE, under the names of its options."""

    quantize: str | None = None
    oracle: str = "reference"
    tokens: Sequence[int] | None = None
    text: str | Path | None = None
    golden: str | Path | None = None
    prompt: Sequence[str] | None = None
    against: str | Path | None = None
    strict: bool = False
    everything: bool = False
    reproduce: bool = False


class ErrorOfOption(Exception):
    """Carries an error about an option past the handlers that turn errors of a rung into findings about FILE."""

    def __init__(self, error: TritpackError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def errors_of_options() -> Iterator[None]:
    """Mark errors in this block as errors of the call: they are raised, and are not findings about FILE."""
    try:
        yield
    except TritpackError as error:
        raise ErrorOfOption(error) from error


class Context:
    """FILE and SOURCE, the caller's other inputs, which are read first, and what rungs share, made when it is needed.

    report: the rungs so far. exact: the oracle without any rounding. golden: pinned tokens. base: the model of
    --against. hashing: the source's hash, computed aside. record: what FILE records of its source, set by the rung
    `structure`. right_tables: names of float tables that are the source's, encoded; set by the rung `weights`.
    comparison: of the text, set by the rung `text`. cannot_run: why rungs that need the model are skipped, once that is
    known. stopped: why all further rungs are.
    """

    def __init__(self, file: GgufFile, source_path: Path, options: Options, report: Report) -> None:
        self.file, self.source_path, self.options, self.report = file, source_path, options, report
        self.words = read_text(options.text)
        if options.text is not None and not self.words.strip():
            raise UsageError(f"--text {options.text}: holds no text")
        self.golden: list[Golden] = [] if options.golden is None else parse_golden(Path(options.golden))
        self.source = open_source(source_path)
        self.exact = self._open_oracle(EXACTLY)
        self._models = contextlib.ExitStack()
        self.base = None if options.against is None else self._open_base(Path(options.against))
        self.hashing: Future[str]
        self.record = SourceRecord()
        self.right_tables: frozenset[str] = frozenset()
        self.comparison: OutputComparison | None = None
        self.cannot_run: str | None = None
        self.stopped: str | None = None

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *error: object) -> None:
        self._models.close()

    # -- oracles -------------------------------------------------------------------------------------------------------

    def _open_oracle(self, stored: StoredTypes) -> Oracle:
        if is_gguf(self.source_path):
            return open_packed(self.source_path, stored)
        return open_folder(self.source_path, stored, quantize=self.options.quantize)

    @functools.cached_property
    def oracle(self) -> Oracle:
        """Computes with tables and scales rounded as FILE stores them; the weights rung says whether they are."""
        return self._open_oracle(stored_types(self.file, self.exact.spec.linear_names(), self.right_tables))

    @functools.cached_property
    def judge(self) -> Judge:
        """The oracle that was asked for."""
        if self.options.oracle != "transformers":
            return self.oracle
        with errors_of_options():
            if is_gguf(self.source_path):
                raise UsageError("--oracle transformers judges a checkpoint folder, and the source is a GGUF")
            return Transformers(self.source_path, self.oracle)

    @property
    def judge_name(self) -> str:
        name = self.judge.name if "judge" in self.__dict__ else self.exact.name
        return name if self.options.tokens is None else f"{name}; {Path(self.options.oracle).name} for the logits"

    # -- the model and its text ----------------------------------------------------------------------------------------

    def _open_base(self, path: Path) -> Model:
        """The model of a second file. Raises UsageError if its predictions cannot be compared with FILE's."""
        file = GgufFile(path)
        int8 = self.exact.spec.int8_activations if is_silent_on_activations(file) else None
        base = self._models.enter_context(Model(file, int8_activations=int8))
        vocab_size = self.exact.spec.vocab_size
        problem = None
        if base.spec.is_embedding_model:
            problem = "is an embedding model, which predicts no next token"
        elif base.spec.vocab_size != vocab_size:
            sizes = f"{base.spec.vocab_size}, this file one of {vocab_size}"
            problem = f"has a vocabulary of {sizes}: their predictions cannot be compared"
        if problem:
            self._models.close()
            raise UsageError(f"--against {path}: {problem}")
        return base

    @functools.cached_property
    def model(self) -> Model:
        # The rung `structure` has compared it, or taken it from the source where FILE cannot say it.
        int8 = self.exact.spec.int8_activations
        return self._models.enter_context(Model(self.file, int8_activations=int8))

    @functools.cached_property
    def has_tokenizer(self) -> bool:
        """False only where the source has none either, so that FILE cannot be blamed."""
        key = "tokenizer.ggml.tokens"
        return key in self.file.metadata or not (isinstance(self.source, GgufFile) and key not in self.source.metadata)

    @functools.cached_property
    def text_tokens(self) -> list[int]:
        """The ids of the text; without a tokenizer the first ids of the vocabulary."""
        if not self.has_tokenizer:
            return list(range(min(8, self.model.spec.vocab_size)))
        return self.model.tokenizer.encode(self.words)

    def compared_positions(self, *, full: bool) -> int | None:
        """How many tokens of the text a level compares at most; None for all."""
        return compared_positions(self.model.spec, full=full, given=self.options.text is not None)

    @functools.cached_property
    def windows(self) -> list[Sequence[int]]:
        """As much of the text as is compared, in windows."""
        window, tokens = min(WINDOW, self.model.context_length), self.text_tokens
        tokens = tokens[: self.compared_positions(full=self.options.everything)]
        return [tokens[first : first + window] for first in range(0, len(tokens), window)]


def stored_types(
    file: GgufFile, linear_names: Sequence[str], right_tables: Collection[str] = frozenset()
) -> StoredTypes:
    """How a file stores the scales of its linears and its tables, as data for the oracle. right_tables: names of tables
    whose bytes are known to be the source's values, encoded."""
    scales: dict[str, StoredScales] = {}
    for name in linear_names:
        if (stored := stored_scales(file, file.tensors[name])) is not None:
            scales[name.removesuffix(".weight")] = stored
    return StoredTypes(scales, dict(_stored_tables(file, right_tables)))


def _stored_tables(file: GgufFile, right: Collection[str]) -> Iterator[tuple[str, StoredTable]]:
    """Tables of floats. A ternary table holds its values exactly; if it does not, the weights rung says so."""
    foreign = has_foreign_tables(file)
    for name in TABLES:
        info = file.tensors.get(f"{name}.weight")
        if info is not None and info.layout in FLOAT_TYPES:
            as_it_is = foreign or info.name in right
            yield name, StoredTable(info.layout, file.bytes_of(info).reshape(info.rows, -1) if as_it_is else None)

"""What the checks of a file without a source share."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Protocol

from tritpack.converter.verify.rung import Blame, Need, Report, Rung
from tritpack.formats import model_metadata
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.integrity import TensorHashes
from tritpack.formats.model_spec import ModelSpec
from tritpack.runtime.model import Model


@dataclasses.dataclass
class AloneContext:
    """A file, opened, and what its checks have found out.

    words: the text that its language is judged by, in place of the built-in ones; None for these. everything: sample
    nothing. hashes: of the tensors that the file records, computed by the check `weights`. cannot_run: why checks that
    run the file are skipped. stopped: why all further checks are.
    """

    file: GgufFile
    report: Report
    words: str | None = None
    everything: bool = False
    hashes: dict[str, TensorHashes] = dataclasses.field(default_factory=dict)
    cannot_run: str | None = None
    stopped: str | None = None
    _models: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> AloneContext:
        return self

    def __exit__(self, *error: object) -> None:
        self._models.close()

    @functools.cached_property
    def spec(self) -> ModelSpec:
        """The model that the file describes. Raises Unreadable, Unsupported."""
        return model_metadata.from_gguf(self.file)

    @functools.cached_property
    def model(self) -> Model:
        """The file, ready to run."""
        return self._models.enter_context(Model(self.file))


class AloneModule(Protocol):
    """What each check defines: the same as a rung, with a file alone."""

    name: str
    blames: Blame
    needs: frozenset[Need]

    def run(self, context: AloneContext) -> Rung: ...

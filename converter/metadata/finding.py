"""What a search for a fault found, and what it may know: the file, the options, the source."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from tritpack.converter.metadata.draft import Draft
from tritpack.converter.metadata.expected_types import refuse_wrong_types
from tritpack.formats.errors import UsageError, locating
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import ModelSpec

FIXED, LEFT, UNPROVED = "fixed", "left", "unproved"

LLAMA3_MARKS = frozenset(("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
"""Tokens that Llama 3's vocabulary has, and no other kind."""
KNOWN_SHAPES = {
    (2560, 6912, 30): ("relu2", "microsoft/bitnet-b1.58-2B-4T"),
    (1536, 4096, 24): ("silu", "1bitLLM/bitnet_b1_58-large"),
    (2048, 5460, 24): ("silu", "1bitLLM/bitnet_b1_58-xl"),
    (3200, 8640, 26): ("silu", "1bitLLM/bitnet_b1_58-3B"),
}
"""(hidden size, intermediate size, layers) of the BitNet models with sub-norms that were published -> `hidden_act` in
their config.json, and their repository."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault. found: what is wrong. done: what becomes of it, or why nobody can know. status: FIXED, LEFT or UNPROVED.
    hint: what to do about a fault that stays. fix: the name of the fault, which the table gives."""

    status: str
    found: str
    done: str
    hint: str | None = None
    fix: str = ""


class Knowledge:
    """What is known of a model besides its file. source: see fix_metadata. findings: so far."""

    def __init__(self, draft: Draft, source: str | Path | None, activation: str | None, read_as: str | None) -> None:
        self._draft = draft
        self._source = source
        self.activation = activation
        self.read_as = read_as
        self.findings: list[Finding] = []
        refuse_wrong_types(draft.metadata, draft.file.path)

    @property
    def has_source(self) -> bool:
        return self._source is not None

    @functools.cached_property
    def source(self) -> Any:
        """The model of the source (SourceModel); its weights are read when they are asked for.

        Raises UsageError if it is another model, and what opening it raises.
        """
        from tritpack.converter.sources.open import open_source
        from tritpack.converter.sources.source_model import from_checkpoint, from_gguf

        assert self._source is not None
        opened = open_source(self._source, remote=True)
        model = from_gguf(opened) if isinstance(opened, GgufFile) else from_checkpoint(opened, None, None)
        refuse_wrong_types(model.metadata, self._source)
        self._refuse_another(model.spec, model.metadata)
        return model

    @functools.cached_property
    def order_of_source(self) -> str:
        """In which order of bytes the file has the codes of the source: see source_codes. Raises UsageError if it has
        them in none."""
        from tritpack.converter.metadata.source_codes import order_of_source

        with locating(path=self._source):
            return order_of_source(self._draft.file, self.source.tensors, self.read_as)

    def _refuse_another(self, spec: ModelSpec, metadata: dict[str, Any]) -> None:
        theirs = (spec.hidden_size, spec.intermediate_size, spec.layers)
        if self.shape != theirs:
            raise UsageError(
                f"is another model: hidden size, ffn and layers are {theirs}, those of the file are {self.shape}",
                path=self._source,
            )
        ours = self._draft.metadata.get("tokenizer.ggml.tokens")
        tokens = metadata.get("tokenizer.ggml.tokens")
        if ours is None or tokens is None:
            return
        if (wrong := next((i for i, pair in enumerate(zip(ours, tokens)) if pair[0] != pair[1]), None)) is not None:
            raise UsageError(f"has another tokenizer: the first token that differs has id {wrong}", path=self._source)

    @property
    def architecture(self) -> str:
        return str(self._draft.metadata.get("general.architecture"))

    @property
    def is_bitnet(self) -> bool:
        return self.architecture in ("bitnet", "bitnet-25", "bitnet-b1.58")

    @property
    def shape(self) -> tuple[Any, ...]:
        """Hidden size, intermediate size and layers; None for what is not one number."""
        keys = ("embedding_length", "feed_forward_length", "block_count")
        values = (self._draft.metadata.get(f"{self.architecture}.{key}") for key in keys)
        return tuple(value if isinstance(value, int) else None for value in values)

    @functools.cached_property
    def is_llama3_vocabulary(self) -> bool:
        metadata = self._draft.metadata
        tokens = metadata.get("tokenizer.ggml.tokens")
        return metadata.get("tokenizer.ggml.model") == "gpt2" and LLAMA3_MARKS.issubset(tokens or ())

"""One vector per text: pooling and normalisation, as sentence-transformers does them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.arrays import F32
from tritpack.formats.errors import CheckFailed, Unreadable, UsageError

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

KEY_APPEND = "tritpack.embedding.append_token_id"


def text_ids(model: Model, text: str) -> list[int]:
    """Token ids of a text for embedding: the tokenizer's, and after them the token whose state the model was trained to
    read, if the tokenizer does not add it by itself. Raises Unreadable if the file's value is not a token id."""
    ids = model.tokenizer.encode(text)
    last = model.file.metadata.get(KEY_APPEND)
    if last is None or (ids and ids[-1] == last):
        return ids
    if not isinstance(last, int) or not 0 <= last < model.spec.vocab_size:
        raise Unreadable(f"metadata key {KEY_APPEND} is {last!r}, expected a token id", path=model.file.path)
    return [*ids, last]


def embed(model: Model, tokens: Sequence[int], *, pooling: str | None = None, normalize: bool = True) -> F32:
    """The embedding, float32 (hidden,), of a sequence of tokens.

    pooling: `last`, `mean` or `cls`; None takes the model's own. normalize: scale the vector to length 1.
    Raises UsageError if neither the model nor the caller names a pooling, CheckFailed for states that are not numbers.
    """
    how = pooling or model.spec.pooling
    if how == "none":
        raise UsageError(
            "names no pooling, as embedding models do: how positions become one vector has to be said",
            path=model.file.path,
            hint="give --pooling last, mean or cls",
        )
    states = model.hidden(tokens)
    vector: F32 = {"last": states[-1], "cls": states[0], "mean": states.mean(0, dtype=np.float32)}[how]
    if not np.isfinite(vector).all():
        raise CheckFailed(
            "the hidden states are not numbers", path=model.file.path, hint="run tritpack verify on the file"
        )
    length = np.sqrt(np.square(vector, dtype=np.float64).sum())
    return (vector / max(length, 1e-12)).astype(np.float32) if normalize else vector

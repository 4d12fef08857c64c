"""One vector a text: pooling and normalisation, as sentence-transformers does them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tritpack.formats.errors import CheckFailed, Unreadable, UsageError
from tritpack.runtime.model import Model

F32 = npt.NDArray[np.float32]
KEY_APPEND = "tritpack.embedding.append_token_id"


def text_ids(model: Model, text: str) -> list[int]:
    """Token ids of a text for embedding: as the tokenizer has it, and behind it the token whose state the model was
    trained to read, if the tokenizer does not add it by itself. Raises Unreadable if the file names no token there."""
    ids = model.tokenizer.encode(text)
    last = model.file.metadata.get(KEY_APPEND)
    if last is None or (ids and ids[-1] == last):
        return ids
    if not isinstance(last, int) or not 0 <= last < model.spec.vocab_size:
        raise Unreadable(f"{model.file.path}: metadata key {KEY_APPEND} is {last!r}, expected a token id")
    return [*ids, last]


def embed(model: Model, tokens: Sequence[int], *, pooling: str | None = None, normalize: bool = True) -> F32:
    """The embedding, float32 (hidden,), of a sequence of tokens.

    pooling: `last`, `mean` or `cls`; None is the model's own. normalize: to length 1. Raises UsageError if neither the
    model nor the caller names a pooling, CheckFailed for states that are not numbers.
    """
    how = pooling or model.spec.pooling
    if how == "none":
        raise UsageError(
            f"{model.file.path}: is no embedding model (it names no pooling)", hint="give --pooling last, mean or cls"
        )
    states = model.hidden(tokens)
    vector: F32 = {"last": states[-1], "cls": states[0], "mean": states.mean(0, dtype=np.float32)}[how]
    if not np.isfinite(vector).all():
        raise CheckFailed(f"{model.file.path}: the hidden states are not numbers; run tritpack verify on the file")
    length = np.sqrt(np.square(vector, dtype=np.float64).sum())
    return (vector / max(length, 1e-12)).astype(np.float32) if normalize else vector

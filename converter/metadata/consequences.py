"""What an edit of metadata means for programs that run the file: whether they can, and what they would compute."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tritpack.converter.metadata.draft import Draft
from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import ModelSpec

ARCHITECTURE = "general.architecture"
VOCABULARY = ("tokenizer.ggml.", "tritpack.tokenizer.")


def with_metadata(draft: Draft) -> GgufFile:
    """Return the file as it will be read, with the metadata of the draft; nothing is written."""
    file = copy.copy(draft.file)
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in draft.metadata.items()}
    vars(file)["metadata"] = values
    return file


def consequences(draft: Draft) -> Iterator[str]:
    """Yield a sentence for each thing that ran or was computed in one way before the edits and is not after them."""
    changed = [change.key for change in draft.changes()]
    before, after = _spec(draft.file), _spec(with_metadata(draft))
    if isinstance(before, ModelSpec) and isinstance(after, TritpackError):
        yield f"the model cannot be run after this change: {after.without_path}"
    elif ARCHITECTURE in changed and not isinstance(after, ModelSpec):
        yield f"{ARCHITECTURE} decides how every program reads the file, and its keys are named after it"
    elif isinstance(before, ModelSpec) and isinstance(after, ModelSpec):
        yield from _differences(before, after)
    if any(key.startswith(VOCABULARY) for key in changed):
        error = _tokenizer_error(draft.metadata)
        if error is not None and _tokenizer_error(draft.file.metadata) is None:
            yield f"the tokenizer cannot be used after this change: {error.without_path}"


def _differences(before: ModelSpec, after: ModelSpec) -> Iterator[str]:
    from tritpack.converter.verify.compare.specs import differing_fields

    for field, ours, theirs in differing_fields(before, after):
        if field == "context_length":
            yield f"the model was made for {ours} tokens, and programs will allow {theirs}"
        elif field == "rotation" and theirs is None:
            yield f"without these keys nothing says that the weights are rotated ({ours}), and the model talks nonsense"
        else:
            yield f"this is another model after the change: {field} was {ours!r}, and is {theirs!r}"


def _spec(file: GgufFile) -> ModelSpec | TritpackError:
    try:
        return model_metadata.from_gguf(file)
    except TritpackError as error:
        return error


def _tokenizer_error(metadata: Mapping[str, Any]) -> TritpackError | None:
    from tritpack.runtime.tokenizer import Tokenizer

    try:
        Tokenizer.from_metadata(metadata)
    except TritpackError as error:
        return error
    return None

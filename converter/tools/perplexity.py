"""`tritpack perplexity`: perplexity of a file on a text, and its divergence from a second file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tritpack.converter.verify.built_in_text import read_text
from tritpack.formats.errors import UsageError
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import score, windows_of

SCHEMA = "tritpack.perplexity/1"


def perplexity(
    file: str | Path,
    *,
    text: str | Path | None = None,
    against: str | Path | None = None,
    window: int = 512,
    skip: int = 0,
    threads: int | None = None,
    isa: str | None = None,
    kv_type: str = "f32",
    context: int | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Score a text, and return what `tritpack perplexity --json` prints.

    text: a UTF-8 file; None takes a built-in text. against: a second file, whose predictions are compared with those of
    `file`. window: tokens evaluated together. skip: positions of each window that only give context. progress: called
    with "", the windows done and their number. The other arguments are those of Model.
    Raises Unreadable, Unsupported for an embedding model, UsageError for two vocabularies or a text that is too short.
    """
    words = read_text(text)
    options: dict[str, Any] = {"threads": threads, "isa": isa, "kv_type": kv_type, "context": context}
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(Model(file, **options))
        model.require_logits()
        base = None if against is None else stack.enter_context(Model(against, **options))
        if base is not None:
            _require_comparable(model, base)
        tokens = model.tokenize(words)
        bos = model.tokenizer.bos_id if tokens[:1] == [model.tokenizer.bos_id] else None
        size = min([window, model.context_length, *([] if base is None else [base.context_length])])
        figures = score(model, windows_of(tokens, size, bos), skip=skip, base=base, progress=progress)
        kernels = model.kernels()
    return {
        "schema": SCHEMA,
        "file": str(file),
        "text": None if text is None else str(text),
        "tokens": len(tokens),
        "window": size,
        "skip": skip,
        **figures,
        **({} if against is None else {"against": str(against)}),
        "kernels": kernels,
    }


def _require_comparable(model: Model, base: Model) -> None:
    base.require_logits()
    if base.spec.vocab_size != model.spec.vocab_size:
        raise UsageError(
            f"has a vocabulary of {base.spec.vocab_size}, and {model.file.path} one of {model.spec.vocab_size}: "
            "their predictions cannot be compared",
            path=base.file.path,
        )

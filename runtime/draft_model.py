"""A smaller model that guesses for a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tritpack.formats.errors import UsageError
from tritpack.runtime.generate import common_prefix

if TYPE_CHECKING:
    from tritpack.runtime.model import Model


class ModelDraft:
    """Guesses what a draft model finds likeliest.

    model: nothing else may use it meanwhile. target: the model whose tokens are guessed. Raises UsageError unless both
    have the same vocabulary.
    """

    def __init__(self, model: Model, target: Model) -> None:
        if not model.tokenizer.has_tokens_of(target.tokenizer):
            raise UsageError(
                f"has another vocabulary than {target.file.path.name}, so it cannot guess its tokens",
                path=model.file.path,
                hint="a draft model is a smaller model of the same family",
            )
        model.require_logits()
        self._model = model

    def guess(self, history: Sequence[int], most: int) -> list[int]:
        model = self._model
        known = min(common_prefix(model.tokens, history), len(history) - 1)
        if known < len(model.tokens):
            model.rewind(known)
        pending, guesses = list(history[known:]), list[int]()
        for _ in range(min(most, model.context_length - len(history))):
            guesses.append(int(model.eval(pending).argmax()))
            pending = guesses[-1:]
        return guesses

"""The options of `generate` as a request: what a user says in words, for the model that gets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tritpack.formats.errors import UsageError
from tritpack.runtime.chat import Message, chat_ids
from tritpack.runtime.continuation import Request
from tritpack.runtime.grammar import constraint_for

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

MOST_LOGPROBS = 100


def make_request(
    model: Model,
    prompt: str | None = None,
    *,
    tokens: Sequence[int] | None = None,
    messages: Sequence[Message] | None = None,
    chat: bool = False,
    system: str | None = None,
    max_tokens: int = 64,
    no_special: bool = False,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    json_schema: str | Mapping[str, Any] | None = None,
    grammar: str | None = None,
    **sampling: Any,
) -> Request:
    """Return the request for a prompt, token ids used as given, or the messages of a chat.

    chat: the prompt is a user's message. system: a system message before it, which makes it one. no_special: do not add
    the specials that the tokenizer adds to a prompt. stop: texts that end the answer and are left out. logprobs: how
    many of the likeliest tokens come with each token. json_schema, grammar: see `constraint_for`. sampling: temp,
    top_k, top_p, min_p, repeat_penalty, seed; None takes what the file says.
    Raises UsageError for anything impossible, Unsupported for a chat with a model that has no template.
    """
    if [prompt, tokens, messages].count(None) != 2:
        raise UsageError("give either a prompt or tokens" if messages is None else "give either a prompt or messages")
    if logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS:
        raise UsageError(f"logprobs must be between 0 and {MOST_LOGPROBS}, not {logprobs}")
    if tokens is not None and (chat or system is not None):
        raise UsageError("token ids are used as given: a chat template needs a prompt")
    if prompt is not None and (chat or system is not None):
        messages = [{"role": "user", "content": prompt}]
    if messages is not None:
        first: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        tokens = chat_ids(model.tokenizer, [*first, *messages])
    if tokens is None:
        tokens = model.tokenize(prompt, no_special=no_special)
    return Request(
        tokens,
        max_tokens,
        model.sampling_params(**sampling),
        stop_strings=tuple(stop),
        top_logprobs=logprobs,
        constraint=constraint_for(model.tokenizer, json_schema=json_schema, grammar=grammar),
        speculation=model.speculation(),
    )

"""Tokens and their log-probabilities as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tritpack.runtime.continuation import TokenLogprob
from tritpack.runtime.text_stream import Utf8Stream
from tritpack.runtime.tokenizer import Tokenizer


def piece(tokenizer: Tokenizer, token: int) -> str:
    """Return a token as text; one that is part of a character is `bytes:\\xe2\\x80`, as OpenAI writes it."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def detailed(tokenizer: Tokenizer, tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Return tokens as chat completions and responses list them."""
    return [
        _entry(tokenizer, token.id, token.logprob)
        | {"top_logprobs": [_entry(tokenizer, *likely) for likely in token.top]}
        for token in tokens
    ]


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    return {"token": piece(tokenizer, token), "logprob": logprob, "bytes": list(tokenizer.token_bytes(token))}


class LegacyLogprobs:
    """The `logprobs` of /v1/completions, filled token by token. `text_offset` counts characters of the text, in which
    control tokens are not written."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = Utf8Stream()
        self._offset = 0

    def listed(self, tokens: Sequence[TokenLogprob], first: int | None = None) -> dict[str, Any]:
        """Return entries for the next tokens. first: a token before them, which nothing precedes."""
        entries: list[tuple[int, float | None, Any]] = [] if first is None else [(first, None, None)]
        for token in tokens:
            top = {piece(self._tokenizer, i): logprob for i, logprob in [*token.top, (token.id, token.logprob)]}
            entries.append((token.id, token.logprob, top))
        return {
            "tokens": [piece(self._tokenizer, token) for token, _, _ in entries],
            "token_logprobs": [logprob for _, logprob, _ in entries],
            "top_logprobs": [top for _, _, top in entries],
            "text_offset": [self._place(token) for token, _, _ in entries],
        }

    def _place(self, token: int) -> int:
        """Where a token begins in the text, and the next one after it."""
        place = self._offset
        written = b"" if self._tokenizer.is_control(token) else self._tokenizer.token_bytes(token)
        self._offset += len(self._stream.feed(written))
        return place

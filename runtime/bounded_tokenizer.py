"""A tokenizer of the `tokenizers` library in the process of untrusted.py, where nothing that a file asks for can hang,
abort or fill the memory of this one."""

from __future__ import annotations

import itertools
import json
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tritpack.formats.errors import Unreadable
from tritpack.runtime.untrusted import WORKER, Stopped

SECONDS_PER_DOCUMENT_BYTE = 2e-6
"""CPU time for a vocabulary, which is as long as the file makes it."""
MOST_TOKENS = 128
"""Per character of a text: the longest normal form has 18 characters of 3 bytes, and each byte may be a token."""

_KEYS = itertools.count()


class Encoding(NamedTuple):
    """The result of `BoundedTokenizer.encode`."""

    ids: list[int]


class AddedToken(NamedTuple):
    """A token that is found in a text before it is split."""

    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class BoundedTokenizer:
    """A `tokenizers.Tokenizer` with the methods that are needed here, under the names that the library gives them.

    Each of them raises Unreadable, with the path, where the tokenizer fails or exceeds a limit.
    """

    def __init__(self, document: str, path: str | os.PathLike[str] | None = None) -> None:
        """Build the tokenizer of a tokenizer.json. path: the file that it comes from, for errors.

        Raises ValueError if the library does not take it.
        """
        self.path = path
        self.encode_special_tokens = False
        self._key = next(_KEYS)
        self._document_seconds = len(document) * SECONDS_PER_DOCUMENT_BYTE
        self._made_in = 0
        self._steps: list[tuple[str, tuple[Any, ...]]] = []  # that made it what it is, for another process
        self._stopped = ""
        self._document: dict[str, Any] | None = None
        weakref.finalize(self, WORKER.drop, self._key).atexit = False
        self._change("build", document)

    def encode(self, text: str, add_special_tokens: bool = True) -> Encoding:
        """Return the token ids of a text."""
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[Encoding]:
        """Return the token ids of every text."""
        characters = sum(map(len, texts))
        most = MOST_TOKENS * (characters + 8 * len(texts))
        arguments = (list(texts), add_special_tokens, self.encode_special_tokens, most)
        return [Encoding(ids) for ids in self._call("encode", *arguments, characters=characters)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, that of special tokens included."""
        listed = list(ids)
        text: str = self._call("decode", listed, characters=4 * len(listed))
        return text

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token, None if the vocabulary lacks it."""
        return self.tokens_to_ids([token])[0]

    def tokens_to_ids(self, tokens: Sequence[str]) -> list[int | None]:
        """Return the id of every token, None for one that the vocabulary lacks."""
        ids: list[int | None] = self._call("ids_of", list(tokens))
        return ids

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Return the ids by token, as its tokenizer.json has them: a second vocabulary takes long to send."""
        document = self.document()
        ids: dict[str, int] = document["model"]["vocab"]
        return ids | {token["content"]: token["id"] for token in document["added_tokens"] if with_added_tokens}

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Return the added tokens by id."""
        return {int(i): AddedToken(*fields) for i, fields in self._call("added").items()}

    def to_str(self) -> str:
        """Return its tokenizer.json."""
        document: str = self._call("document", seconds=self._document_seconds)
        return document

    def document(self) -> dict[str, Any]:
        """Return its tokenizer.json, parsed, which is kept until the tokenizer changes: callers change a copy."""
        if self._document is None:
            self._document = json.loads(self.to_str())
        return self._document

    def split(self, texts: Sequence[str]) -> list[list[str]] | None:
        """Return the pieces of every text by the pre-tokenizer, None if there is no pre-tokenizer."""
        pieces: list[list[str]] | None = self._call("split", list(texts), characters=sum(map(len, texts)))
        return pieces

    def without_truncation_and_padding(self) -> BoundedTokenizer:
        """Turn both off, and return the tokenizer."""
        self._change("whole")
        return self

    def add_tokens(self, tokens: Sequence[dict[str, Any]]) -> None:
        """Add tokens, given as fields of `AddedToken`."""
        self._change("add", "add_tokens", list(tokens))

    def add_special_tokens(self, tokens: Sequence[dict[str, Any]]) -> None:
        """Add special tokens, given as fields of `AddedToken`."""
        self._change("add", "add_special_tokens", list(tokens))

    def set_part(self, part: str, value: dict[str, Any] | None) -> None:
        """Replace the normalizer, pre_tokenizer, post_processor or decoder by that part of a tokenizer.json."""
        self._change("set_part", part, value)

    def _change(self, operation: str, *arguments: Any) -> None:
        self._call(operation, *arguments, seconds=self._document_seconds)
        self._steps.append((operation, arguments))
        self._document = None

    def _call(self, operation: str, *arguments: Any, characters: int = 0, seconds: float = 0.0) -> Any:
        if self._stopped:
            raise Stopped(self._stopped, path=self.path)
        try:
            with WORKER.lock:
                if self._made_in != (start := WORKER.start()):
                    for step, its_arguments in self._steps:
                        self._request(step, its_arguments, 0, self._document_seconds)
                    self._made_in = start
                return self._request(operation, arguments, characters, seconds)
        except Unreadable as error:
            self._stopped = error.message if isinstance(error, Stopped) else ""
            error.path = self.path
            raise
        except ValueError as error:
            if operation == "build":
                raise
            raise Unreadable(f"the tokenizer fails: {error}", path=self.path) from error

    def _request(self, operation: str, arguments: tuple[Any, ...], characters: int, seconds: float) -> Any:
        return WORKER.request("the tokenizer", operation, self._key, *arguments, characters=characters, seconds=seconds)

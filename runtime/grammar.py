"""Constraints on what a model may write: a JSON schema or a grammar, by the library llguidance.

They are what continuation.py calls a Constraint.

The library is optional (extra `grammar`). A constraint masks logits before a token is chosen, and follows the tokens
that are chosen.
"""

from __future__ import annotations

import importlib
import json
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from tritpack.formats.arrays import F32
from tritpack.formats.errors import MissingRequirement, Unsupported, UsageError
from tritpack.runtime.tokenizer import Tokenizer

ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as json.dumps writes it: a model that may write blanks anywhere often writes them without end. A schema can say
otherwise under "x-guidance", which is llguidance's own key."""
SPECIAL = b"\xff"
"""What llguidance wants before the text of a control token: no text contains this byte."""

_vocabularies: weakref.WeakKeyDictionary[Tokenizer, Any] = weakref.WeakKeyDictionary()


class _Vocabulary:
    """A tokenizer as llguidance asks for it: the bytes of every token, and a function that gives the ids of a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = weakref.proxy(tokenizer)
        ends = sorted(tokenizer.stop_ids)
        self.eos_token_id, self.bos_token_id = ends[0], tokenizer.bos_id
        self.special_token_ids = [i for i in range(tokenizer.vocab_size) if tokenizer.is_control(i)]
        self.tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        for i in self.special_token_ids:
            self.tokens[i] = SPECIAL + self.tokens[i]

    def __call__(self, text: bytes | str) -> list[int]:
        text = text if isinstance(text, str) else text.decode("utf-8", errors="replace")
        ids: list[int] = self._tokenizer.encode(text, add_special=False)
        return ids


class GrammarConstraint:
    """A `Constraint` of continuation.py, by llguidance. Raises UsageError for a grammar that it does not take."""

    def __init__(self, library: Any, vocabulary: Any, grammar: str, name: str) -> None:
        self._name = name
        self._matcher = library.LLMatcher(vocabulary, grammar, log_level=0)
        self._check()

    def copy(self) -> GrammarConstraint:
        """Return a constraint for another text, at the place where this one is, without compiling the grammar again."""
        other = object.__new__(GrammarConstraint)
        other._name, other._matcher = self._name, self._matcher.deep_copy()
        return other

    @property
    def finished(self) -> bool:
        return bool(self._matcher.is_stopped())

    def mask(self, logits: F32) -> F32:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little", count=min(8 * len(bits), len(logits))).astype(bool)
        masked = np.full_like(logits, -np.inf)
        masked[: len(allowed)][allowed] = logits[: len(allowed)][allowed]
        return masked

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        """Raise UsageError if the library gave up on the grammar."""
        if self._matcher.is_error():
            lines = [line.strip() for line in self._matcher.get_error().splitlines() if line.strip()]
            raise UsageError(f"the {self._name} cannot be used: {' '.join(lines)[:300]}")


def constraint_for(
    tokenizer: Tokenizer, *, json_schema: str | Mapping[str, Any] | None = None, grammar: str | None = None
) -> GrammarConstraint | None:
    """Return a new constraint for one answer, None if neither a schema nor a grammar is given.

    json_schema: JSON text or an object; {} is any JSON. grammar: GBNF, as llama.cpp has it, or llguidance's Lark.
    Raises UsageError for both at once and for text that is neither, MissingRequirement without llguidance, Unsupported
    for a file without an end token.
    """
    if json_schema is None and grammar is None:
        return None
    if json_schema is not None and grammar is not None:
        raise UsageError("give either a JSON schema or a grammar, not both")
    library = _library()
    if json_schema is not None:
        name, text = "JSON schema", _of_schema(library, json_schema)
    else:
        name, text = "grammar", _of_grammar(library, grammar or "")
    return GrammarConstraint(library, _vocabulary(library, tokenizer), text, name)


def _library() -> Any:
    try:
        return importlib.import_module("llguidance")
    except ImportError as error:
        message = "JSON schemas and grammars need llguidance, which is not installed"
        raise MissingRequirement(message, hint='pip install "tritpack[grammar]"') from error


def _vocabulary(library: Any, tokenizer: Tokenizer) -> Any:
    """The tokenizer for llguidance, which takes a second to build for a large vocabulary and is kept."""
    if tokenizer not in _vocabularies:
        if not tokenizer.stop_ids:
            raise Unsupported(
                "the file names no token that ends a text, which a JSON schema or grammar needs", path=tokenizer.path
            )
        wrapped = library.TokenizerWrapper(_Vocabulary(tokenizer))
        _vocabularies[tokenizer] = library.LLTokenizer(wrapped, eos_token=sorted(tokenizer.stop_ids))
    return _vocabularies[tokenizer]


def _of_schema(library: Any, schema: str | Mapping[str, Any]) -> str:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the JSON schema is not valid JSON ({error})") from error
    if not isinstance(schema, Mapping):
        raise UsageError(f"the JSON schema is {json.dumps(schema)[:40]}, expected an object")
    try:
        text = library.LLMatcher.grammar_from_json_schema(json.dumps(dict(schema)), defaults=ONE_LINE)
    except (ValueError, TypeError) as error:
        raise UsageError(f"the JSON schema cannot be used: {error}") from error
    return str(text)


def _of_grammar(library: Any, grammar: str) -> str:
    try:
        return str(library.grammar_from("grammar", grammar))
    except Exception as error:  # its parser of GBNF raises whatever its code meets
        raise UsageError(f"the grammar is neither GBNF nor Lark: {' '.join(str(error).split())[:300]}") from error

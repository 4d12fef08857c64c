"""A second reader of tokenizer.model: the package sentencepiece makes the ids, and no merges are rebuilt."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tritpack.converter.verify.oracle.tokenizer import (
    Chat,
    added_tokens,
    around,
    json_object,
    stated_tokens,
    template_of,
    texts_by_name,
)
from tritpack.converter.verify.oracle.tokenizer_rules import rules_of
from tritpack.formats.errors import MissingRequirement, Unreadable
from tritpack.formats.inputs import read_input

_WITHOUT_PREFIX = b"\x1a\x02\x18\x00"
"""normalizer_spec { add_dummy_prefix: false }: of a protocol buffer's fields, the last one counts."""
_BLANK = "\u2581"
_ALWAYS = "BitnetTokenizer"
"""1bitLLM's class: its settings say `legacy: false`, its tokenizer.json has the blank after every special token."""


class SentencePieceTokenizer:
    """tokenizer.model of a folder, with the added tokens that the files beside it list.

    Raises Unreadable for a file that is not such a model, MissingRequirement without the package.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], vocab_size: int) -> None:
        settings = json_object(folder / "tokenizer_config.json")
        rules = rules_of({}, settings, config)
        self._model, has_prefix = _open(folder / "tokenizer.model")
        pieces = [self._model.id_to_piece(i) for i in range(self._model.get_piece_size())]
        ids = {name: getattr(self._model, f"{name}_id")() for name in ("bos", "eos", "unk", "pad")}
        defaults = {**rules.names, **{f"{name}_token": pieces[i] for name, i in ids.items() if i >= 0}}
        control = {i: _control(i, piece) for i, piece in enumerate(pieces) if self._model.is_control(i)}
        names, flags, wanted = stated_tokens(folder, settings, defaults, {})
        self.special_tokens = texts_by_name(names)
        vocabulary = {piece: i for i, piece in enumerate(pieces)}
        table = added_tokens(vocabulary, control, flags, wanted, rules)
        table = {i: token for i, token in table.items() if i < vocab_size}
        if settings.get("split_special_tokens"):
            table = {i: token for i, token in table.items() if not token["special"]}
        self.specials = [table[i]["content"] for i in sorted(table)]
        self._by_class = rules.name == "LlamaTokenizer"
        later = {i for i, token in table.items() if token["normalized"] and self._by_class}
        self._first_cuts = _Cuts([token for i, token in table.items() if i not in later])
        self._later_cuts = _Cuts([token for i, token in table.items() if i in later])
        first_only = settings.get("legacy") is False and settings.get("tokenizer_class") != _ALWAYS
        self._place = "first" if first_only else "always"
        if self._by_class:
            self._place = rules.parts["pre_tokenizer"]["prepend_scheme"]
        elif not has_prefix or settings.get("add_prefix_space") is False:
            self._place = "never"
        ids_by_text = {**vocabulary, **{token["content"]: i for i, token in table.items()}}
        self._around = around(settings, self.special_tokens, ids_by_text.get, bos=rules.name is None)
        self.name = "tokenizer.model by sentencepiece"
        self.template = template_of(folder, settings)

    def ids(self, texts: Sequence[str], add_special: bool) -> list[list[int]]:
        before, after = self._around if add_special else ([], [])
        return [[*before, *self._inner(text), *after] for text in texts]

    def chat(self, messages: Chat) -> str | None:
        return None

    def _inner(self, text: str) -> Iterator[int]:
        for at, part, token in self._first_cuts.of(text):
            if token is not None:
                yield token
                continue
            for inner_at, inner, inner_token in self._later_cuts.of(part):
                if inner_token is not None:
                    yield inner_token
                else:
                    yield from self._model.encode(self._prefixed(inner, at + inner_at))

    def _prefixed(self, text: str, at: int) -> str:
        wanted = self._place == "always" or (self._place == "first" and at == 0)
        return f" {text}" if wanted and not (self._by_class and text.startswith((" ", _BLANK))) else text


def _open(path: Path) -> tuple[Any, bool]:
    """The model without its blank before a text, and whether it has one."""
    try:
        library = importlib.import_module("sentencepiece")
    except ImportError as error:
        message = "reading tokenizer.model needs the Python package sentencepiece, which is not installed"
        raise MissingRequirement(message, hint="pip install sentencepiece") from error
    data = read_input(path)
    try:
        usual = library.SentencePieceProcessor(model_proto=data)
        bare = library.SentencePieceProcessor(model_proto=data + _WITHOUT_PREFIX)
        return bare, usual.encode("a") != bare.encode("a")
    except (RuntimeError, ValueError, TypeError) as error:
        raise Unreadable("it is not a sentencepiece model, or is incomplete", path=path) from error


def _control(token_id: int, piece: str) -> dict[str, Any]:
    return {"id": token_id, "content": piece, "special": True, "normalized": False}


class _Cuts:
    """What finds added tokens in a text, the longest first, with the blanks around them that they take."""

    def __init__(self, tokens: Sequence[Mapping[str, Any]]) -> None:
        tokens = sorted((token for token in tokens if token["content"]), key=lambda token: -len(token["content"]))
        self._ids = [int(token["id"]) for token in tokens]
        self._pattern = re.compile("|".join(f"({_way(token)})" for token in tokens)) if tokens else None

    def of(self, text: str) -> Iterator[tuple[int, str, int | None]]:
        """Yield (place, part, id) of each part of a text; None for what is not a token."""
        end = 0
        for found in self._pattern.finditer(text) if self._pattern else ():
            if found.start() > end:
                yield end, text[end : found.start()], None
            assert found.lastindex is not None
            yield found.start(), found.group(), self._ids[found.lastindex - 1]
            end = found.end()
        if end < len(text):
            yield end, text[end:], None


def _way(token: Mapping[str, Any]) -> str:
    way = re.escape(token["content"])
    way = rf"(?<!\w){way}(?!\w)" if token.get("single_word") else way
    return (r"\s*" if token.get("lstrip") else "") + way + (r"\s*" if token.get("rstrip") else "")

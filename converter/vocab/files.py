"""Loader of the tokenizer in a checkpoint folder, from whichever files contain it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tritpack.converter.vocab.bytelevel import load_vocab_and_merges
from tritpack.converter.vocab.spm import load_sentencepiece
from tritpack.formats.errors import Unreadable, Unsupported, locating
from tritpack.formats.inputs import read_input
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.pretokenizers import surrounding
from tritpack.runtime.tokenizer import ADDED_TOKEN_DEFAULTS

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclasses.dataclass
class Loaded:
    """A tokenizer read from files."""

    path: Path  # the main file, which errors name
    settings: dict[str, Any]  # tokenizer_config.json
    specials: dict[str, str | None]  # the text of bos_token, eos_token, ...
    backend: BoundedTokenizer  # of kind BPE
    scores: dict[str, float] | None = None  # piece -> score, of a sentencepiece model


def load(folder: Path) -> Loaded:
    """Load the tokenizer of `folder`: tokenizer.json, else tokenizer.model, else vocab.json and merges.txt.

    Raises Unreadable for files that are missing or contradictory, Unsupported for another kind than BPE.
    """
    settings, special_map = (read_json(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json"))
    stated = {**special_map, **settings}  # a null in tokenizer_config.json wins: it means that there is none
    special_texts = _special_texts(stated, special_map)
    added = _added_tokens(folder, settings, special_texts)
    kinds = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    path = folder / next((name for name in kinds if (folder / name).is_file()), "tokenizer.json")
    scores = None
    if path.name == "tokenizer.model":
        marks = {*special_texts, *(fields["content"] for fields in added.values() if fields.get("special"))}
        model = load_sentencepiece(path, settings, marks)
        backend, scores, stated = model.backend, model.scores, {**model.names, **stated}
    elif path.name == "vocab.txt":
        raise Unsupported("the tokenizer is of kind WordPiece; only BPE is supported", path=path)
    elif path.name == "vocab.json":
        backend = load_vocab_and_merges(path, settings)
    else:
        backend = _load_json(path)
    _add_missing(backend, folder, added, special_texts)
    specials = {name: _text(stated.get(name)) for name in _NAMES}
    if path.name != "tokenizer.json":
        # These files do not say what goes around a text. Sentencepiece's classes add a BOS, the others nothing.
        _surround(backend, specials, {"add_bos_token": scores is not None, **settings})
    return Loaded(path, settings, specials, backend, scores)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, or {} if there is no such file. Raises Unreadable."""
    if not path.exists():
        return {}
    try:
        value = json.loads(read_input(path))
    except (ValueError, RecursionError) as exc:
        raise Unreadable(f"cannot be read as JSON ({exc})", path=path) from exc
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object", path=path)
    return value


def _load_json(path: Path) -> BoundedTokenizer:
    if not path.is_file():
        raise Unreadable("does not exist", path=path, hint="download the repository with its tokenizer files")
    kind = read_json(path).get("model")
    kind = kind.get("type", "BPE" if "merges" in kind else None) if isinstance(kind, dict) else None
    if kind not in (None, "BPE"):
        raise Unsupported(f"the tokenizer is of kind {kind}; only BPE is supported", path=path)
    with locating(path=path):
        try:
            # Its text and not its path, which the library takes only as UTF-8.
            backend = BoundedTokenizer(read_input(path).decode("utf-8"))
        except ValueError as exc:
            raise Unreadable(f"the tokenizers library cannot read it ({exc})") from exc
        # Some repositories contain a tokenizer saved during training; transformers turns both off too.
        return backend.without_truncation_and_padding()


def _text(token: Any) -> str | None:
    """The text of a token, which is either a string or an object with flags."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _special_texts(stated: dict[str, Any], special_map: dict[str, Any]) -> list[str]:
    """Every text that the files beside the tokenizer call special, in transformers' order."""
    tokens = [stated.get(name) for name in _NAMES]
    for source in (stated, special_map):
        for key in ("additional_special_tokens", "extra_special_tokens"):  # the names in transformers 4 and 5
            more = source.get(key)
            more = list(more.values()) if isinstance(more, dict) else more
            tokens += more if isinstance(more, list) else []
    return [text for text in dict.fromkeys(map(_text, tokens)) if text]


def _added_tokens(folder: Path, settings: dict[str, Any], specials: list[str]) -> dict[int, dict[str, Any]]:
    """Content and flags, by id, of the tokens that added_tokens.json and tokenizer_config.json add."""
    added: dict[int, dict[str, Any]] = {}
    for text, token_id in read_json(folder / "added_tokens.json").items():
        special = text in specials
        fields = {"content": text, "special": special, "normalized": not special}
        added[_token_id(token_id, folder / "added_tokens.json")] = fields
    decoder = settings.get("added_tokens_decoder")
    for text, fields in decoder.items() if isinstance(decoder, dict) else ():
        token_id = _token_id(text, folder / "tokenizer_config.json")
        if isinstance(fields, dict) and isinstance(fields.get("content"), str):
            added[token_id] = fields
    return dict(sorted(added.items()))


def _token_id(value: Any, path: Path) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise Unreadable(f"{str(value)[:40]!r} is not a token id", path=path) from exc


def _add_missing(
    backend: BoundedTokenizer, folder: Path, added: dict[int, dict[str, Any]], specials: list[str]
) -> None:
    """Add the tokens that only the other files contain, in transformers' order: by id, then specials."""
    present = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token_id, fields in added.items():
        text, special = fields["content"], bool(fields.get("special"))
        if text not in present:
            flags = {flag: bool(fields[flag]) for flag in ADDED_TOKEN_DEFAULTS if flag in fields}
            (backend.add_special_tokens if special else backend.add_tokens)(
                [{"content": text, "special": special, **flags}]
            )
        if backend.token_to_id(text) != token_id:
            raise Unreadable(
                f"token {text!r} has id {token_id} in the files beside the tokenizer, and id "
                f"{backend.token_to_id(text)} in the tokenizer itself",
                path=folder,
            )
        present.add(text)
    for text in specials:
        if text not in present:
            backend.add_special_tokens([{"content": text, "special": True, "normalized": False}])


def _surround(backend: BoundedTokenizer, specials: dict[str, str | None], settings: dict[str, Any]) -> None:
    """Make the tokenizer add a BOS and an EOS to every text, where its settings ask for it."""
    sides: list[list[tuple[str, int]]] = []
    for key, name in (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")):
        text = specials[name] if settings.get(key) else None
        token_id = None if text is None else backend.token_to_id(text)
        sides.append([] if text is None or token_id is None else [(text, token_id)])
    if any(sides):
        backend.set_part("post_processor", surrounding(*sides))

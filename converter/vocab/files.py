"""Loader of the tokenizer in a checkpoint folder, from whichever files contain it, as AutoTokenizer loads it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritpack.converter.vocab.bytelevel import load_vocab_and_merges
from tritpack.converter.vocab.classes import TokenizerClass, class_of, rebuild
from tritpack.converter.vocab.json_files import read_json
from tritpack.converter.vocab.special_tokens import SpecialTokens, add_tokens, read_special_tokens, text_of
from tritpack.converter.vocab.spm import load_sentencepiece
from tritpack.formats.errors import Unreadable, Unsupported, locating
from tritpack.formats.inputs import read_input
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.pretokenizers import surrounding
from tritpack.runtime.untrusted import WORKER

LARGEST_ID = (1 << 24) - 1
"""Of a token; the largest vocabularies have 262,144."""


@dataclasses.dataclass
class Loaded:
    """A tokenizer read from files."""

    path: Path  # the main file, which errors name
    settings: dict[str, Any]  # tokenizer_config.json
    specials: dict[str, str]  # the text of bos_token, eos_token, ...
    backend: BoundedTokenizer  # of kind BPE
    scores: dict[str, float] | None  # piece -> score, of a sentencepiece model
    beside: list[str]  # tokens that only the files beside the tokenizer contain
    notes: list[str]  # what a user should know


def load(folder: Path, config: Mapping[str, Any]) -> Loaded:
    """Load the tokenizer of `folder`: tokenizer.json, else tokenizer.model, else vocab.json and merges.txt.

    config: config.json. Raises Unreadable for files that are missing or contradictory, Unsupported for another kind
    than BPE.
    """
    WORKER.start()  # which takes as long as parsing the files
    settings = read_json(folder / "tokenizer_config.json")
    kinds = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    path = folder / next((name for name in kinds if (folder / name).is_file()), "tokenizer.json")
    if path.name == "vocab.txt":
        raise Unsupported("the tokenizer is of kind WordPiece; only BPE is supported", path=path)
    document: dict[str, Any] = {}
    if path.name == "tokenizer.json":
        document = _read_document(path)
        backend = _load_json(path)  # the library checks every value of the document, which is used from here on
    pipeline = {part: value for part, value in document.items() if part not in ("model", "added_tokens")}
    kind = class_of(settings, config, '"ByteLevel"' in json.dumps(pipeline))
    padding = document.get("padding") or {}
    defaults = {
        **({"pad_token": padding["pad_token"]} if "pad_token" in padding else {}),
        **(kind.tokens if kind else {}),
    }
    special = read_special_tokens(folder, defaults, document.get("added_tokens", ()))
    scores: dict[str, float] | None = None
    notes: list[str] = []
    if path.name == "tokenizer.model":
        marks = {text for text in map(text_of, special.tokens) if text}
        marks |= {fields["content"] for fields in special.added.values() if fields.get("special")}
        model = load_sentencepiece(path, settings, marks)
        special = read_special_tokens(folder, {**defaults, **model.names})
        backend, scores = model.backend, model.scores
        if kind is not None and kind.name == "LlamaTokenizer":
            document = json.loads(backend.to_str())
            made, _ = rebuild(document, kind, settings, special.named)
            backend = _from_document({**made, "added_tokens": document["added_tokens"]}, path)
        else:
            for fields in special.added.values():  # sentencepiece looks for its symbols among visible spaces, and
                # the library would put the space before a text before each other token that it normalizes, too
                fields["normalized"] = "\u2581" in fields["content"]
            notes.append("tokenizer.model: its ids are sentencepiece's; transformers 5 may put blanks in other places")
    elif path.name == "vocab.json":
        backend = load_vocab_and_merges(path, settings, kind)
    elif kind is not None:
        backend, notes = _rebuilt(backend, document, kind, settings, special, path)
    new = add_tokens(backend, special, folder, plain=kind is not None and kind.plain_specials)
    if path.name != "tokenizer.json":
        # These files do not say what goes around a text. Sentencepiece itself adds a BOS, the classes add nothing.
        _surround(backend, special.named, {"add_bos_token": scores is not None and kind is None, **settings})
    beside = [text for text in new if text not in defaults.values()]
    return Loaded(path, settings, special.named, backend, scores, beside, notes)


def _rebuilt(
    backend: BoundedTokenizer,
    document: dict[str, Any],
    kind: TokenizerClass,
    settings: Mapping[str, Any],
    special: SpecialTokens,
    path: Path,
) -> tuple[BoundedTokenizer, list[str]]:
    """The tokenizer as its class builds it, and a sentence if that differs from what the file says."""
    listed = {token["id"]: token for token in document.get("added_tokens", ())}
    made, changed = rebuild(json.loads(backend.to_str()), kind, settings, special.named)
    texts, wanted = ({i: t["content"] for i, t in tokens.items()} for tokens in (listed, special.added))
    if not changed and texts == wanted:
        return backend, []
    parts = [name for name in changed if name != "decoder"]
    sentence = f"tokenizer.json: {kind.name} of transformers 5 does not use its {' and '.join(parts)}, so neither do we"
    return _from_document(made, path), [sentence] if parts else []


def _from_document(document: dict[str, Any], path: Path) -> BoundedTokenizer:
    return _bounded(json.dumps(document, ensure_ascii=False), path)


def _bounded(document: str, path: Path) -> BoundedTokenizer:
    with locating(path=path):
        try:
            return BoundedTokenizer(document, path)
        except ValueError as exc:
            raise Unreadable(f"the tokenizers library cannot read it ({exc})") from exc


def _read_document(path: Path) -> dict[str, Any]:
    """The JSON object of tokenizer.json. Raises Unsupported for another kind than BPE."""
    if not path.is_file():
        raise Unreadable("does not exist", path=path, hint="download the repository with its tokenizer files")
    document = read_json(path)
    model = document.get("model")
    kind = model.get("type", "BPE" if "merges" in model else None) if isinstance(model, dict) else None
    if kind not in (None, "BPE"):
        raise Unsupported(f"the tokenizer is of kind {kind}; only BPE is supported", path=path)
    _check_ids(document, path)
    return document


def _check_ids(document: Mapping[str, Any], path: Path) -> None:
    """Raise Unreadable for an id that no vocabulary reaches: the library visits every smaller one."""
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    for token, i in vocabulary.items() if isinstance(vocabulary, dict) else ():
        if isinstance(i, int) and i > LARGEST_ID:
            raise Unreadable(f"token {token[:60]!r} has the id {i}, and the largest is {LARGEST_ID}", path=path)


def _load_json(path: Path) -> BoundedTokenizer:
    try:
        # Its text and not its path, which the library takes only as UTF-8.
        document = read_input(path).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Unreadable(f"cannot be read as UTF-8 text ({exc})", path=path) from exc
    # Some repositories contain a tokenizer saved during training; transformers turns both off too.
    with locating(path=path):
        return _bounded(document, path).without_truncation_and_padding()


def _surround(backend: BoundedTokenizer, specials: Mapping[str, str], settings: dict[str, Any]) -> None:
    """Make the tokenizer add a BOS and an EOS to every text, where its settings ask for it."""
    sides: list[list[tuple[str, int]]] = []
    for key, name in (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")):
        text = specials.get(name) if settings.get(key) else None
        token_id = None if text is None else backend.token_to_id(text)
        sides.append([] if text is None or token_id is None else [(text, token_id)])
    if any(sides):
        backend.set_part("post_processor", surrounding(*sides))

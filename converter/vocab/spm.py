"""Loader of a sentencepiece model (tokenizer.model) as a tokenizer of the `tokenizers` library.

The model is a protocol buffer with a few fields that matter, so they are parsed here. The package `sentencepiece`
decides what the model means: both tokenize some thousand awkward texts, and a single difference is a refusal.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritpack.converter.vocab.describe import compact
from tritpack.converter.vocab.probes import awkward_texts, texts_of_pieces
from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported
from tritpack.runtime import tokenizer as reader
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.pretokenizers import Pipeline, sentencepiece_pipeline
from tritpack.runtime.tokenizer import Tokenizer, TokenType

_KINDS = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of the model
_MODEL_TYPE, _BYTE_FALLBACK = 3, 35  # fields of the trainer
_CHARSMAP, _DUMMY_PREFIX = 2, 3  # fields of the normalizer
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"  # appended, it overrides the earlier field, as protocol buffers merge
REWRITE = "write tokenizer.json with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"


@dataclasses.dataclass
class SentencePieceModel:
    """A sentencepiece model that was loaded and compared."""

    backend: BoundedTokenizer
    scores: dict[str, float]  # by piece
    names: dict[str, str]  # the piece of bos_token, eos_token, ...


def load_sentencepiece(path: Path, settings: dict[str, Any], specials: set[str]) -> SentencePieceModel:
    """Load the model at `path`.

    settings: tokenizer_config.json. specials: the texts that it calls special. Raises Unreadable for a file that is not
    such a model, Unsupported for one that cannot be repeated exactly, MissingRequirement without sentencepiece.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise Unreadable(f"cannot be read ({exc})", path=path) from exc
    if settings.get("add_prefix_space") is False:
        raw += _NO_DUMMY_PREFIX
    try:
        model = _import_sentencepiece().SentencePieceProcessor(model_proto=raw)
        fields = list(_fields(raw))
        trainer, normalizer = (_merged(fields, part) for part in (_TRAINER, _NORMALIZER))
        table = [dict(_fields(value)) for number, value in fields if number == _PIECES]
        pieces = [entry[1].decode("utf-8") for entry in table]
        scores = [float(entry.get(2, 0.0)) for entry in table]
        types = [int(entry.get(3, TokenType.NORMAL)) for entry in table]  # GGUF's numbers are sentencepiece's
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, struct.error) as exc:
        raise Unreadable("is not a sentencepiece model, or is incomplete", path=path) from exc
    kind = _KINDS.get(trainer.get(_MODEL_TYPE, 1), "unknown")
    if kind != "BPE":
        raise Unsupported(f"the sentencepiece model is of kind {kind}; only BPE is supported", path=path)
    if normalizer.get(_CHARSMAP):
        raise Unsupported(
            "the sentencepiece model replaces characters by its own table, which is not supported",
            path=path,
            hint=REWRITE,
        )

    pipeline = _pipeline(bool(normalizer.get(_DUMMY_PREFIX, 1)), settings)
    ids = {"bos_token": model.bos_id(), "eos_token": model.eos_id(), "unk_token": model.unk_id()}
    names = {name: pieces[i] for name, i in {**ids, "pad_token": model.pad_id()}.items() if i >= 0}
    pipeline["model"] |= {"byte_fallback": bool(trainer.get(_BYTE_FALLBACK)), "unk_token": names["unk_token"]}
    backend = _backend(path, pieces, types, scores, pipeline, specials)
    _require_equal(path, model, backend, pieces, types)
    return SentencePieceModel(backend, dict(zip(pieces, scores, strict=True)), names)


def _import_sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as exc:
        raise MissingRequirement(
            "reading tokenizer.model needs the Python package sentencepiece, which is not installed",
            hint="pip install sentencepiece",
        ) from exc
    return sentencepiece


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of each field of a protocol buffer: int, float32 or bytes, by its wire type."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 5:
            yield tag >> 3, struct.unpack_from("<f", message, at)[0]
            at += 4
        elif tag & 7 == 1:
            at += 8  # a double; no field that matters has one
        else:
            size = varint()
            yield tag >> 3, message[at : at + size]
            at += size


def _merged(fields: list[tuple[int, Any]], number: int) -> dict[int, Any]:
    """The fields of an inner message, where a later part overrides an earlier one."""
    return {key: value for field, part in fields if field == number for key, value in _fields(part)}


def _pipeline(prefix: bool, settings: dict[str, Any]) -> Pipeline:
    """The pipeline that treats spaces as the model does. prefix: the model puts a space before a text."""
    # 1bitLLM's config has "legacy": false, but its tokenizer.json has the prefix after every special token.
    legacy = settings.get("legacy") is not False or settings.get("tokenizer_class") == "BitnetTokenizer"
    pipeline = sentencepiece_pipeline(prefix)
    if prefix and not legacy:
        # The prefix goes before the whole text only, and not after each special token in it; only Metaspace can do
        # that. Metaspace adds no prefix to a text that begins with its own character. So the first one works with a
        # blank, which no text contains any more at that point, and the second one makes that blank visible.
        pipeline["normalizer"]["normalizers"].pop(0)
        steps = [
            {"type": "Metaspace", "split": False, "replacement": char, "prepend_scheme": scheme}
            for char, scheme in ((" ", "first"), ("\u2581", "never"))
        ]
        pipeline["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    return pipeline


def _backend(
    path: Path, pieces: list[str], types: list[int], scores: list[float], pipeline: Pipeline, specials: set[str]
) -> BoundedTokenizer:
    """The tokenizer that our own reader builds from the model's GGUF keys."""
    marks = {
        i: TokenType.CONTROL if pieces[i] in specials and kind == TokenType.USER_DEFINED else kind
        for i, kind in enumerate(types)
        if kind in (TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN)
    }
    # Sentencepiece looks for its symbols after it has made spaces visible; "normalized" does the same.
    flags = {str(i): {"normalized": True} for i in marks if "\u2581" in pieces[i]}
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [marks.get(i, kind) for i, kind in enumerate(types)],
        "tokenizer.ggml.scores": scores,
        reader.KEY_PIPELINE: compact(pipeline),
        reader.KEY_ADDED_IN_MODEL: list(marks),
        reader.KEY_ADDED_TOKENS: compact(flags),
    }
    return Tokenizer.from_metadata(metadata, path).backend


def _require_equal(path: Path, model: Any, backend: BoundedTokenizer, pieces: list[str], types: list[int]) -> None:
    """Raise Unsupported unless both give the same ids for every awkward text."""
    hidden = {p for p, kind in zip(pieces, types, strict=True) if kind in (TokenType.CONTROL, TokenType.UNKNOWN)}
    plain = [p for p, kind in zip(pieces, types, strict=True) if kind != TokenType.BYTE and p not in hidden]
    texts = [*awkward_texts(), *texts_of_pieces([piece.replace("\u2581", " ") for piece in plain])]
    # Sentencepiece does not recognise the hidden ones in a text, unlike the tokenizers of transformers.
    texts = [text for text in texts if not any(mark in text for mark in hidden)]
    for text, encoding in zip(texts, backend.encode_batch(texts, add_special_tokens=False), strict=True):
        expected, got = model.encode(text), encoding.ids
        if expected != got:
            at = next((i for i, (a, b) in enumerate(zip(expected, got)) if a != b), min(len(expected), len(got)))
            raise Unsupported(
                f"the sentencepiece model cannot be repeated exactly: of the text {text!r}, token {at} would be "
                f"{got[at : at + 1]} instead of {expected[at : at + 1]}",
                path=path,
                hint=REWRITE,
            )

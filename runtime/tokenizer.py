"""Tokenizer: from text to token ids and back, built from GGUF metadata alone.

`tokenizer.ggml.*` has no keys for the normaliser, the split pattern, the post-processor and the flags of added tokens.
Our converter stores these under `tritpack.tokenizer.*`, so the checkpoint's own tokenizer is rebuilt exactly. For files
of other writers, pretokenizers.py has the pipeline of each name in `tokenizer.ggml.pre`, and sentencepiece merges are
rebuilt from the scores.

The `tokenizers` library does the splitting and merging, in another process with limits (bounded_tokenizer.py), because
the pipeline is a program that the file contains.
"""

from __future__ import annotations

import enum
import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tritpack.formats.errors import Unreadable, Unsupported, UsageError, locating
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.pretokenizers import Pipeline, foreign_pipeline
from tritpack.runtime.tokenizer_arrays import check_arrays
from tritpack.runtime.untrusted import WORKER

LONGEST_MERGED_TOKEN = 1_000
"""Characters: sentencepiece's own limit is 16 by default, and every place at which a token can be halved is tried."""
MOST_MERGED_CHARACTERS = 16_000_000
"""Of all tokens of a vocabulary, ten times what those of 262,144 tokens have."""


class TokenType(enum.IntEnum):
    """Values of `tokenizer.ggml.token_type` (GGUF specification)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Our own keys. converter/vocab writes them, and they take precedence here.
KEY_PIPELINE = "tritpack.tokenizer.pipeline"  # JSON object: normalizer, pre_tokenizer, post_processor, decoder, model
KEY_ADDED_TOKENS = "tritpack.tokenizer.added_tokens"  # JSON object: id -> flags that differ from ADDED_TOKEN_DEFAULTS
KEY_ADDED_IN_MODEL = "tritpack.tokenizer.added_in_model"  # int32: added tokens that are also in the BPE vocabulary
KEY_MERGES = "tritpack.tokenizer.merges"  # of a sentencepiece model; `tokenizer.ggml.*` has no key for them
KEY_STOP_IDS = "tritpack.tokenizer.stop_token_ids"  # int32: every id that ends a generation

KEY_SPECIAL_TOKENS = "tritpack.tokenizer.special_tokens"  # JSON object: name -> text, where the id keys say otherwise
KEY_SPLIT_SPECIALS = "tritpack.tokenizer.split_special_tokens"  # bool: the text of a special token is ordinary text

ARRAYS = {
    **dict.fromkeys(("tokenizer.ggml.tokens", "tokenizer.ggml.merges", KEY_MERGES), "texts"),
    **dict.fromkeys(("tokenizer.ggml.token_type", KEY_ADDED_IN_MODEL, KEY_STOP_IDS), "integers"),
    "tokenizer.ggml.scores": "numbers",
}
"""What each array of a tokenizer's metadata holds."""

# Name of a special token in chat templates -> its id's key in `tokenizer.ggml.*` ("seperator" is GGUF's spelling).
SPECIAL_KEYS = {
    name: f"tokenizer.ggml.{key}_token_id"
    for name, key in {
        "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "sep_token": "seperator",
        "pad_token": "padding", "cls_token": "cls", "mask_token": "mask",
    }.items()
}  # fmt: skip

ADDED_TOKEN_DEFAULTS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
MODEL_DEFAULTS: dict[str, Any] = {
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}

# Tokens that end a turn, by name, because files of other writers rarely mark them (the list of llama.cpp's loader).
END_OF_TURN_NAMES = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<EOT>",
)  # fmt: skip

# The published 2B-4T GGUF contains a stub that bitnet.cpp replaces in C; this is the template of the checkpoint.
BITNET_STUB = "BITNETAssistant"
BITNET_TEMPLATE = (
    "{% for m in messages %}{% set line = m['role'] | capitalize + ': ' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set line = bos_token + line %}{% endif %}{{ line }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


class Tokenizer:
    """A checkpoint's tokenizer, built by `from_metadata`."""

    backend: BoundedTokenizer
    types: list[int]  # TokenType of each token
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    stop_ids: frozenset[int]
    special_tokens: dict[str, str]  # the text of bos_token, eos_token, pad_token and the like, by name
    splits_specials: bool  # the text of a special token is ordinary text, unless a caller says otherwise
    chat_template: str | None

    def __init__(self, backend: BoundedTokenizer, tokens: list[str], types: list[int], byte_level: bool) -> None:
        self.backend = backend
        self._tokens = tokens
        self.types = types
        self._byte_level = byte_level
        self.vocab_size = len(tokens)
        self.bos_id = self.eos_id = self.chat_template = None
        self.stop_ids = frozenset()
        self.special_tokens = {}
        self.splits_specials = False

    def __repr__(self) -> str:
        kind = "byte-level" if self._byte_level else "sentencepiece"
        return f"Tokenizer({kind} BPE, {self.vocab_size} tokens, bos {self.bos_id}, eos {self.eos_id})"

    @classmethod
    def from_metadata(
        cls,
        metadata: Mapping[str, Any],
        path: str | os.PathLike[str] | None = None,
        *,
        backend: BoundedTokenizer | None = None,
    ) -> Tokenizer:
        """Build a tokenizer from GGUF metadata. path: the file that has it, for errors, now and later. backend: one
        that these metadata describe; without it, it is made of them.

        Raises Unsupported for no tokenizer or one of another kind, Unreadable for contradictory keys.
        """
        with locating(path=path):
            try:
                tokenizer = _build(metadata, backend)
            except (TypeError, ValueError, AttributeError, LookupError) as error:
                raise Unreadable(f"the file's tokenizer metadata is invalid: {error}") from error
        tokenizer.backend.path = path
        return tokenizer

    @property
    def path(self) -> str | os.PathLike[str] | None:
        """The file that has it, if that is known."""
        return self.backend.path

    @property
    def bos_token(self) -> str | None:
        return None if self.bos_id is None else self._tokens[self.bos_id]

    @property
    def eos_token(self) -> str | None:
        return None if self.eos_id is None else self._tokens[self.eos_id]

    def encode(self, text: str, add_special: bool = True, parse_special: bool | None = None) -> list[int]:
        """Return the token ids of `text`.

        add_special: add the tokens that the checkpoint's tokenizer puts around a text, such as a BOS. parse_special:
        turn the text of a control token inside `text` into that token; False makes it ordinary text, None does what the
        checkpoint's tokenizer does.
        """
        self.backend.encode_special_tokens = self.splits_specials if parse_special is None else not parse_special
        return self.backend.encode(text, add_special_tokens=add_special).ids

    def encode_batch(self, texts: Sequence[str], add_special: bool = True) -> list[list[int]]:
        """Return the token ids of each text, as `encode` gives them by default."""
        self.backend.encode_special_tokens = self.splits_specials
        return [encoding.ids for encoding in self.backend.encode_batch(texts, add_special)]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD. skip_special: leave control tokens out."""
        shown = [self._checked(i) for i in ids]
        if skip_special:
            shown = [i for i in shown if not self.is_control(i)]
        if self._byte_level:
            return b"".join(self.token_bytes(i) for i in shown).decode("utf-8", errors="replace")
        # A sentencepiece decoder needs the whole sequence, because it drops the first space.
        return self.backend.decode(shown)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the exact bytes of one token, which may be part of a character. They are empty for unused ids."""
        kind, text = self.types[self._checked(token_id)], self._tokens[token_id]
        if kind == TokenType.UNUSED:
            return b""
        if self._byte_level:
            table = _byte_of_char()
            if kind in (TokenType.CONTROL, TokenType.USER_DEFINED) or any(char not in table for char in text):
                return text.encode("utf-8")
            return bytes(table[char] for char in text)
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            try:
                return bytes([int(text[3:5], 16)])
            except ValueError:
                pass
        return text.replace("\u2581", " ").encode("utf-8")

    def has_tokens_of(self, other: Tokenizer) -> bool:
        """Return whether each id is the same token in both vocabularies."""
        return self._tokens == other._tokens

    def token_text(self, token_id: int) -> str:
        """Return the token as the vocabulary spells it."""
        return self._tokens[self._checked(token_id)]

    def is_control(self, token_id: int) -> bool:
        """Tell whether the token is a mark such as BOS or end of turn, and not text."""
        return self.types[self._checked(token_id)] in (TokenType.CONTROL, TokenType.UNKNOWN)

    def _checked(self, token_id: int) -> int:
        if not 0 <= token_id < self.vocab_size:
            raise UsageError(f"token id {token_id} is outside the vocabulary of {self.vocab_size} tokens")
        return int(token_id)


@functools.lru_cache(maxsize=1)
def _byte_of_char() -> dict[str, int]:
    """GPT-2's printable character for each byte, inverted: printable bytes are themselves, the rest follow U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    table.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return table


def _build(metadata: Mapping[str, Any], backend: BoundedTokenizer | None) -> Tokenizer:
    kind = metadata.get("tokenizer.ggml.model")
    raw_tokens = metadata.get("tokenizer.ggml.tokens")
    if raw_tokens is None or kind in (None, "none", "no_vocab"):
        raise Unsupported(
            "the file holds no tokenizer (no tokenizer.ggml.tokens), so text cannot be turned into tokens",
            hint="give token ids with --tokens, or convert the checkpoint again with its tokenizer files",
        )
    if kind not in ("gpt2", "llama"):
        raise Unsupported(
            f"the file's tokenizer is of kind {kind!r}; only byte-level BPE ('gpt2') and sentencepiece BPE ('llama') "
            "are supported"
        )
    check_arrays(metadata, ARRAYS)
    WORKER.start()  # while the parts are put together here
    tokens = list(raw_tokens)
    types = [int(t) for t in metadata.get("tokenizer.ggml.token_type", [TokenType.NORMAL] * len(tokens))]
    if len(types) != len(tokens):
        raise Unreadable(f"tokenizer.ggml.token_type has {len(types)} entries for {len(tokens)} tokens")
    special = {name: _special_id(metadata, name, len(tokens)) for name in ("bos", "eos", "eot", "eom")}
    if "tokenizer.ggml.token_type" not in metadata:
        for token_id in special.values():
            if token_id is not None:
                types[token_id] = TokenType.CONTROL

    merges = merges_of(metadata, tokens, types)
    pipeline = _own_pipeline(metadata) or foreign_pipeline(metadata, tokens, special["bos"], special["eos"])
    if backend is None:
        backend = _backend(metadata, tokens, types, merges, pipeline)

    tokenizer = Tokenizer(backend, tokens, types, (pipeline.get("decoder") or {}).get("type") == "ByteLevel")
    tokenizer.bos_id, tokenizer.eos_id = special["bos"], special["eos"]
    tokenizer.special_tokens = special_tokens(metadata, tokens)
    tokenizer.splits_specials = bool(metadata.get(KEY_SPLIT_SPECIALS, False))
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        tokenizer.chat_template = BITNET_TEMPLATE if BITNET_STUB in template else template
    if KEY_STOP_IDS in metadata:
        tokenizer.stop_ids = frozenset(i for i in map(int, metadata[KEY_STOP_IDS]) if 0 <= i < len(tokens))
    else:
        by_name = [i for i, t in enumerate(types) if t == TokenType.CONTROL and tokens[i] in END_OF_TURN_NAMES]
        by_key = [special[name] for name in ("eos", "eot", "eom")]
        tokenizer.stop_ids = frozenset([*by_name, *(i for i in by_key if i is not None)])
    return tokenizer


def special_tokens(metadata: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, str]:
    """Return the text of each special token that has a name, by that name, as chat templates know it. Raises
    Unreadable for what is not an id."""
    if KEY_SPECIAL_TOKENS in metadata:
        named = _json_object(metadata, KEY_SPECIAL_TOKENS)
        return {name: text for name, text in named.items() if isinstance(text, str)}
    named = {}
    for name, key in SPECIAL_KEYS.items():
        value = metadata.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unreadable(f"metadata key {key} is {str(value)[:40]!r}, expected the id of a token")
        if 0 <= value < len(tokens):
            named[name] = tokens[value]
    return named


def _special_id(metadata: Mapping[str, Any], name: str, vocab_size: int) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab_size:
        raise Unreadable(f"tokenizer.ggml.{name}_token_id is {value}, outside the vocabulary of {vocab_size} tokens")
    return value


def _own_pipeline(metadata: Mapping[str, Any]) -> Pipeline | None:
    """The pipeline that our converter stored; None for files of other writers."""
    if KEY_PIPELINE not in metadata:
        return None
    pipeline = _json_object(metadata, KEY_PIPELINE)
    if not isinstance(pipeline.get("model", {}), dict):
        raise Unreadable(f"{KEY_PIPELINE} has no object under 'model'")
    return pipeline


def _json_object(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise Unreadable(f"{key} is not valid JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise Unreadable(f"{key} is not a JSON object")
    return value


def merges_of(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> list[str]:
    """Return the merges of a tokenizer in order, as its metadata list them or as its scores give them. Raises
    Unreadable."""
    kind = metadata.get("tokenizer.ggml.model")
    merges = metadata.get(KEY_MERGES if kind == "llama" else "tokenizer.ggml.merges")
    if merges is None and kind == "llama":
        return merges_from_scores(tokens, types, metadata.get("tokenizer.ggml.scores"))
    if merges is None:
        raise Unreadable("the file's BPE tokenizer has no tokenizer.ggml.merges")
    return list(merges)


def merges_from_scores(tokens: list[str], types: list[int], scores: Any) -> list[str]:
    """Return the merges of a sentencepiece BPE model: every way to halve a token, best score first.

    Sentencepiece joins the leftmost pair of several with equal scores. So, of merges with equal scores, the one with
    the longer left half comes first, then the longer right half: a run of blanks is cut from the left.
    """
    if scores is None or len(scores) != len(tokens):
        raise Unreadable("the file's sentencepiece tokenizer has no tokenizer.ggml.scores of the vocabulary's length")
    ids = {text: i for i, text in enumerate(tokens) if types[i] in (TokenType.NORMAL, TokenType.USER_DEFINED)}
    lengths = [len(text) for text in ids]
    if max(lengths, default=0) > LONGEST_MERGED_TOKEN or sum(lengths) > MOST_MERGED_CHARACTERS:
        raise Unreadable(
            f"the merges of the file's sentencepiece tokenizer cannot be rebuilt from its scores: its tokens have "
            f"up to {max(lengths)} characters, {sum(lengths)} in all"
        )
    merges: list[tuple[float, int, int, int, int, str]] = []
    for text, i in ids.items():
        if types[i] == TokenType.NORMAL:
            for cut in range(1, len(text)):
                left, right = ids.get(text[:cut]), ids.get(text[cut:])
                if left is not None and right is not None:
                    merges.append((-float(scores[i]), -cut, cut - len(text), left, right, f"{text[:cut]} {text[cut:]}"))
    return [merge for *_, merge in sorted(merges)]


def _backend(
    metadata: Mapping[str, Any], tokens: list[str], types: list[int], merges: Sequence[str], pipeline: Pipeline
) -> BoundedTokenizer:
    """The tokenizer of these parts. Raises Unreadable unless it gives every added token its id."""
    flags = _json_object(metadata, KEY_ADDED_TOKENS)
    special_types = (TokenType.CONTROL, TokenType.UNKNOWN)
    added = [i for i, kind in enumerate(types) if kind in (*special_types, TokenType.USER_DEFINED)]
    vocabulary = {
        text: i
        for i, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (TokenType.NORMAL, TokenType.BYTE)
    }
    if KEY_PIPELINE in metadata:
        in_model: Iterable[int] = map(int, metadata.get(KEY_ADDED_IN_MODEL, ()))
    else:
        # The library gives added tokens the ids after the vocabulary; those with other ids have to be in it.
        after_the_end = added == list(range(len(vocabulary), len(vocabulary) + len(added)))
        in_model = () if after_the_end else added
    for i in in_model:
        if not 0 <= i < len(tokens):
            raise Unreadable(f"{KEY_ADDED_IN_MODEL} names token {i}, outside the vocabulary of {len(tokens)} tokens")
        vocabulary[tokens[i]] = i
    model = {"type": "BPE", "dropout": None, **MODEL_DEFAULTS, **pipeline.get("model", {})}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": tokens[i],
                **ADDED_TOKEN_DEFAULTS,
                **flags.get(str(i), {}),
                "special": types[i] in special_types,
            }
            for i in added
        ],
        **{part: pipeline.get(part) for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")},
        "model": {**model, "vocab": vocabulary, "merges": merges},
    }
    try:
        backend = BoundedTokenizer(json.dumps(document, ensure_ascii=False))
    except ValueError as exc:
        raise Unreadable(f"the parts of the file's tokenizer contradict each other: {exc}") from exc
    for i, token_id in zip(added, backend.tokens_to_ids([tokens[i] for i in added]), strict=True):
        if token_id != i:
            raise Unreadable(
                f"the parts of the file's tokenizer contradict each other: token {tokens[i]!r} has id {i} in the file, "
                f"and id {token_id} in its vocabulary"
            )
    return backend

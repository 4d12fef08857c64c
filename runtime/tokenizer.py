"""Text to token ids and back, from GGUF metadata alone.

Our converter keeps under `tritpack.tokenizer.*` what `tokenizer.ggml.*` cannot say (normaliser, split pattern, what the
post-processor adds, flags of added tokens), so that the checkpoint's own tokenizer is rebuilt exactly. Files of other
writers are served by the table in pretokenizers.py, keyed by `tokenizer.ggml.pre`, and sentencepiece merges are rebuilt
from scores.

The `tokenizers` library does the splitting and merging; it is imported when a tokenizer is built, never before.
"""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported, UsageError
from tritpack.runtime.pretokenizers import Pipeline, foreign_pipeline


class TokenType(enum.IntEnum):
    """Values of `tokenizer.ggml.token_type` (GGUF specification)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Our own keys. Written by converter/vocab, read here first.
KEY_PIPELINE = "tritpack.tokenizer.pipeline"  # JSON object: normalizer, pre_tokenizer, post_processor, decoder, model
KEY_ADDED_TOKENS = "tritpack.tokenizer.added_tokens"  # JSON object: id -> flags that differ from ADDED_TOKEN_DEFAULTS
KEY_ADDED_IN_MODEL = "tritpack.tokenizer.added_in_model"  # int32: added tokens that are in the BPE vocabulary as well
KEY_MERGES = "tritpack.tokenizer.merges"  # merges of a sentencepiece model, which `tokenizer.ggml.*` has no place for
KEY_STOP_IDS = "tritpack.tokenizer.stop_token_ids"  # int32: every id that ends a generation

ADDED_TOKEN_DEFAULTS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
MODEL_DEFAULTS: dict[str, Any] = {
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}

# Tokens that end a turn, known by name: foreign files rarely say so (the list of llama.cpp's loader).
END_OF_TURN_NAMES = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<EOT>",
)  # fmt: skip

# The published 2B-4T GGUF carries a stub that bitnet.cpp replaces in C; this is the template of the model itself.
_BITNET_STUB = "BITNETAssistant"
BITNET_TEMPLATE = (
    "{% for m in messages %}{% set line = m['role'] | capitalize + ': ' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set line = bos_token + line %}{% endif %}{{ line }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


class Tokenizer:
    """A checkpoint's tokenizer. Build it with `from_metadata`."""

    backend: Any  # tokenizers.Tokenizer
    types: list[int]  # TokenType of each token
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    stop_ids: frozenset[int]
    chat_template: str | None

    def __init__(self, backend: Any, tokens: list[str], types: list[int], byte_level: bool) -> None:
        self.backend = backend
        self._tokens = tokens
        self.types = types
        self._byte_level = byte_level
        self.vocab_size = len(tokens)
        self.bos_id = self.eos_id = self.chat_template = None
        self.stop_ids = frozenset()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """Build from GGUF metadata. Raises Unsupported (no or unknown tokenizer), Unreadable (contradictory keys)."""
        try:
            return _build(metadata)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise Unreadable(f"the file's tokenizer metadata makes no sense: {error}") from error

    @property
    def bos_token(self) -> str | None:
        return None if self.bos_id is None else self._tokens[self.bos_id]

    @property
    def eos_token(self) -> str | None:
        return None if self.eos_id is None else self._tokens[self.eos_id]

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`.

        `add_special`: with what the checkpoint's tokenizer adds by itself (a BOS, say). `parse_special`: the text of a
        control token inside `text` becomes that token, as transformers does by default; False spells it out.
        """
        self.backend.encode_special_tokens = not parse_special
        try:
            ids: list[int] = self.backend.encode(text, add_special_tokens=add_special).ids
        except (UnicodeEncodeError, TypeError) as exc:
            raise UsageError(
                f"the text cannot be tokenized: it is not valid Unicode ({exc})", hint="give UTF-8 text"
            ) from exc
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD. `skip_special` leaves control tokens out."""
        chosen = [self._checked(i) for i in ids]
        if skip_special:
            chosen = [i for i in chosen if not self.is_control(i)]
        if self._byte_level:
            return b"".join(self.token_bytes(i) for i in chosen).decode("utf-8", errors="replace")
        # Sentencepiece decoders look at the whole sequence (they drop the first space): theirs to say.
        text: str = self.backend.decode(chosen, skip_special_tokens=False)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of one token; half a character may be among them. Empty for unused ids."""
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

    def token_text(self, token_id: int) -> str:
        """The token as the vocabulary spells it."""
        return self._tokens[self._checked(token_id)]

    def is_control(self, token_id: int) -> bool:
        """Whether the token is a mark (BOS, end of turn ...) and not text."""
        return self.types[self._checked(token_id)] in (TokenType.CONTROL, TokenType.UNKNOWN)

    def _checked(self, token_id: int) -> int:
        if not 0 <= token_id < self.vocab_size:
            raise UsageError(f"token id {token_id} is outside the vocabulary of {self.vocab_size} tokens")
        return int(token_id)


def import_tokenizers() -> Any:
    """The `tokenizers` module, or the sentence that says how to get it."""
    try:
        import tokenizers
    except ImportError as exc:
        raise MissingRequirement(
            "reading text needs the Python package tokenizers, which is not installed", hint="pip install tokenizers"
        ) from exc
    return tokenizers


@functools.lru_cache(maxsize=1)
def _byte_of_char() -> dict[str, int]:
    """GPT-2's printable character for each byte, inverted: printable bytes are themselves, the rest follow U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    table.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return table


def _build(metadata: Mapping[str, Any]) -> Tokenizer:
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
    tokens = list(raw_tokens)
    types = [int(t) for t in metadata.get("tokenizer.ggml.token_type", [TokenType.NORMAL] * len(tokens))]
    if len(types) != len(tokens):
        raise Unreadable(f"tokenizer.ggml.token_type has {len(types)} entries for {len(tokens)} tokens")
    special = {name: _special_id(metadata, name, len(tokens)) for name in ("bos", "eos", "eot", "eom")}
    if "tokenizer.ggml.token_type" not in metadata:
        for token_id in special.values():
            if token_id is not None:
                types[token_id] = TokenType.CONTROL

    merges = metadata.get(KEY_MERGES if kind == "llama" else "tokenizer.ggml.merges")
    if merges is None and kind == "llama":
        merges = merges_from_scores(tokens, types, metadata.get("tokenizer.ggml.scores"))
    if merges is None:
        raise Unreadable("the file's BPE tokenizer has no tokenizer.ggml.merges")
    pipeline = _own_pipeline(metadata) or foreign_pipeline(metadata, tokens, special["bos"], special["eos"])
    backend = _backend(metadata, tokens, types, list(merges), pipeline)

    tokenizer = Tokenizer(backend, tokens, types, (pipeline.get("decoder") or {}).get("type") == "ByteLevel")
    tokenizer.bos_id, tokenizer.eos_id = special["bos"], special["eos"]
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        tokenizer.chat_template = BITNET_TEMPLATE if _BITNET_STUB in template else template
    if KEY_STOP_IDS in metadata:
        tokenizer.stop_ids = frozenset(i for i in map(int, metadata[KEY_STOP_IDS]) if 0 <= i < len(tokens))
    else:
        by_name = [i for i, t in enumerate(types) if t == TokenType.CONTROL and tokens[i] in END_OF_TURN_NAMES]
        named = [special[name] for name in ("eos", "eot", "eom")]
        tokenizer.stop_ids = frozenset([*by_name, *(i for i in named if i is not None)])
    return tokenizer


def _special_id(metadata: Mapping[str, Any], name: str, vocab_size: int) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if value is None:
        return None
    if not 0 <= int(value) < vocab_size:
        raise Unreadable(f"tokenizer.ggml.{name}_token_id is {value}, outside the vocabulary of {vocab_size} tokens")
    return int(value)


def _own_pipeline(metadata: Mapping[str, Any]) -> Pipeline | None:
    """What our converter kept, or None for a foreign file."""
    if KEY_PIPELINE not in metadata:
        return None
    pipeline = _json_object(metadata, KEY_PIPELINE)
    if not isinstance(pipeline.get("model", {}), dict):
        raise Unreadable(f"{KEY_PIPELINE} holds no object under 'model'")
    return pipeline


def _json_object(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise Unreadable(f"{key} is not valid JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise Unreadable(f"{key} is not a JSON object")
    return value


def merges_from_scores(tokens: list[str], types: list[int], scores: Any) -> list[str]:
    """Merges of a sentencepiece BPE model: every way to halve a token, best score first, then lowest ids."""
    if scores is None or len(scores) != len(tokens):
        raise Unreadable("the file's sentencepiece tokenizer has no tokenizer.ggml.scores of the vocabulary's length")
    ids = {text: i for i, text in enumerate(tokens) if types[i] in (TokenType.NORMAL, TokenType.USER_DEFINED)}
    found: list[tuple[float, int, int, str]] = []
    for text, i in ids.items():
        if types[i] == TokenType.NORMAL:
            for cut in range(1, len(text)):
                left, right = ids.get(text[:cut]), ids.get(text[cut:])
                if left is not None and right is not None:
                    found.append((-float(scores[i]), left, right, f"{text[:cut]} {text[cut:]}"))
    return [merge for _, _, _, merge in sorted(found)]


def _backend(
    metadata: Mapping[str, Any], tokens: list[str], types: list[int], merges: Sequence[str], pipeline: Pipeline
) -> Any:
    """A `tokenizers.Tokenizer` of these parts, checked to give every added token its id."""
    library = import_tokenizers()
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
        # The library numbers added tokens on from the vocabulary's end; any that lie elsewhere have to be in it.
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
        backend = library.Tokenizer.from_str(json.dumps(document, ensure_ascii=False))
    except Exception as exc:  # the library raises bare Exception for anything it cannot take
        raise Unreadable(f"the file's tokenizer does not fit together: {exc}") from exc
    for i in added:
        if backend.token_to_id(tokens[i]) != i:
            raise Unreadable(
                f"the file's tokenizer does not fit together: token {tokens[i]!r} is number {i} in the file, but its "
                f"vocabulary gives it number {backend.token_to_id(tokens[i])}"
            )
    return backend

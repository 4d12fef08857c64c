"""GGUF keys of a tokenizer of the `tokenizers` library, from which runtime/tokenizer.py rebuilds it exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.vocab.pre_name import pre_name
from tritpack.formats.errors import Unsupported
from tritpack.runtime import tokenizer as reader
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.tokenizer import TokenType

_SPACE = "\u2581"  # sentencepiece's visible space
_NO_SCORE = -1000.0  # llama.cpp's converter gives it to tokens that the sentencepiece model does not contain


def describe(
    backend: BoundedTokenizer,
    vocab_size: int,
    path: Path,
    scores: Mapping[str, float] | None,
    unk_token: str | None,
) -> dict[str, Any]:
    """Return the keys of kind, tokens, types, merges and pipeline.

    scores: a sentencepiece model's own, by piece. path: the file that errors name. unk_token: what the checkpoint calls
    so, whether or not the tokenizer uses it. Raises Unsupported for merges that
    GGUF cannot express.
    """
    document = backend.document()
    model = document["model"]
    kind = "gpt2" if _is_byte_level(document) else "llama"
    unknown = (model.get("unk_token") or unk_token) if kind == "llama" else None
    tokens, types = _tokens_and_types(
        backend.get_vocab(with_added_tokens=True), document["added_tokens"], vocab_size, kind, unknown
    )
    merges = [_merge_text(pair, path) for pair in model["merges"]]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.pre": pre_name(backend, document) if kind == "gpt2" else "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.asarray(types, dtype=np.int32),
    }
    if kind == "gpt2":
        metadata["tokenizer.ggml.merges"] = merges
    else:
        values = _scores(tokens, model["merges"]) if scores is None else [scores.get(t, _NO_SCORE) for t in tokens]
        metadata["tokenizer.ggml.scores"] = np.asarray(values, dtype=np.float32)
        metadata[reader.KEY_MERGES] = merges
    if kind == "llama" or _adds_space(document):
        metadata["tokenizer.ggml.add_space_prefix"] = _adds_space(document)
    return {**metadata, **own_keys(document)}


def surroundings(backend: BoundedTokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before and after a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


def own_keys(document: dict[str, Any]) -> dict[str, Any]:
    """Return the `tritpack.tokenizer.*` keys of a tokenizer.json, without the values that are defaults."""
    model = document["model"]
    pipeline = {part: document[part] for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")}
    switches = {key: model[key] for key, usual in reader.MODEL_DEFAULTS.items() if model.get(key, usual) != usual}
    pipeline = {part: value for part, value in pipeline.items() if value is not None}
    flags = {}
    for added in document["added_tokens"]:
        odd = {flag: added[flag] for flag, usual in reader.ADDED_TOKEN_DEFAULTS.items() if added[flag] != usual}
        if odd:
            flags[str(added["id"])] = odd
    in_model = [added["id"] for added in document["added_tokens"] if added["content"] in model["vocab"]]
    keys: dict[str, Any] = {reader.KEY_PIPELINE: compact({**pipeline, "model": switches})}
    if flags:
        keys[reader.KEY_ADDED_TOKENS] = compact(flags)
    if in_model:
        keys[reader.KEY_ADDED_IN_MODEL] = np.asarray(in_model, dtype=np.int32)
    return keys


def compact(value: object) -> str:
    """Return JSON without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _steps(document: dict[str, Any], *stages: tuple[str, str]) -> list[dict[str, Any]]:
    """The steps of the stages (name, key of the list inside a Sequence), with Sequences taken apart."""
    steps: list[dict[str, Any]] = []
    for stage, inner in stages:
        step = document.get(stage) or {}
        steps += step.get(inner, [step])
    return steps


def _is_byte_level(document: dict[str, Any]) -> bool:
    """Whether the tokens are spelled in GPT-2's printable bytes."""
    steps = _steps(document, ("pre_tokenizer", "pretokenizers"), ("decoder", "decoders"))
    return any(step.get("type") == "ByteLevel" for step in steps)


def _adds_space(document: dict[str, Any]) -> bool:
    """Whether the tokenizer puts a space before a text."""
    return any(
        (step.get("type") == "Prepend" and step.get("prepend") == _SPACE)
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
        or (step.get("type") == "ByteLevel" and bool(step.get("add_prefix_space")))
        for step in _steps(document, ("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"))
    )


def _tokens_and_types(
    ids: dict[str, int], added_tokens: list[dict[str, Any]], vocab_size: int, kind: str, unknown: str | None
) -> tuple[list[str], list[int]]:
    """One text and one type for every row of the embedding; rows without a token become [PADn]."""
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [int(TokenType.UNUSED)] * vocab_size
    for text, i in ids.items():
        is_byte = kind == "llama" and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        tokens[i], types[i] = text, int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    for added in added_tokens:
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
        if added["special"] and added["content"] == unknown:
            types[added["id"]] = int(TokenType.UNKNOWN)  # llama.cpp's sentencepiece loader needs one
    return tokens, types


def _merge_text(pair: list[str], path: Path) -> str:
    text = " ".join(pair)
    if text.count(" ") != 1:
        raise Unsupported(f"the merge {pair!r} has a space in a half, which GGUF cannot express", path=path)
    return text


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """Sentencepiece scores of a tokenizer.json: minus the rank of the first merge into the token, or 0."""
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(merges):
        rank.setdefault(left + right, place)
    return [0.0 - rank.get(text, 0) for text in tokens]

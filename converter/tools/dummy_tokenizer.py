"""The tokenizer of a dummy checkpoint: byte-level BPE in Llama-3 style with random merges, and a chat template."""

from __future__ import annotations

from typing import Any

import numpy as np

SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
RESERVED = 256
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for m in messages %}{% set line = m['role'] | capitalize + ': ' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set line = bos_token + line %}{% endif %}{{ line }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


def special_ids(vocab_size: int) -> tuple[int, int, int]:
    """Return the ids of the tokens that begin a text, end a text and end a turn of a chat."""
    base = vocab_size - len(_specials(vocab_size))
    return base, base + 1, base + 2


def tokenizer_files(vocab_size: int, seed: int) -> dict[str, Any]:
    """Return what tokenizer.json and the two files beside it hold, for a vocabulary of which every id has a text."""
    specials = _specials(vocab_size)
    base = vocab_size - len(specials)
    added = [
        {
            "id": base + i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, text in enumerate(specials)
    ]
    return {
        "tokenizer.json": _tokenizer(base, added, base, seed),
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added
            },
            "bos_token": SPECIALS[0],
            "eos_token": SPECIALS[1],
            "chat_template": CHAT_TEMPLATE,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "special_tokens_map.json": {"bos_token": SPECIALS[0], "eos_token": SPECIALS[1]},
    }


def _specials(vocab_size: int) -> list[str]:
    specials = list(SPECIALS) + [f"<|reserved_special_token_{i}|>" for i in range(RESERVED - len(SPECIALS))]
    return specials[: min(RESERVED, vocab_size // 16)]


def _tokenizer(base: int, added: list[dict[str, Any]], bos: int, seed: int) -> dict[str, Any]:
    """Return a byte-level BPE tokenizer in Llama-3 style with `base` ordinary tokens, from random merges."""
    rng = np.random.Generator(np.random.PCG64(seed))
    # GPT-2's printable stand-ins for the 256 bytes.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}
    tokens = {letters[byte]: index for index, byte in enumerate(sorted(letters))}
    parts = [letters[byte] for byte in b" etaoinshrdlucmfwypvbgkqjxz"] * 2 + [letters[byte] for byte in range(128)]
    merges: list[list[str]] = []
    draws: list[float] = []
    while len(tokens) < base:
        draws = draws or rng.random(1 << 16).tolist()
        left, right = (parts[int(draws.pop() * len(parts))] for _ in range(2))
        word = left + right
        if word in tokens or len(word) > 16 or letters[32] in right:
            continue
        tokens[word] = len(tokens)
        merges.append([left, right])
        parts.append(word)
    special = {"id": SPECIALS[0], "ids": [bos], "tokens": [SPECIALS[0]]}
    begin = {"SpecialToken": {"id": SPECIALS[0], "type_id": 0}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "Sequence",
            "processors": [
                {**byte_level, "trim_offsets": False},
                {
                    "type": "TemplateProcessing",
                    "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [
                        begin,
                        {"Sequence": {"id": "A", "type_id": 0}},
                        begin,
                        {"Sequence": {"id": "B", "type_id": 1}},
                    ],
                    "special_tokens": {SPECIALS[0]: special},
                },
            ],
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": tokens,
            "merges": merges,
        },
    }

"""Texts on which tokenizers disagree."""

from __future__ import annotations

import functools
import random
import unicodedata

from tests.make.tokenizers import CORPUS


@functools.cache
def awkward_texts() -> list[str]:
    """Some thousand texts: every script of Unicode, blanks, marks, emoji, digits, code, special tokens inside."""
    chance = random.Random(7)
    blocks: dict[int, list[str]] = {}
    for char in map(chr, range(0x110000)):
        if unicodedata.category(char) not in ("Cn", "Co", "Cs"):
            blocks.setdefault(ord(char) // 64, []).append(char)
    texts = [
        "",
        " ",
        "\n",
        "    x = 1\n\n\n\ty",
        "a" * 300,
        " " * 40 + "b",
        "1234567890" * 5,
        "<|eot_id|>" * 3,
        *CORPUS,
    ]
    for chars in blocks.values():
        some = chance.sample(chars, min(3, len(chars)))
        texts.append(f"{some[0]}{''.join(some)} {some[-1]}1")
    parts = [" ", "  ", "   ", "        ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\u200b", "\ufeff"] * 3
    parts += ["<s>", "</s>", "<pad>", "</line>", "<bos>", "<end_of_turn>", "<|eot_id|>", "<|im_end|>", "<think>"]
    parts += ["<|endoftext|>", ">>TITLE<<", "<|user|>", "<|eot_id", "▁", "<0x41>", "\x00", "\x7f", "\U0010fffd"]
    parts += [
        "word",
        "Word",
        "the lanterns",
        " and",
        "naïve",
        "'s",
        "'LL",
        "they've",
        "12",
        "345",
        "6789",
        "٣٤",
        "Ⅷ",
        "½",
    ]
    parts += [
        "e\u0301\u0323",
        "é",
        "Å",
        "ﬁ",
        "日本",
        "한국어",
        "हिन्दी",
        "👩\u200d💻",
        "🏳️\u200d🌈",
        "🇫🇷",
        "def f(x):",
        "==",
        "#",
    ]
    return texts + ["".join(chance.choices(parts, k=chance.randint(1, 12))) for _ in range(1200)]

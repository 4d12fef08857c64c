"""Awkward texts, which show whether two tokenizers differ."""

from __future__ import annotations

import random
from collections.abc import Sequence


def awkward_texts() -> list[str]:
    """Return 403 texts that mix letters of many scripts, marks, digits, contractions, blanks and symbols."""
    parts = [
        *"aZsé́ßжЖαअिक्日本한עש", *"0123456789٣Ⅷ½", *" \t\n\r\u00a0\u3000", *".,!?'’\"-_()[]{}<>#$%&*+=/\\|~`^@€…—",
        "😀", "👩\u200d💻",
        "'s", "'T", "'LL", "'re", "word", "Word", "  ", "\r\n", "\n\n", "12345", "<|x|>", " the", "naïve",
    ]  # fmt: skip
    chance = random.Random(158)
    return ["", " ", "a", *("".join(chance.choices(parts, k=chance.randint(2, 24))) for _ in range(400))]


def texts_of_pieces(pieces: Sequence[str]) -> list[str]:
    """Return pieces of a vocabulary, alone and joined, and long runs of one character."""
    chance = random.Random(159)
    single = chance.sample(pieces, min(len(pieces), 4000))
    joined = ["".join(chance.choices(pieces, k=chance.randint(2, 9))) for _ in range(2000)]
    runs = [char * count for char in " \n\t=-#*._ae0日" for count in (2, 3, 4, 5, 7, 8, 13, 16, 31, 40)]
    return [*single, *joined, *runs, *(f"{run}x" for run in runs)]


def texts_that_show_cuts() -> list[str]:
    """Return the awkward texts and others, on which any two of llama.cpp's pre-tokenizers differ."""
    words = ["fooBar", "HTTPServer", "ÉTÉ", "éÉ", "Ǆx", "they'LL", "I'm", "x's/", "IMGIMGABZ", "<sentinel:12>", "a/b"]
    words += [
        "日本語のテスト",
        "漢字ABC",
        "한국어ㄱ",
        "ㄅㄆ",
        "ภาษาไทย",
        "हिन्दी",
        "e\u0301a",
        "\u3000→ー",
        "。」",
        "“x”",
    ]
    words += ["1", "12", "1234", "1234567", "12345678901", "٣٤٥٦", "½x", "$x", "#word", "...", "://", "😀"]
    joints = [
        "",
        " ",
        "  ",
        "   ",
        "     ",
        "\t",
        "\n",
        "\n\n",
        " \n",
        "\r\n ",
        "\n  ",
        "/\n",
        " \u00a0",
        "\u3000",
        "'",
    ]
    chance = random.Random(160)
    mixed = ["".join(chance.choice(words) + chance.choice(joints) for _ in range(6)) for _ in range(300)]
    blanks = [f"a{' ' * count}{end}" for count in (3, 4, 5, 7, 9, 17) for end in ("", "b", "\n", "1")]
    return [*awkward_texts(), *words, *mixed, *blanks]

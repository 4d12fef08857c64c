"""Texts on which two tokenizers are compared, and words for how their ids differ."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from tritpack.converter.verify.compare.vocabulary import CHAT
from tritpack.converter.verify.diagnoses import Diagnosis
from tritpack.converter.verify.findings import Kind
from tritpack.converter.vocab.probes import awkward_texts
from tritpack.runtime.tokenizer import Tokenizer

SAMPLES = (
    "Hello, world!",
    "  two  spaces,\ttab\nand\n\nlines ",
    "I'll say 12345 words; don't we?",
    "naïve café – “quotes” … Ünïcödé",
    "数字 123 と 漢字、ひらがな",
    "emoji 🙂👩‍👩‍👧 and \u200b zero width",
    "def f(x):\n    return x**2  # code",
    "ﬁ ligature, e\u0301 combining, \u202eright to left\u202c, \ufeffmark",
    "a" * 300 + " " * 40 + "\n" * 20 + "\r\n\r\n" + "9" * 50,
)
CHATS: tuple[list[dict[str, str]], ...] = (
    CHAT,
    [
        {"role": "user", "content": " Spaces around \n"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "12345 naïve?"},
    ],
)
MAX_SPECIALS = 48
"""How many special tokens of a vocabulary are tried inside a text."""


def corpus(specials: Sequence[str]) -> Iterator[str]:
    """Yield awkward texts, and some with each of the special tokens inside."""
    yield from SAMPLES
    yield from awkward_texts()
    for special in specials[:MAX_SPECIALS]:
        yield f"before{special} after {special}"
        yield f"  {special}  \n{special}b{special.lower()}"  # flags of added tokens take blanks, or need words' ends


def short_text(text: str) -> str:
    """Return a text as Python writes it, cut to some 50 characters."""
    return repr(text) if len(text) <= 50 else f"{text[:47]!r}..."


def around(ids: list[int], other: list[int]) -> str:
    """Return the ids around the first that differs, in words."""
    at = next((i for i, (a, b) in enumerate(zip(ids, other)) if a != b), min(len(ids), len(other)))
    shown = ", ".join(map(str, ids[max(0, at - 1) : at + 4]))
    return f"{'... ' if at > 1 else ''}{shown}{' ...' if at + 4 < len(ids) else ''} ({len(ids)} ids)"


def explain_ids(ours: Tokenizer, text: str, ids: list[int], expected: list[int]) -> Diagnosis:
    """Say what most likely went wrong where a text has other ids than expected. ours: the tokenizer that gave them."""
    if ids == expected[1:]:
        return Diagnosis(Kind.FIRST_TOKEN_MISSING, "the token before a text is missing")
    if ids[1:] == expected:
        return Diagnosis(Kind.FIRST_TOKEN_SURPLUS, "there is a surplus token before the text")
    if ids == expected[:-1]:
        return Diagnosis(Kind.LAST_TOKEN_MISSING, "the token after a text is missing")
    if ids[:-1] == expected:
        return Diagnosis(Kind.LAST_TOKEN_SURPLUS, "there is a surplus token after the text")
    for form in ("NFC", "NFKC", "NFD", "NFKD"):
        if ours.encode(unicodedata.normalize(form, text)) == expected:
            return Diagnosis(Kind.NORMALIZER_MISSING, f"the normaliser {form} is missing")
    return Diagnosis(Kind.TOKEN_IDS_DIFFER)

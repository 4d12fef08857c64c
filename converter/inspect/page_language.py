"""The parts of inspect's page that speak: a conversation through the chat template, and a sample of the tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tritpack.formats.errors import TritpackError
from tritpack.formats.printable import printable
from tritpack.runtime import chat
from tritpack.runtime.tokenizer import Tokenizer

CONVERSATION = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And how far is it from Rome?"},
]
SENTENCE = "Ternary weights are -1, 0 or +1: 1.58 bits each, naïvely 2 — даже 三值 🙂."
"""Words, figures and punctuation, letters with accents, other scripts, and an emoji."""
SPECIALS, SAMPLED = 24, 60
"""Rows of the two tables of tokens."""
LONGEST_TEMPLATE = 20_000
VISIBLE = str.maketrans({" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"})


def language(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the parts of the page: `conversation`, `sentence`, `specials`, `sample`; None without a tokenizer.

    metadata: the tokenizer's GGUF keys. What fails is a sentence under `error` of its part.
    """
    if not isinstance(metadata.get("tokenizer.ggml.model"), str):
        return None
    template = metadata.get("tokenizer.chat_template")
    shown = template[:LONGEST_TEMPLATE] if isinstance(template, str) else None
    parts: dict[str, Any] = {"template": shown, "error": None, "conversation": None}
    try:
        tokenizer = Tokenizer.from_metadata(metadata)
        return {**parts, **_tables(tokenizer), "conversation": _conversation(tokenizer)}
    except TritpackError as error:
        return {**parts, "error": error.without_path}


def _conversation(tokenizer: Tokenizer) -> dict[str, Any]:
    if not tokenizer.chat_template:
        return {"error": "The file has no chat template: it is a base model, or its template was lost.", "text": None}
    try:
        text = chat.chat_text(tokenizer, CONVERSATION)
        ids = tokenizer.encode(text, add_special=False, parse_special=True)
    except TritpackError as error:
        return {"error": f"The template does not work: {error.without_path}.", "text": None}
    return {"error": None, "text": Markup("").join(_marked(tokenizer, ids)), "tokens": len(ids)}


def _marked(tokenizer: Tokenizer, ids: list[int]) -> Iterator[Markup]:
    """Yield the text of the ids, with control tokens marked."""
    plain: list[int] = []
    for token in [*ids, None]:
        if token is not None and not tokenizer.is_control(token):
            plain.append(token)
            continue
        if plain:
            yield Markup("{}").format(printable(tokenizer.decode(plain), lines=True))
            plain = []
        if token is not None:
            yield Markup("<mark>{}</mark>").format(printable(tokenizer.token_text(token)))


def _tables(tokenizer: Tokenizer) -> dict[str, Any]:
    controls = [token for token in range(tokenizer.vocab_size) if tokenizer.is_control(token)]
    names = {text: name.removesuffix("_token") for name, text in tokenizer.special_tokens.items()}
    stops = set(tokenizer.stop_ids)
    specials = [
        {
            "id": token,
            "text": tokenizer.token_text(token),
            "role": ", ".join(
                filter(None, [names.get(tokenizer.token_text(token)), "ends a text" if token in stops else None])
            ),
        }
        for token in sorted(controls, key=lambda token: (token not in stops, tokenizer.token_text(token) not in names))
    ]
    count = min(SAMPLED, tokenizer.vocab_size)
    sample = [index * tokenizer.vocab_size // count for index in range(count)]
    ids = tokenizer.encode(SENTENCE, add_special=True)
    return {
        "sentence": SENTENCE,
        "sentence_count": len(ids),
        "pieces": list(pieces(tokenizer, ids)),
        "specials": specials[:SPECIALS],
        "special_count": len(specials),
        "sample": [{"id": token, "text": piece(tokenizer, token)} for token in sample],
        "vocab_size": tokenizer.vocab_size,
    }


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the tokens of a text with their ids; those that make up a character together are one piece."""
    data, together = b"", list[int]()
    for index, token in enumerate(ids):
        if tokenizer.is_control(token):
            yield {"ids": [token], "text": tokenizer.token_text(token)}
            continue
        data, together = data + tokenizer.token_bytes(token), [*together, token]
        followed = index + 1 < len(ids) and not tokenizer.is_control(ids[index + 1])
        if not followed or not _is_unfinished(data):
            yield {"ids": together, "text": visible(data)}
            data, together = b"", []


def _is_unfinished(data: bytes) -> bool:
    """Return whether the bytes end within a character."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(data) and error.reason == "unexpected end of data"
    return False


def piece(tokenizer: Tokenizer, token: int) -> str:
    """Return the text of one token for people."""
    return tokenizer.token_text(token) if tokenizer.is_control(token) else visible(tokenizer.token_bytes(token))


def visible(data: bytes) -> str:
    """Return the text of some bytes, with spaces that are seen; bytes that are no whole character as ‹E2 96›."""
    text = data.decode("utf-8", "surrogateescape").translate(VISIBLE)
    return re.sub("[\udc80-\udcff]+", _in_hexadecimal, text)


def _in_hexadecimal(match: re.Match[str]) -> str:
    return f"‹{match[0].encode('utf-8', 'surrogateescape').hex(' ').upper()}›"

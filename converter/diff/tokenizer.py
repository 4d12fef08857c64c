"""Compares the tokenizers of two sides by what they do: the ids of awkward texts, chats, and what ends a generation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tritpack.converter.diff.side import Side
from tritpack.converter.verify.compare.token_ids import CHATS, around, corpus, explain_ids, short_text
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.formats.errors import TritpackError
from tritpack.runtime.chat import chat_text
from tritpack.runtime.tokenizer import Tokenizer, TokenType

TOKENS = "tokenizer.ggml.tokens"
MAX_EXAMPLES = 3
"""Texts of which the ids are shown."""


def compare_tokenizers(a: Side, b: Side, keys: Sequence[Any]) -> tuple[dict[str, Any], list[Finding]]:
    """Compare, and return figures and differences. keys: those of the tokenizer that differ.

    Where no key does, nothing is built, because the tokenizer is made of the keys alone. `compared` is one of `keys`,
    `texts` and `nothing`.
    """
    has = [TOKENS in side.metadata for side in (a, b)]
    if not all(has):
        if any(has):
            missing = "B" if has[0] else "A"
            return {"compared": "nothing"}, [Finding(Kind.KEY_MISSING, f"{missing} has no tokenizer", None, {})]
        return {"compared": "nothing"}, []
    if not keys:
        return {"compared": "keys"}, []
    built: list[Tokenizer] = []
    findings: list[Finding] = []
    for name, side in (("A", a), ("B", b)):
        try:
            built.append(Tokenizer.from_metadata(side.metadata))
        except TritpackError as error:
            findings.append(Finding(Kind.TOKENIZER_INVALID, f"the tokenizer of {name}: {error.without_path}", None, {}))
    if len(built) < 2:
        return {"compared": "nothing"}, findings
    ours, theirs = built
    texts, ids = _ids(ours, theirs)
    return {"compared": "texts", **texts}, [
        *_vocabulary(ours, theirs),
        *ids,
        *_named_tokens(ours, theirs),
        *_chats(ours, theirs),
    ]


def _vocabulary(ours: Tokenizer, theirs: Tokenizer) -> list[Finding]:
    """Compare the tokens by id. Unused ids at the end, which pad a vocabulary to the rows of the model, are none."""
    tokens = [[tokenizer.token_text(i) for i in range(_used(tokenizer))] for tokenizer in (ours, theirs)]
    places = [i for i, (a, b) in enumerate(itertools.zip_longest(*tokens)) if a != b]
    if not places:
        return []
    first = places[0]
    shown = [repr(texts[first]) if first < len(texts) else "none" for texts in tokens]
    sentence = f"{len(places)} tokens differ, first that of id {first}: {shown[0]} in A, {shown[1]} in B"
    return [Finding(Kind.KEY_DIFFERS, sentence, None, {"key": TOKENS, "differing": len(places), "id": first})]


def _used(tokenizer: Tokenizer) -> int:
    """Return how many ids there are up to the last that is used."""
    used = (i for i in reversed(range(tokenizer.vocab_size)) if tokenizer.types[i] != TokenType.UNUSED)
    return next(used, -1) + 1


def _ids(ours: Tokenizer, theirs: Tokenizer) -> tuple[dict[str, Any], list[Finding]]:
    specials = [tokenizer.token_text(i) for tokenizer in (ours, theirs) for i in _controls(tokenizer)]
    texts = list(corpus([*dict.fromkeys(specials)]))
    rows = list(zip(texts, ours.encode_batch(texts), theirs.encode_batch(texts), strict=True))
    differing = [row for row in rows if row[1] != row[2]]
    figures = {
        "texts": len(texts),
        "differing": len(differing),
        "examples": [{"text": text, "a": a, "b": b} for text, a, b in differing[:MAX_EXAMPLES]],
    }
    if not differing:
        return figures, []
    text, a, b = differing[0]
    diagnosis = explain_ids(theirs, text, b, a)
    sentence = (
        f"{len(differing)} of {len(texts)} texts have other ids, the first is {short_text(text)}: {around(a, b)} in A, "
        f"{around(b, a)} in B"
    )
    return figures, [Finding(diagnosis.kind, diagnosis.explain(sentence), None, {"text": text, "a": a, "b": b})]


def _controls(tokenizer: Tokenizer) -> list[int]:
    return [i for i in range(tokenizer.vocab_size) if tokenizer.is_control(i)]


def _named_tokens(ours: Tokenizer, theirs: Tokenizer) -> list[Finding]:
    """Compare the tokens that begin a text and those that end a generation."""
    findings = []
    if ours.bos_id != theirs.bos_id:
        sentence = f"the token that begins a text is {ours.bos_id} in A and {theirs.bos_id} in B"
        findings.append(Finding(Kind.KEY_DIFFERS, sentence, None, {"a": ours.bos_id, "b": theirs.bos_id}))
    if ours.stop_ids != theirs.stop_ids:
        stops = sorted(ours.stop_ids), sorted(theirs.stop_ids)
        sentence = f"tokens {stops[0]} end a generation in A, and {stops[1]} in B"
        findings.append(Finding(Kind.KEY_DIFFERS, sentence, None, dict(zip("ab", stops))))
    return findings


def _chats(ours: Tokenizer, theirs: Tokenizer) -> list[Finding]:
    """Compare how chats are rendered; that of a template that refuses them counts as no text."""
    if ours.chat_template == theirs.chat_template:
        return []
    for messages in CHATS:
        texts = [_rendered(tokenizer, messages) for tokenizer in (ours, theirs)]
        if texts[0] != texts[1]:
            a, b = ("as nothing" if text is None else f"as {short_text(text)}" for text in texts)
            figures = dict(zip("ab", texts))
            return [Finding(Kind.CHAT_TEXT_DIFFERS, f"a chat is rendered {a} in A and {b} in B", None, figures)]
    return []


def _rendered(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str | None:
    try:
        return chat_text(tokenizer, messages) if tokenizer.chat_template else None
    except TritpackError:
        return None

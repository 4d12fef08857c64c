"""Compares the tokenizers of two sides: exactly, and by what they do to awkward texts and chats."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tritpack.converter.diff.side import Side
from tritpack.converter.diff.tokenizer_keys import compare_exactly, used
from tritpack.converter.verify.compare.token_ids import CHATS, around, corpus, explain_ids, short_text
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.formats.errors import TritpackError
from tritpack.runtime.chat import chat_text
from tritpack.runtime.tokenizer import Tokenizer

TOKENS = "tokenizer.ggml.tokens"
MAX_EXAMPLES = 3
"""Texts of which the ids are shown."""


Keys = Sequence[dict[str, Any]]


def compare_tokenizers(a: Side, b: Side, keys: Keys) -> tuple[dict[str, Any], list[Finding], list[str]]:
    """Compare, and return figures, differences and notes. keys: those of the tokenizer that differ.

    Where no key does, nothing is built, because the tokenizer is made of the keys alone. `compared` is one of `keys`,
    `texts` and `nothing`.
    """
    has = [TOKENS in side.metadata for side in (a, b)]
    if not all(has):
        if any(has):
            missing = "B" if has[0] else "A"
            return {"compared": "nothing"}, [Finding(Kind.KEY_MISSING, f"{missing} has no tokenizer", None, {})], []
        return {"compared": "nothing"}, [], []
    if not keys:
        return {"compared": "keys"}, [], []
    built: list[Tokenizer] = []
    findings: list[Finding] = []
    for name, side in (("A", a), ("B", b)):
        try:
            built.append(Tokenizer.from_metadata(side.metadata))
        except TritpackError as error:
            findings.append(Finding(Kind.TOKENIZER_INVALID, f"the tokenizer of {name}: {error.without_path}", None, {}))
    if len(built) < 2:
        return {"compared": "nothing"}, findings, []
    ours, theirs = built
    texts, ids = _ids(ours, theirs)
    findings = [*_vocabulary(ours, theirs), *ids, *_named_tokens(ours, theirs), *_chats(ours, theirs)]
    exact, notes = compare_exactly(a, b, ours, theirs, keys)
    return {"compared": "texts", **texts}, [*findings, *exact], notes


def _vocabulary(ours: Tokenizer, theirs: Tokenizer) -> list[Finding]:
    """Compare the tokens by id. Unused ids at the end, which pad a vocabulary to the rows of the model, are none."""
    tokens = [[tokenizer.token_text(i) for i in range(used(tokenizer))] for tokenizer in (ours, theirs)]
    places = [i for i, (a, b) in enumerate(itertools.zip_longest(*tokens)) if a != b]
    if not places:
        return []
    first = places[0]
    shown = [repr(texts[first]) if first < len(texts) else "none" for texts in tokens]
    sentence = f"{len(places)} tokens differ, first that of id {first}: {shown[0]} in A, {shown[1]} in B"
    return [Finding(Kind.KEY_DIFFERS, sentence, None, {"key": TOKENS, "differing": len(places), "id": first})]


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
    """Compare how chats are rendered, and the templates themselves: what some chats show is not all that one does."""
    if ours.chat_template == theirs.chat_template:
        return []
    for messages in CHATS:
        texts = [_rendered(tokenizer, messages) for tokenizer in (ours, theirs)]
        if texts[0] != texts[1]:
            a, b = ("as nothing" if text is None else f"as {short_text(text)}" for text in texts)
            figures = dict(zip("ab", texts))
            return [Finding(Kind.CHAT_TEXT_DIFFERS, f"a chat is rendered {a} in A and {b} in B", None, figures)]
    templates = [tokenizer.chat_template or "" for tokenizer in (ours, theirs)]
    place = next((i for i, (a, b) in enumerate(zip(*templates)) if a != b), min(map(len, templates)))
    shown = " and ".join(
        f"{short_text(text[place : place + 40]) if place < len(text) else 'its end'} in {side}"
        for side, text in zip("AB", templates)
    )
    sentence = f"the chat templates differ from character {place} on, {shown}; {len(CHATS)} chats show no difference"
    return [Finding(Kind.CHAT_TEXT_DIFFERS, sentence, None, {"character": place})]


def _rendered(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str | None:
    try:
        return chat_text(tokenizer, messages) if tokenizer.chat_template else None
    except TritpackError:
        return None

"""Compares what tokenizers are made of: types and scores of tokens, merges, and every other key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tritpack.converter.diff.metadata import of_other_engines
from tritpack.converter.diff.side import Side
from tritpack.converter.verify.compare.foreign import comes_from_foreign, is_habit_of_types
from tritpack.converter.verify.compare.metadata_values import first_difference, short
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.runtime.tokenizer import KEY_MERGES, KEY_STOP_IDS, Tokenizer, TokenType, merges_of

TYPES, SCORES = "tokenizer.ggml.token_type", "tokenizer.ggml.scores"
MERGES = ("tokenizer.ggml.merges", KEY_MERGES)
BY_WHAT_THEY_DO = (
    "tokenizer.ggml.tokens", "tokenizer.ggml.bos_token_id", KEY_STOP_IDS, "tokenizer.chat_template",
)  # fmt: skip
"""Keys that are compared exactly elsewhere, by what the tokenizer makes of them."""
OURS = "tritpack.tokenizer."


def compare_exactly(
    a: Side, b: Side, ours: Tokenizer, theirs: Tokenizer, keys: Sequence[dict[str, Any]]
) -> tuple[list[Finding], list[str]]:
    """Return what counts, whatever the ids of some texts say, and notes. keys: those of the tokenizer that differ.

    Of files that tritpack made of checkpoints every key counts that both have, and every key of our own. Another tool
    chooses names, flags and scores by its own habits: there a note names them, and texts show what they do.
    """
    is_foreign = any(side.file is not None and comes_from_foreign(side.file) for side in (a, b))
    findings, notes = _types(ours, theirs, is_foreign=is_foreign)
    findings += _merges(a, b, ours, theirs, is_foreign=is_foreign)
    others = []
    for row in keys:
        key = row["key"]
        if key in BY_WHAT_THEY_DO or key in (TYPES, SCORES, *MERGES):
            continue
        if not is_foreign and (("a" in row and "b" in row) or key.startswith(OURS)):
            values = " and ".join(f"{row.get(side, 'missing')} in {side.upper()}" for side in "ab")
            findings.append(Finding(Kind.KEY_DIFFERS, f"{key} is {values}", None, {"key": key}))
        else:
            others.append(row)
    return findings, [*notes, *of_other_engines(others, "texts show what they do here")]


def used(tokenizer: Tokenizer) -> int:
    """Return how many ids there are up to the last that is used: unused ones at the end pad a vocabulary."""
    ids = (i for i in reversed(range(tokenizer.vocab_size)) if tokenizer.types[i] != TokenType.UNUSED)
    return next(ids, -1) + 1


def _types(ours: Tokenizer, theirs: Tokenizer, *, is_foreign: bool) -> tuple[list[Finding], list[str]]:
    """Compare the kinds of tokens that both have."""
    count = min(used(ours), used(theirs))
    types = [tokenizer.types[:count] for tokenizer in (ours, theirs)]
    places = [i for i in range(count) if types[0][i] != types[1][i]]
    if not places:
        return [], []
    first = places[0]
    shown = " and ".join(f"{_type(side[first])} in {name}" for name, side in zip("AB", types))
    sentence = f"the types of {len(places)} tokens differ, first {ours.token_text(first)!r} (id {first}), {shown}"
    texts = [ours.token_text(i) for i in range(count)]
    if is_foreign and (is_habit_of_types(texts, *types) or is_habit_of_types(texts, *reversed(types))):
        return [], [f"{sentence}: a habit of llama.cpp"]
    return [Finding(Kind.KEY_DIFFERS, sentence, None, {"key": TYPES, "differing": len(places), "id": first})], []


def _type(number: int) -> str:
    return TokenType(number).name.lower() if number in {*TokenType} else str(number)


def _merges(a: Side, b: Side, ours: Tokenizer, theirs: Tokenizer, *, is_foreign: bool) -> Iterator[Finding]:
    """Compare the merges that each tokenizer has or makes of its scores, and the scores where both hold some.

    Another tool's scores of a sentencepiece model are of another origin than ours and give the same merges in another
    order of equals; texts show what they do.
    """
    is_ranked = all(side.metadata.get("tokenizer.ggml.model") == "llama" for side in (a, b))
    if not (is_ranked and is_foreign):
        lists = [merges_of(side.metadata, *_tokens(tokenizer)) for side, tokenizer in ((a, ours), (b, theirs))]
        if (place := first_difference(*lists)) is not None:
            merges = (f"{_at(side, place)} in {name}" for name, side in zip("AB", lists))
            counts = f"{len(lists[0])} in A and {len(lists[1])} in B"
            sentence = f"the merges of the tokenizer differ ({counts}), first number {place}: {', '.join(merges)}"
            yield Finding(Kind.KEY_DIFFERS, sentence, None, {"key": MERGES[0], "element": place})
    scores = [side.metadata[SCORES] for side in (a, b) if SCORES in side.metadata]
    mixed = (KEY_MERGES in a.metadata) != (KEY_MERGES in b.metadata)
    if len(scores) < 2 or (is_foreign and mixed):
        return
    count = min(used(ours), used(theirs))
    if (place := first_difference(scores[0][:count], scores[1][:count])) is not None:
        values = " and ".join(f"{_at(side, place)} in {name}" for name, side in zip("AB", scores))
        sentence = f"the scores of the tokens differ, first that of id {place}: {values}"
        yield Finding(Kind.KEY_DIFFERS, sentence, None, {"key": SCORES, "element": place})


def _tokens(tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    return [tokenizer.token_text(i) for i in range(tokenizer.vocab_size)], tokenizer.types


def _at(values: Sequence[Any], place: int) -> str:
    return short(values[place]) if place < len(values) else "none"

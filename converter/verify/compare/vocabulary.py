"""Compares the tokenizer's keys in FILE with the source's, its stop tokens, and whether its chat template renders.

The ids that it gives for text are compared by the rung `tokenizer`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tritpack.converter import vocab
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.compare.foreign import is_foreign, is_habit_of_types
from tritpack.converter.verify.compare.metadata_values import first_difference, same, short
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Rung
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.chat import chat_ids
from tritpack.runtime.tokenizer import KEY_STOP_IDS, Tokenizer

NEEDED_KEYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.pre", "tokenizer.ggml.eos_token_id", "tokenizer.chat_template")
"""Without these a file generates nonsense or never stops, whichever tool wrote it."""
TURN_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
CHAT = [{"role": "user", "content": "Hello"}]


def check_vocabulary(rung: Rung, file: GgufFile, source: CheckpointFolder | GgufFile, vocab_size: int) -> None:
    """Compare every key with the source's; check that the tokenizer can be built, stops, and renders a chat."""
    if isinstance(source, GgufFile) and "tokenizer.ggml.model" not in source.metadata:
        rung.notes.append("the source has no tokenizer, so that the file's is not judged")
        return
    backend = None
    if isinstance(source, GgufFile):
        keys = vocab.vocabulary_from_gguf(source.metadata, vocab_size)
        stops = {int(i) for i in keys.get(KEY_STOP_IDS, ())}
    else:
        keys, backend = vocab.read_tokenizer(source.folder, source.config, source.generation_config)
        stops = _expected_stops(source, keys)
    # A file made from another GGUF cannot know a config's end tokens, so it is judged by behaviour alone.
    through_gguf = same(file.metadata.get("general.source.format"), "gguf") and not isinstance(source, GgufFile)
    turn_ends = {int(keys[key]) for key in TURN_ENDS if key in keys}
    allowed = stops | turn_ends | {int(i) for i in keys.get(KEY_STOP_IDS, ())}
    if through_gguf:
        stops = turn_ends  # any GGUF has these
        keys = {key: value for key, value in keys.items() if not key.startswith("tritpack.")}
    before = len(rung.findings)
    _compare_keys(rung, file, keys, complete=(complete := "tritpack.version" in file.metadata and not through_gguf))
    # Building takes seconds for a large vocabulary: equal keys describe the tokenizer that there is already.
    same_tokenizer = complete and len(rung.findings) == before
    try:
        ours = Tokenizer.from_metadata(file.metadata, backend=backend if same_tokenizer else None)
    except TritpackError as error:
        rung.add(Kind.TOKENIZER_INVALID, f"tokenizer: {error.without_path}")
        return
    if missing := sorted(stops - set(ours.stop_ids)):
        sentence = f"tokenizer: end tokens {missing} of the source do not stop generation"
        rung.add(Kind.END_TOKENS_MISSING, sentence, tokens=missing)
    if KEY_STOP_IDS in file.metadata and (extra := sorted(set(ours.stop_ids) - allowed)):
        sentence = f"tokenizer: tokens {extra} stop generation, and are not end tokens of the source"
        rung.add(Kind.END_TOKENS_UNEXPECTED, sentence, tokens=extra)
    if not ours.stop_ids:
        rung.notes.append("tokenizer: no token ends a generation")
    check_template(rung, ours)


def check_template(rung: Rung, tokenizer: Tokenizer) -> None:
    """Check that the chat template renders a plain chat, and puts the token that begins a text there once."""
    if not tokenizer.chat_template:
        return
    try:
        ids = chat_ids(tokenizer, CHAT)
    except TritpackError as error:
        rung.notes.append(f"tokenizer: a plain chat does not render: {error.without_path}")
        return
    if tokenizer.bos_id is not None and ids[:2] == [tokenizer.bos_id] * 2:
        rung.add(Kind.BOS_TWICE, f"tokenizer: a chat begins with {tokenizer.bos_token!r} twice")


def _compare_keys(rung: Rung, file: GgufFile, expected: dict[str, Any], *, complete: bool) -> None:
    """complete: tritpack wrote the file from this source, so it has these keys and no others."""
    for key, value in expected.items():
        if key not in file.metadata:
            if complete or key in NEEDED_KEYS:
                rung.add(Kind.KEY_MISSING, f"tokenizer: {key} is missing", key=key)
            continue
        stored = file.metadata[key]
        if (differing := first_difference(stored, value)) is None:
            continue
        tokens = file.metadata.get("tokenizer.ggml.tokens")
        if key == "tokenizer.ggml.token_type" and is_foreign(file) and is_habit_of_types(tokens, stored, value):
            rung.notes.append(
                "tokenizer: user-defined tokens that look special are control tokens: a habit of llama.cpp"
            )
        elif key == "tokenizer.ggml.pre" and is_foreign(file):
            # Another tool's choice of name: whether it gives the right ids is what the rung `tokenizer` compares.
            rung.notes.append(f"tokenizer: {key} is {short(stored)}, where convert would write {short(value)}")
        elif isinstance(value, (list, np.ndarray)):
            sentence = f"tokenizer: {key} differs from the source, first at element {differing}"
            rung.add(Kind.KEY_DIFFERS, sentence, key=key, element=differing)
        else:
            sentence = f"tokenizer: {key} is {short(stored)}, the source has {short(value)}"
            rung.add(Kind.KEY_DIFFERS, sentence, key=key, file=short(stored), source=short(value))
    if complete:
        ours = ("tokenizer.", "tritpack.tokenizer.")
        extra = [key for key in file.metadata if key.startswith(ours) and key not in expected]
        for key in extra:
            rung.add(Kind.KEY_UNEXPECTED, f"tokenizer: {key} has nothing to match it in the source", key=key)


def _expected_stops(source: CheckpointFolder, keys: dict[str, Any]) -> set[int]:
    """The end tokens that either config or the tokenizer names and that are in the vocabulary."""
    stops: list[Any] = [keys.get("tokenizer.ggml.eos_token_id")]
    for config in (source.config, source.generation_config):
        ids = config.get("eos_token_id")
        stops += ids if isinstance(ids, list) else [ids]
    size = source.config.get("vocab_size", 0)
    return {int(i) for i in stops if isinstance(i, (int, np.integer)) and not isinstance(i, bool) and 0 <= i < size}

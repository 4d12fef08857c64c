"""GGUF keys of the tokenizer in another GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tritpack.converter.vocab.chat import end_of_turn
from tritpack.converter.vocab.describe import own_keys, surroundings
from tritpack.formats.errors import Unsupported
from tritpack.runtime.pretokenizers import pre_of
from tritpack.runtime.tokenizer import KEY_MERGES, KEY_PIPELINE, KEY_STOP_IDS, Tokenizer, TokenType

_MAINLINE_NAMES = {"falcon_e": "falcon3", "falcon-e": "falcon3"}  # forks' names -> llama.cpp's


def vocabulary_from_gguf(metadata: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Return what `read_vocabulary` returns, from the metadata of a GGUF file; the model has `vocab_size` rows.

    The keys of our own files stay as they are. A file of another writer keeps its tokens, and gets the keys that it
    left to its reader: the name of the pre-tokenizer, the whole pipeline, every stop token, the template that a stub
    stands for. Raises Unsupported for no tokenizer or another kind than BPE, Unreadable for contradictory keys.
    """
    tokenizer = Tokenizer.from_metadata(metadata)  # raises for a tokenizer that cannot be used
    count = tokenizer.vocab_size
    if count > vocab_size:
        raise Unsupported(f"the file's tokenizer has {count} tokens, but the model has a vocabulary of {vocab_size}")
    keys = {key: value for key, value in metadata.items() if key.startswith(("tokenizer.", "tritpack.tokenizer."))}
    keys |= {key: list(keys[key]) for key in keys if _holds_strings(keys[key])}
    if KEY_PIPELINE in metadata and count == vocab_size:
        return keys

    padding = range(count, vocab_size)
    types = [*tokenizer.types, *(TokenType.UNUSED for _ in padding)]
    keys["tokenizer.ggml.tokens"] = [*keys["tokenizer.ggml.tokens"], *(f"[PAD{i}]" for i in padding)]
    keys["tokenizer.ggml.token_type"] = np.asarray(types, dtype=np.int32)
    document = tokenizer.backend.document()
    if keys["tokenizer.ggml.model"] == "llama":
        scores = np.asarray(keys["tokenizer.ggml.scores"], dtype=np.float32)
        keys["tokenizer.ggml.scores"] = np.pad(scores, (0, len(padding)))
        keys["tokenizer.ggml.pre"] = "default"
        keys["tokenizer.ggml.add_space_prefix"] = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
        keys[KEY_MERGES] = [" ".join(pair) for pair in document["model"]["merges"]]
    else:
        pre = pre_of(metadata)
        keys["tokenizer.ggml.pre"] = _MAINLINE_NAMES.get(pre, pre)
    before, after = surroundings(tokenizer.backend)
    keys["tokenizer.ggml.add_bos_token"] = bool(before) and before[0] == tokenizer.bos_id
    keys["tokenizer.ggml.add_eos_token"] = bool(after) and after[-1] == tokenizer.eos_id

    template, stops = tokenizer.chat_template, set(tokenizer.stop_ids)
    if template is not None:
        keys["tokenizer.chat_template"] = template
    added = {token.content: i for i, token in tokenizer.backend.get_added_tokens_decoder().items()}
    turn = end_of_turn(template, added, tokenizer.special_tokens)
    if turn is not None:
        stops.add(turn)
        if turn != tokenizer.eos_id:
            keys["tokenizer.ggml.eot_token_id"] = turn
    if stops:
        keys[KEY_STOP_IDS] = np.asarray(sorted(stops), dtype=np.int32)
    return {**keys, **own_keys(document)}


def _holds_strings(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value[:1])

"""GGUF keys of the tokenizer in a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.families.keys import as_size
from tritpack.converter.vocab.chat import chat_templates, end_of_turn
from tritpack.converter.vocab.describe import describe, surroundings
from tritpack.converter.vocab.files import load
from tritpack.formats.errors import Unsupported
from tritpack.runtime.tokenizer import KEY_STOP_IDS


def read_vocabulary(folder: Path, config: dict[str, Any], generation_config: dict[str, Any]) -> dict[str, Any]:
    """Return the GGUF metadata of the tokenizer in `folder`.

    Values are strings, bools, ints, list[str], and numpy arrays (int32, float32). config, generation_config: the parsed
    JSON files, {} where absent. Raises Unreadable for files that are missing or contradictory, Unsupported for another
    kind than BPE and for more tokens than the model has rows.
    """
    loaded = load(folder)
    backend, specials = loaded.backend, loaded.specials
    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    used = max(ids.values(), default=-1) + 1
    vocab_size = _config_value(config, "vocab_size")
    vocab_size = used if vocab_size is None else as_size("vocab_size", vocab_size)
    if used > vocab_size:
        raise Unsupported(
            f"the tokenizer has {used} tokens, but config.json gives the model a vocabulary of {vocab_size}",
            path=loaded.path,
            hint="the tokenizer files belong to another model, or tokens were added without resizing the embeddings",
        )
    metadata = describe(backend, vocab_size, loaded.path, loaded.scores)

    special = {name: ids[text] for name, text in specials.items() if text is not None and text in ids}
    before, after = surroundings(backend)
    # config.json's BOS is never used: Falcon-E's is the id of a heading.
    bos = special.get("bos_token", before[0] if before else None)
    eos = special.get("eos_token", next(iter(_ids_of(_config_value(config, "eos_token_id"), vocab_size)), None))
    pad = special.get("pad_token", next(iter(_ids_of(_config_value(config, "pad_token_id"), vocab_size)), None))
    for name, value in (("bos", bos), ("eos", eos), ("padding", pad), ("unknown", special.get("unk_token"))):
        if value is not None:
            metadata[f"tokenizer.ggml.{name}_token_id"] = value
    metadata["tokenizer.ggml.add_bos_token"] = bool(before) and before[0] == bos
    metadata["tokenizer.ggml.add_eos_token"] = bool(after) and after[-1] == eos

    templates = chat_templates(folder, loaded.settings)
    if "default" in templates:
        metadata["tokenizer.chat_template"] = templates["default"]
    others = {name: text for name, text in templates.items() if name != "default"}
    if others:  # under the key names of gguf-py
        metadata["tokenizer.chat_templates"] = list(others)
        metadata.update({f"tokenizer.chat_template.{name}": text for name, text in others.items()})
    added = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
    turn = end_of_turn(templates.get("default"), added, specials["bos_token"], specials["eos_token"])
    if turn is not None and turn != eos:
        metadata["tokenizer.ggml.eot_token_id"] = turn

    stops = {
        *_ids_of(_config_value(config, "eos_token_id"), vocab_size),
        *_ids_of(generation_config.get("eos_token_id"), vocab_size),
        *([] if turn is None else [turn]),
    }
    if not stops and eos is not None:
        stops = {eos}
    if stops:
        metadata[KEY_STOP_IDS] = np.asarray(sorted(stops), dtype=np.int32)
    return metadata


def _config_value(config: dict[str, Any], key: str) -> Any:
    """`key` of config.json, or of the text model inside it."""
    inner = config.get("text_config")
    return config.get(key, inner.get(key) if isinstance(inner, dict) else None)


def _ids_of(value: Any, vocab_size: int) -> list[int]:
    """The valid ids in a value that is an id, a list of ids or null."""
    values = value if isinstance(value, list) else [value]
    return [i for i in values if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < vocab_size]

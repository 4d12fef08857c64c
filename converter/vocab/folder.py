"""GGUF keys of the tokenizer in a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.families.keys import as_size
from tritpack.converter.vocab.chat import chat_templates, end_of_turn
from tritpack.converter.vocab.describe import compact, describe, surroundings
from tritpack.converter.vocab.files import Loaded, load
from tritpack.converter.vocab.json_files import read_json
from tritpack.formats.errors import Unsupported, locating
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.tokenizer import (
    KEY_SPECIAL_TOKENS,
    KEY_SPLIT_SPECIALS,
    KEY_STOP_IDS,
    SPECIAL_KEYS,
    special_tokens,
)


def read_vocabulary(
    folder: Path, config: dict[str, Any], generation_config: dict[str, Any], notes: list[str] | None = None
) -> dict[str, Any]:
    """Return the GGUF metadata of the tokenizer in `folder`.

    Values are strings, bools, ints, list[str], and numpy arrays (int32, float32). config, generation_config: the parsed
    JSON files, {} where absent. notes: gets a sentence for each thing that a user should know. Raises Unreadable for
    files that are missing or contradictory, Unsupported for another kind than BPE and for tokens without a row.
    """
    return read_tokenizer(folder, config, generation_config, notes)[0]


def read_tokenizer(
    folder: Path, config: dict[str, Any], generation_config: dict[str, Any], notes: list[str] | None = None
) -> tuple[dict[str, Any], BoundedTokenizer]:
    """Return what read_vocabulary does, and the tokenizer that the metadata describe."""
    loaded = load(folder, config)
    specials = loaded.specials
    vocab_size = _config_value(config, "vocab_size")
    with locating(path=folder):
        vocab_size = None if vocab_size is None else as_size("vocab_size", vocab_size)
    backend, dropped = _with_rows_only(loaded, folder, vocab_size)
    if notes is not None:
        notes += [*loaded.notes, *dropped]
    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    vocab_size = max(ids.values(), default=-1) + 1 if vocab_size is None else vocab_size
    metadata = describe(backend, vocab_size, loaded.path, loaded.scores, specials.get("unk_token"))

    special = {name: ids[text] for name, text in specials.items() if text in ids}
    before, after = surroundings(backend)
    # config.json's BOS is never used: Falcon-E's is the id of a heading.
    if before:
        special.setdefault("bos_token", before[0])
    for name in ("eos_token", "pad_token"):
        if name not in special and (stated := _ids_of(_config_value(config, f"{name}_id"), vocab_size)):
            special[name] = stated[0]
    metadata |= {key: special[name] for name, key in SPECIAL_KEYS.items() if name in special}
    bos, eos = special.get("bos_token"), special.get("eos_token")
    metadata["tokenizer.ggml.add_bos_token"] = bool(before) and before[0] == bos
    metadata["tokenizer.ggml.add_eos_token"] = bool(after) and after[-1] == eos
    if loaded.settings.get("split_special_tokens"):
        metadata[KEY_SPLIT_SPECIALS] = True

    templates = chat_templates(folder, loaded.settings)
    if "default" in templates:
        metadata["tokenizer.chat_template"] = templates["default"]
    others = {name: text for name, text in templates.items() if name != "default"}
    if others:  # under the key names of gguf-py
        metadata["tokenizer.chat_templates"] = list(others)
        metadata.update({f"tokenizer.chat_template.{name}": text for name, text in others.items()})
    added = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
    if templates and special_tokens(metadata, metadata["tokenizer.ggml.tokens"]) != specials:
        metadata[KEY_SPECIAL_TOKENS] = compact(specials)
    turn = end_of_turn(templates.get("default"), added, specials)
    if turn is not None and turn != eos:
        metadata["tokenizer.ggml.eot_token_id"] = turn

    stops = {
        *_ids_of(_config_value(config, "eos_token_id"), vocab_size),
        *_ids_of(generation_config.get("eos_token_id"), vocab_size),
        *(token for token in (eos, turn) if token is not None),
    }
    if stops:
        metadata[KEY_STOP_IDS] = np.asarray(sorted(stops), dtype=np.int32)
    return metadata, backend


def _with_rows_only(loaded: Loaded, folder: Path, vocab_size: int | None) -> tuple[BoundedTokenizer, list[str]]:
    """The tokenizer without the added tokens that follow the model's last row, and a sentence that names them.

    Gemma 3's tokenizer has such a token, for images. Raises Unsupported if a token of another kind has no row.
    """
    backend = loaded.backend
    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    rowless = {text: i for text, i in ids.items() if vocab_size is not None and i >= vocab_size}
    if not rowless:
        return backend, []
    ordinary = [text for text in rowless if text in backend.get_vocab(with_added_tokens=False)]
    if (
        ordinary
        or {*rowless} & {*loaded.beside}
        or max(map(max, filter(None, surroundings(backend))), default=0) >= (vocab_size or 0)
    ):
        file = _file_with(folder, loaded.beside[0]) if loaded.beside else None
        source = f"; {loaded.beside[0]!r} comes from {file}" if file else ""
        raise Unsupported(
            f"the tokenizer has {max(ids.values()) + 1} tokens, but config.json gives the model a vocabulary of "
            f"{vocab_size}{source}",
            path=loaded.path,
            hint="the tokenizer files belong to another model, or tokens were added without resizing the embeddings",
        )
    kept = [token for token in backend.document()["added_tokens"] if token["content"] not in rowless]
    document = {**backend.document(), "added_tokens": kept}
    shown = ", ".join(f"{text!r} ({i})" for text, i in sorted(rowless.items(), key=lambda item: item[1])[:3])
    more = f" and {len(rowless) - 3} more" if len(rowless) > 3 else ""
    sentence = f"left out, because the model has {vocab_size} rows and none for them: the added tokens {shown}{more}"
    return BoundedTokenizer(json.dumps(document, ensure_ascii=False), loaded.path), [sentence]


def _file_with(folder: Path, token: str) -> str | None:
    """Return the file beside the tokenizer that names a token; None if the tokenizer's class adds it."""
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    return next((name for name in names if json.dumps(token) in json.dumps(read_json(folder / name))), None)


def _config_value(config: dict[str, Any], key: str) -> Any:
    """`key` of config.json, or of the text model inside it."""
    inner = config.get("text_config")
    return config.get(key, inner.get(key) if isinstance(inner, dict) else None)


def _ids_of(value: Any, vocab_size: int) -> list[int]:
    """The valid ids in a value that is an id, a list of ids or null."""
    values = value if isinstance(value, list) else [value]
    return [i for i in values if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < vocab_size]

"""The tokenizer in a GGUF's metadata -> tokenizer.json, tokenizer_config.json and the token ids that configs name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tritpack.formats.errors import Unreadable
from tritpack.runtime.tokenizer import KEY_SPLIT_SPECIALS, KEY_STOP_IDS, Tokenizer

IDS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


def tokenizer_files(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (file name -> JSON document, token ids for config.json and generation_config.json).

    Both are empty if the metadata has no tokenizer. Raises Unreadable for a tokenizer that makes no sense.
    """
    if "tokenizer.ggml.model" not in metadata:
        return {}, {}
    tokenizer = Tokenizer.from_metadata(metadata)
    tokens = metadata["tokenizer.ggml.tokens"]
    keys = {name: f"tokenizer.ggml.{key}_token_id" for name, key in IDS.items()}
    ids_by_name = {name: _token_id(metadata, key, len(tokens)) for name, key in keys.items() if key in metadata}
    texts = tokenizer.special_tokens
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **texts}
    if metadata.get(KEY_SPLIT_SPECIALS):
        settings["split_special_tokens"] = True
    present = _templates(metadata)
    if set(present) == {"default"}:
        settings["chat_template"] = present["default"]
    elif present:
        settings["chat_template"] = [{"name": name, "template": text} for name, text in present.items()]
    stops = [int(token) for token in metadata.get(KEY_STOP_IDS, ())]
    ids: dict[str, Any] = {
        name.replace("_token", "_token_id"): token for name, token in ids_by_name.items() if name != "unk_token"
    }
    if stops:
        ids["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    files = {
        "tokenizer.json": json.loads(tokenizer.backend.to_str()),
        "tokenizer_config.json": settings,
        "special_tokens_map.json": texts,
    }
    return files, ids


def _token_id(metadata: Mapping[str, Any], key: str, count: int) -> int:
    value = metadata[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise Unreadable(f"metadata key {key} is {str(value)[:40]!r}, expected the id of one of {count} tokens")
    return value


def _templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the chat templates by name. Raises Unreadable for keys that do not hold texts."""
    names = metadata.get("tokenizer.chat_templates", [])
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise Unreadable(f"metadata key tokenizer.chat_templates is {str(names)[:40]!r}, expected a list of names")
    keys = {"default": "tokenizer.chat_template", **{str(name): f"tokenizer.chat_template.{name}" for name in names}}
    templates = {name: metadata[key] for name, key in keys.items() if key in metadata}
    for name, text in templates.items():
        if not isinstance(text, str):
            raise Unreadable(f"metadata key {keys[name]} is {str(text)[:40]!r}, expected a text")
    return templates

"""The tokenizer in a GGUF's metadata -> tokenizer.json, tokenizer_config.json and the token ids that configs name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tritpack.runtime.tokenizer import KEY_STOP_IDS, Tokenizer

IDS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


def tokenizer_files(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (file name -> JSON document, token ids for config.json and generation_config.json).

    Both are empty if the metadata has no tokenizer. Raises Unreadable for a tokenizer that makes no sense.
    """
    if "tokenizer.ggml.model" not in metadata:
        return {}, {}
    tokenizer = Tokenizer.from_metadata(metadata)
    tokens = metadata["tokenizer.ggml.tokens"]
    ids_by_name = {
        name: int(value)
        for name, key in IDS.items()
        if (value := metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None
    }
    texts = {name: str(tokens[token]) for name, token in ids_by_name.items()}
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **texts}
    templates = {"default": metadata.get("tokenizer.chat_template")}
    for name in metadata.get("tokenizer.chat_templates", ()):
        templates[str(name)] = metadata.get(f"tokenizer.chat_template.{name}")
    present = {name: text for name, text in templates.items() if text is not None}
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

"""`tokenizer.ggml.pre`: the name in llama.cpp's table of the pre-tokenizer that splits text in the same way."""

from __future__ import annotations

import json
from typing import Any

from tritpack.converter.vocab.probes import awkward_texts
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.pretokenizers import PRE_TOKENIZERS
from tritpack.runtime.worker import import_tokenizers


def pre_name(backend: BoundedTokenizer, document: dict[str, Any]) -> str:
    """Return the name of the pre-tokenizer that splits text as this byte-level tokenizer does, or "default"."""
    name = "default"
    if (pieces := backend.split(awkward_texts())) is not None:
        name = next((n for n, pre in PRE_TOKENIZERS.items() if _split(_only(pre)) == pieces), "default")
    if name == "llama-bpe" and not document["model"].get("ignore_merges"):
        # These names have the same split and differ in other settings. Falcon's vocabularies begin with the specials.
        first = min((added["id"] for added in document["added_tokens"]), default=None)
        return "falcon3" if first == 0 else "smaug-bpe"
    return name


def _only(pre_tokenizer: dict[str, Any]) -> Any:
    document = {"version": "1.0", "pre_tokenizer": pre_tokenizer, "added_tokens": []}
    model = {"type": "BPE", "vocab": {}, "merges": []}
    return import_tokenizers().Tokenizer.from_str(json.dumps({**document, "model": model}))


def _split(backend: Any) -> list[list[str]]:
    pre = backend.pre_tokenizer
    return [[piece for piece, _ in pre.pre_tokenize_str(text)] for text in awkward_texts()]

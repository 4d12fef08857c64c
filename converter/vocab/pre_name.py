"""`tokenizer.ggml.pre`: the name in llama.cpp's table of the pre-tokenizer that splits text in the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tritpack.converter.vocab.probes import texts_that_show_cuts
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.named_splits import PRE_TOKENIZERS, PUBLISHED
from tritpack.runtime.tokenizer import Tokenizer
from tritpack.runtime.worker import import_tokenizers


def pre_name(backend: BoundedTokenizer, document: dict[str, Any]) -> str:
    """Return the name of the pre-tokenizer that splits text as this byte-level tokenizer does, or "default".

    Where llama.cpp cuts otherwise than every tokenizer, its name for the published tokenizer that cuts so is returned.
    """
    name = None
    texts = texts_that_show_cuts()
    if (pieces := backend.split(texts)) is not None:
        tables = (PRE_TOKENIZERS, PUBLISHED)
        names = (n for table in tables for n, pre in table.items() if _cuts_so(pre, texts, pieces))
        name = next(names, None)
    if name == "llama-bpe" and not document["model"].get("ignore_merges"):
        # These names have the same split and differ in other settings. Falcon's vocabularies begin with the specials.
        first = min((added["id"] for added in document["added_tokens"]), default=None)
        return "falcon3" if first == 0 else "smaug-bpe"
    return name or "default"


def pre_name_warning(metadata: Mapping[str, Any]) -> str | None:
    """Return what a user should know about the name in these keys of a checkpoint's tokenizer, None if it is right."""
    name = metadata.get("tokenizer.ggml.pre")
    if metadata.get("tokenizer.ggml.model") != "gpt2" or name not in ("default", *PUBLISHED):
        return None
    if name == "default":
        return (
            f"none of the {len(PRE_TOKENIZERS)} ways of cutting text that llama.cpp has names for is this tokenizer's: "
            "tritpack keeps its rule in the file, and other engines will give other token ids"
        )
    foreign = {key: value for key, value in metadata.items() if not key.startswith("tritpack.tokenizer.")}
    texts = texts_that_show_cuts()
    pairs = [Tokenizer.from_metadata(keys).backend.encode_batch(texts, False) for keys in (metadata, foreign)]
    different = sum(one.ids != other.ids for one, other in zip(*pairs, strict=True))
    if not different:
        return None
    return (
        f"llama.cpp's pre-tokenizer {name!r} was made for this tokenizer and cuts some text otherwise: tritpack keeps "
        f"the tokenizer's rule in the file, and llama.cpp will give other token ids for {different} of {len(texts)} "
        "awkward texts"
    )


def _cuts_so(pre_tokenizer: dict[str, Any], texts: list[str], pieces: list[list[str]]) -> bool:
    document = {"version": "1.0", "pre_tokenizer": pre_tokenizer, "added_tokens": []}
    model = {"type": "BPE", "vocab": {}, "merges": []}
    pre = import_tokenizers().Tokenizer.from_str(json.dumps({**document, "model": model})).pre_tokenizer
    return all(
        [piece for piece, _ in pre.pre_tokenize_str(text)] == expected
        for text, expected in zip(texts, pieces, strict=True)
    )

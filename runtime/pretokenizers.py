"""The pipelines of files of other writers, for the `tokenizers` library.

Such a file has only a name in `tokenizer.ggml.pre` (named_splits.py). Our own files contain their pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritpack.formats.errors import Unsupported
from tritpack.runtime.named_splits import (
    ADD_BOS,
    ALIASES,
    IGNORE_MERGES,
    PRE_TOKENIZERS,
    RAW_NAMES,
    WITHOUT_BOS,
    WITHOUT_IGNORE_MERGES,
)

Pipeline = dict[str, Any]
"""Parts of a tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder, and the switches under `model`."""

# Architectures that only have the Llama-3 vocabulary; their published files lack `tokenizer.ggml.pre`.
_LLAMA3_ARCHITECTURES = ("bitnet-b1.58", "bitnet-25")


def pre_of(metadata: Mapping[str, Any]) -> str:
    """Return `tokenizer.ggml.pre` of a byte-level file, or its default where the file lacks it."""
    usual = "llama-bpe" if metadata.get("general.architecture") in _LLAMA3_ARCHITECTURES else "default"
    return str(metadata.get("tokenizer.ggml.pre") or usual)


def foreign_pipeline(metadata: Mapping[str, Any], tokens: list[str], bos: int | None, eos: int | None) -> Pipeline:
    """Return the pipeline that llama.cpp's loader would use for these keys. Raises Unsupported for an unknown `pre`."""
    if metadata["tokenizer.ggml.model"] == "llama":
        pipeline = sentencepiece_pipeline(bool(metadata.get("tokenizer.ggml.add_space_prefix", True)))
        add_bos = True
    else:
        pre = pre_of(metadata)
        base = ALIASES.get(pre, pre)
        if pre in RAW_NAMES:
            raise Unsupported(
                f"the file's pre-tokenizer {pre!r} (tokenizer.ggml.pre) merges characters and not bytes, "
                "which tritpack does not do for files of other writers",
                hint="convert the checkpoint with tritpack: it keeps the checkpoint's own rules in the file",
            )
        if base not in PRE_TOKENIZERS:
            raise Unsupported(
                f"the file's pre-tokenizer {pre!r} (tokenizer.ggml.pre) is unknown",
                hint="convert the checkpoint with tritpack: it keeps the exact split pattern in the file",
            )
        add_bos = base in ADD_BOS and pre not in (*WITHOUT_IGNORE_MERGES, *WITHOUT_BOS)
        pipeline = {
            "pre_tokenizer": PRE_TOKENIZERS[base],
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"ignore_merges": base in IGNORE_MERGES and pre not in WITHOUT_IGNORE_MERGES},
        }
    before = [(tokens[bos], bos)] if bos is not None and metadata.get("tokenizer.ggml.add_bos_token", add_bos) else []
    after = [(tokens[eos], eos)] if eos is not None and metadata.get("tokenizer.ggml.add_eos_token", False) else []
    if before or after:
        pipeline["post_processor"] = surrounding(before, after)
    return pipeline


def surrounding(before: list[tuple[str, int]], after: list[tuple[str, int]]) -> dict[str, Any]:
    """Return post-processor JSON that puts tokens, as (text, id), before and after every text."""

    def around(name: str, type_id: int) -> list[dict[str, Any]]:
        text: dict[str, Any] = {"Sequence": {"id": name, "type_id": type_id}}
        first, last = ([{"SpecialToken": {"id": t, "type_id": type_id}} for t, _ in side] for side in (before, after))
        return [*first, text, *last]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in (*before, *after)},
    }


def sentencepiece_pipeline(add_space_prefix: bool) -> Pipeline:
    """Return the pipeline of Llama-2's tokenizer.json, as transformers converts a sentencepiece BPE model."""
    replace: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    normalizers = [{"type": "Prepend", "prepend": "\u2581"}, replace] if add_space_prefix else [replace]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if add_space_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"byte_fallback": True, "fuse_unk": True},
    }

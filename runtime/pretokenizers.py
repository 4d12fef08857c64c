"""The pre-tokenizers that llama.cpp knows by name, as pipelines of the `tokenizers` library.

Files of other writers have only a name in `tokenizer.ggml.pre`. The split pattern of each name is in llama.cpp's source
(src/llama-vocab.cpp); this module holds that table. Our own files contain their pipeline and do not need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritpack.formats.errors import Unsupported

Pipeline = dict[str, Any]
"""Parts of a tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder, and the switches under `model`."""

_GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN35_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split_then_bytes(*patterns: str) -> dict[str, Any]:
    """Pre-tokenizer JSON that splits by each regular expression in turn, then maps bytes to printable characters."""
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False})
    return {"type": "Sequence", "pretokenizers": steps}


# Name in `tokenizer.ggml.pre` -> pre-tokenizer JSON. The converter takes the entry that splits as the checkpoint does.
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "llama-bpe": _split_then_bytes(_LLAMA3_SPLIT),
    "qwen2": _split_then_bytes(_LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")),
    "qwen35": _split_then_bytes(_QWEN35_SPLIT),
    "gpt-2": _split_then_bytes(_GPT2_SPLIT),
    "starcoder": _split_then_bytes(r"\p{N}", _GPT2_SPLIT),
    "falcon": _split_then_bytes(r"[\p{P}\$\+<=>\^~\|`]+", _GPT2_SPLIT, "[0-9][0-9][0-9]"),
    "default": _split_then_bytes(r"[\p{P}\$\+<=>\^~\|]+", _GPT2_SPLIT, r"\p{N}+", "[0-9][0-9][0-9]"),
}
# Other names that llama.cpp and its forks treat as one of the above ("falcon_e" exists in forks only).
_ALIASES = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "falcon_e", "falcon-e", "falcon-h1"), "llama-bpe"),
    **dict.fromkeys(("pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "smaug-bpe", "dbrx"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kormo", "f2llmv2", "solar-open"), "qwen2"),
    **dict.fromkeys(("olmo", "mpt", "phi-2", "jais", "trillion", "gigachat", "exaone4", "a.x-4.0", "mellum"), "gpt-2"),
    **dict.fromkeys(("refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"), "starcoder"),
}
_WITHOUT_IGNORE_MERGES = ("smaug-bpe", "dbrx")  # llama.cpp sets ignore_merges for the rest of the group

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
        base = _ALIASES.get(pre, pre)
        if base not in PRE_TOKENIZERS:
            raise Unsupported(
                f"the file's pre-tokenizer {pre!r} (tokenizer.ggml.pre) is unknown",
                hint="convert the checkpoint with tritpack: it keeps the exact split pattern in the file",
            )
        add_bos = base == "llama-bpe" and pre not in _WITHOUT_IGNORE_MERGES
        pipeline = {
            "pre_tokenizer": PRE_TOKENIZERS[base],
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"ignore_merges": add_bos},
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

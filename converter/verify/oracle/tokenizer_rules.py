"""Which parts of tokenizer.json a tokenizer class of transformers 5 uses, written from its source."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

_BLANK = "\u2581"
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_END = "<|endoftext|>"
_THREE = ("unk_token", "bos_token", "eos_token")
_DEFAULTS = {
    "Llama": dict(zip(_THREE, ("<unk>", "<s>", "</s>"))),
    "Gemma": {**dict(zip(_THREE, ("<unk>", "<bos>", "<eos>"))), "pad_token": "<pad>", "mask_token": "<mask>"},
    "Qwen2": dict.fromkeys(("unk_token", "eos_token", "pad_token"), _END),
    "GPT2": dict.fromkeys(_THREE, _END),
    "GPTNeoX": {**dict.fromkeys(_THREE, _END), "pad_token": "<|padding|>"},
}
_MODEL_TYPES = {"gpt_neox": "GPTNeoX", "qwen2": "Qwen2", "qwen3": "Qwen2"}


@dataclasses.dataclass(frozen=True)
class Rules:
    """What one class does. name: None for a class that takes tokenizer.json as it is. names: its own special tokens.

    parts: what replaces parts of tokenizer.json; its `model` holds switches.
    """

    name: str | None
    names: Mapping[str, Any]
    parts: Mapping[str, Any]

    @property
    def rebuilds(self) -> bool:
        return self.name is not None

    @property
    def resets_special_flags(self) -> bool:
        return self.name == "Qwen2Tokenizer"

    def applied(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of tokenizer.json with the class's parts."""
        made = {**document, **{part: value for part, value in self.parts.items() if part != "model"}}
        made["model"] = {**document["model"], **self.parts.get("model", {})}
        return made


def rules_of(document: Mapping[str, Any], settings: Mapping[str, Any], config: Mapping[str, Any]) -> Rules:
    """Return the rules of the class that AutoTokenizer loads for a folder with these three files."""
    model_type = str(config.get("model_type"))
    of_type = _MODEL_TYPES.get(model_type, "Gemma" if model_type.startswith("gemma") else None)
    stated = settings.get("tokenizer_class") or config.get("tokenizer_class")
    kind = of_type if stated is None or model_type == "qwen2" else str(stated).replace("TokenizerFast", "Tokenizer")
    kind = None if kind is None else kind.removesuffix("Tokenizer")
    if kind == "Llama" and '"ByteLevel"' in json.dumps(document):
        kind = None
    padding = document.get("padding") or {}
    names = {} if padding.get("pad_token") is None else {"pad_token": padding["pad_token"]}
    if kind not in _DEFAULTS:
        return Rules(None, names, {})
    names |= _DEFAULTS[kind]
    unknown = settings.get("unk_token", names["unk_token"]) if "unk_token" in names else None
    parts = _by_sentencepiece(kind, settings, unknown) if kind in ("Llama", "Gemma") else _by_bytes(kind, settings)
    if kind == "GPTNeoX":
        parts["post_processor"] = None
    return Rules(f"{kind}Tokenizer", names, parts)


def _by_sentencepiece(kind: str, settings: Mapping[str, Any], unknown: Any) -> dict[str, Any]:
    model = {"fuse_unk": True, "byte_fallback": True, "unk_token": None, "ignore_merges": False}
    if kind == "Gemma":
        text = unknown["content"] if isinstance(unknown, Mapping) else unknown
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
        return {"normalizer": replace, "pre_tokenizer": None, "model": {**model, "unk_token": text}}
    place = "always" if settings.get("legacy", False) else "first"
    if settings.get("add_prefix_space") in (False, 0):
        place = "never"
    blanks = {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": place, "split": False}
    return {"normalizer": None, "pre_tokenizer": blanks, "model": model}


def _by_bytes(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    model = {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    by_bytes = {"type": "ByteLevel", "trim_offsets": True, "use_regex": kind != "Qwen2"}
    by_bytes["add_prefix_space"] = bool(settings.get("add_prefix_space"))
    steps: list[dict[str, Any]] = [by_bytes]
    if kind == "Qwen2":
        steps.insert(0, {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Isolated", "invert": False})
    normalizer = None if kind == "GPT2" else {"type": "NFC"}
    return {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {**model, "continuing_subword_prefix": None, "end_of_word_suffix": None},
    }

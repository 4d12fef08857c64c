"""The tokenizer classes of transformers 5, which decide what of tokenizer.json counts.

Most classes take tokenizer.json as it is. A few build the pipeline themselves and take the vocabulary, the merges and
the post-processor alone, so that a normaliser in the file is not used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tritpack.runtime.named_splits import PRE_TOKENIZERS
from tritpack.runtime.tokenizer import MODEL_DEFAULTS

_SPACE = "\u2581"  # sentencepiece's visible space
_STAGES = ("normalizer", "pre_tokenizer", "decoder")
Parts = dict[str, Any]
"""Parts of a tokenizer.json: the stages, and under `model` the switches that differ from MODEL_DEFAULTS."""


@dataclasses.dataclass(frozen=True)
class TokenizerClass:
    """A class that builds its pipeline itself. tokens: the special tokens that it has unless the settings name others.

    parts: from the settings and the special tokens by name. keeps_surrounding: whether the post-processor of
    tokenizer.json counts. plain_specials: special tokens have no flags, whatever the files say.
    """

    name: str
    tokens: Mapping[str, str]
    parts: Callable[[Mapping[str, Any], Mapping[str, str]], Parts]
    keeps_surrounding: bool = True
    plain_specials: bool = False


def _llama(settings: Mapping[str, Any], specials: Mapping[str, str]) -> Parts:
    prefix = settings.get("add_prefix_space")
    prefix = True if prefix is None else bool(prefix)
    scheme = "never" if not prefix else "always" if settings.get("legacy") else "first"
    steps = [{"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}, {"type": "ByteFallback"}]
    steps += [{"type": "Fuse"}]
    if prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "pre_tokenizer": {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": False},
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": {"fuse_unk": True, "byte_fallback": True},
    }


def _gemma(settings: Mapping[str, Any], specials: Mapping[str, str]) -> Parts:
    steps = [{"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}, {"type": "ByteFallback"}]
    return {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "decoder": {"type": "Sequence", "decoders": [*steps, {"type": "Fuse"}]},
        "model": {"fuse_unk": True, "byte_fallback": True, "unk_token": specials.get("unk_token")},
    }  # fmt: skip


def _bytes(normalizer: Mapping[str, Any] | None, pre_tokenizer: Mapping[str, Any]) -> Any:
    def parts(settings: Mapping[str, Any], specials: Mapping[str, str]) -> Parts:
        *steps, last = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
        last = {**last, "add_prefix_space": bool(settings.get("add_prefix_space"))}
        return {
            "normalizer": normalizer,
            "pre_tokenizer": {**pre_tokenizer, "pretokenizers": [*steps, last]} if steps else last,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {},
        }

    return parts


_GPT2 = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
_END = "<|endoftext|>"
_ENDS = {"unk_token": _END, "bos_token": _END, "eos_token": _END}
_SENTENCE = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_TURN = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "mask_token": "<mask>"}
CLASSES = {
    made.name: made
    for made in (
        TokenizerClass("LlamaTokenizer", _SENTENCE, _llama),
        TokenizerClass("GemmaTokenizer", _TURN, _gemma),
        TokenizerClass("GPT2Tokenizer", _ENDS, _bytes(None, _GPT2)),
        TokenizerClass(
            "GPTNeoXTokenizer",
            {**_ENDS, "pad_token": "<|padding|>"},
            _bytes({"type": "NFC"}, _GPT2),
            keeps_surrounding=False,
        ),
        TokenizerClass(
            "Qwen2Tokenizer",
            {"unk_token": _END, "eos_token": _END, "pad_token": _END},
            _bytes({"type": "NFC"}, PRE_TOKENIZERS["qwen2"]),
            plain_specials=True,
        ),
    )
}
# The class that transformers registers for a model type, of the types whose class builds its pipeline itself.
_REGISTERED = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2Tokenizer"),
    "gpt_neox": "GPTNeoXTokenizer",
}
_REGISTERED_WINS = ("qwen2",)  # transformers calls what these repositories name wrong


def class_of(settings: Mapping[str, Any], config: Mapping[str, Any], byte_level: bool) -> TokenizerClass | None:
    """Return the class that AutoTokenizer loads, None for one that takes tokenizer.json as it is.

    settings, config: tokenizer_config.json and config.json. byte_level: tokenizer.json contains a ByteLevel step.
    """
    registered = _REGISTERED.get(str(config.get("model_type")))
    name = settings.get("tokenizer_class") or config.get("tokenizer_class") or registered
    if config.get("model_type") in _REGISTERED_WINS:
        return CLASSES.get(str(registered))
    name = str(name).removesuffix("Fast")
    return None if name == "LlamaTokenizer" and byte_level else CLASSES.get(name)


def rebuild(
    document: Mapping[str, Any], kind: TokenizerClass, settings: Mapping[str, Any], specials: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Return tokenizer.json as `kind` builds it, without added tokens, and the names of the parts that differ.

    A part that the file spells differently, and that cuts text in the same way, stays as the file spells it.
    """
    parts = kind.parts(settings, specials)
    made, changed = {**document, "added_tokens": []}, []
    for stage in _STAGES:
        if _meaning(document.get(stage)) != _meaning(parts.get(stage)):
            made[stage] = parts.get(stage)
            changed.append(stage)
    model = dict(document["model"])
    for switch, usual in MODEL_DEFAULTS.items():
        value = parts["model"].get(switch, usual)
        if (model.get(switch) or None) != (value or None):
            model[switch] = value
            changed.append(switch)
    if not kind.keeps_surrounding and (document.get("post_processor") or {}).get("type") not in (None, "ByteLevel"):
        made["post_processor"] = None
        changed.append("post_processor")
    return {**made, "model": model}, changed


def _meaning(stage: Any) -> Any:
    """A stage without the fields that do not change ids, and without a Sequence around a single step."""
    if not isinstance(stage, dict):
        return stage
    inner: Any = next((stage[key] for key in ("normalizers", "pretokenizers", "decoders") if key in stage), None)
    if inner is not None and len(inner) == 1:
        return _meaning(inner[0])
    kept = {key: value for key, value in stage.items() if key != "trim_offsets"}
    if kept.get("type") == "ByteLevel":
        kept.setdefault("use_regex", True)
    return {key: [_meaning(step) for step in value] if value is inner else value for key, value in kept.items()}

"""vocab.json and merges.txt -> the tokenizer that transformers' class of that name makes of them.

The files say neither how a text is cut nor how it is normalised; the class named in tokenizer_config.json does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tritpack.converter.vocab.spm import REWRITE
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.runtime.pretokenizers import PRE_TOKENIZERS
from tritpack.runtime.tokenizer import import_tokenizers

_GPT2 = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
# Class -> normaliser, pre-tokenizer.
_CLASSES: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "GPT2Tokenizer": (None, _GPT2),
    "GPTNeoXTokenizer": ({"type": "NFC"}, _GPT2),
    "Qwen2Tokenizer": ({"type": "NFC"}, PRE_TOKENIZERS["qwen2"]),
}


def load_vocab_and_merges(path: Path, settings: dict[str, Any]) -> Any:
    """The `tokenizers.Tokenizer` of vocab.json at `path` and merges.txt beside it."""
    name = str(settings.get("tokenizer_class"))
    if name.removesuffix("Fast") not in _CLASSES:
        raise Unsupported(
            f"{path}: the tokenizer comes as vocab.json only, and its class {name} in tokenizer_config.json does not "
            f"say how it cuts text ({', '.join(_CLASSES)} do)",
            hint=REWRITE,
        )
    normalizer, pre_tokenizer = _CLASSES[name.removesuffix("Fast")]
    space = bool(settings.get("add_prefix_space"))
    if pre_tokenizer["type"] == "ByteLevel":
        pre_tokenizer = {**pre_tokenizer, "add_prefix_space": space}
    elif space:
        *steps, last = pre_tokenizer["pretokenizers"]
        pre_tokenizer = {**pre_tokenizer, "pretokenizers": [*steps, {**last, "add_prefix_space": True}]}
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
        lines = (path.parent / "merges.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError, RecursionError) as exc:
        raise Unreadable(f"{path}: it and merges.txt beside it are not both readable ({exc})") from exc
    document: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [line for line in lines if line and not line.startswith("#version")],
        },
    }
    try:
        return import_tokenizers().Tokenizer.from_str(json.dumps(document))
    except Exception as exc:  # the library raises bare Exception for anything it cannot take
        raise Unreadable(f"{path}: it and merges.txt do not fit together ({exc})") from exc

"""Loader of vocab.json and merges.txt, as the tokenizer class of transformers loads them.

The two files contain neither the split nor the normaliser; the class in tokenizer_config.json determines both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tritpack.converter.vocab.spm import REWRITE
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.pretokenizers import PRE_TOKENIZERS

_GPT2 = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
# Class of transformers -> normaliser, pre-tokenizer.
_CLASSES: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "GPT2Tokenizer": (None, _GPT2),
    "GPTNeoXTokenizer": ({"type": "NFC"}, _GPT2),
    "Qwen2Tokenizer": ({"type": "NFC"}, PRE_TOKENIZERS["qwen2"]),
}


def load_vocab_and_merges(path: Path, settings: dict[str, Any]) -> BoundedTokenizer:
    """Load the tokenizer of vocab.json at `path` and merges.txt in the same folder.

    Raises Unsupported for an unknown class, Unreadable for files that are missing, corrupt or contradictory.
    """
    name = str(settings.get("tokenizer_class"))
    if name.removesuffix("Fast") not in _CLASSES:
        raise Unsupported(
            f"there is no tokenizer.json, and tokenizer_config.json names the class {name}, whose way to split text is "
            f"unknown (the known classes are {', '.join(_CLASSES)})",
            path=path,
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
        raise Unreadable(f"it and merges.txt beside it are not both readable ({exc})", path=path) from exc
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
        return BoundedTokenizer(json.dumps(document))
    except ValueError as exc:
        raise Unreadable(f"it and merges.txt contradict each other ({exc})", path=path) from exc

"""Loader of vocab.json and merges.txt, as the tokenizer class of transformers loads them.

The two files contain neither the split nor the normaliser; the class in tokenizer_config.json determines both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tritpack.converter.vocab.classes import CLASSES, TokenizerClass
from tritpack.converter.vocab.spm import REWRITE
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer


def load_vocab_and_merges(path: Path, settings: dict[str, Any], kind: TokenizerClass | None) -> BoundedTokenizer:
    """Load the tokenizer of vocab.json at `path` and merges.txt in the same folder.

    Raises Unsupported for an unknown class, Unreadable for files that are missing, corrupt or contradictory.
    """
    parts = None if kind is None else kind.parts(settings, {})
    if parts is None or parts["decoder"]["type"] != "ByteLevel":
        raise Unsupported(
            f"there is no tokenizer.json, and tokenizer_config.json names the class {settings.get('tokenizer_class')}, "
            f"whose way to split text is unknown (the known classes are {', '.join(_byte_level_classes())})",
            path=path,
            hint=REWRITE,
        )
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
        lines = (path.parent / "merges.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError, RecursionError) as exc:
        raise Unreadable(f"it and merges.txt beside it are not both readable ({exc})", path=path) from exc
    document: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        **parts,
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [line for line in lines if line and not line.startswith("#version")],
        },
    }
    try:
        return BoundedTokenizer(json.dumps(document), path)
    except ValueError as exc:
        raise Unreadable(f"it and merges.txt contradict each other ({exc})", path=path) from exc


def _byte_level_classes() -> list[str]:
    return [name for name, kind in CLASSES.items() if kind.parts({}, {})["decoder"]["type"] == "ByteLevel"]

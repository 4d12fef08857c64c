"""The second reader of tokenizers, and the converter's, against AutoTokenizer of transformers, for every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.make.texts import awkward_texts
from tests.make.tokenizers import KINDS, write_tokenizer
from tritpack.converter.verify.oracle.tokenizer import FolderTokenizer, Transformers
from tritpack.converter.vocab import read_vocabulary
from tritpack.runtime.chat import chat_text, render_chat
from tritpack.runtime.tokenizer import Tokenizer

pytest.importorskip("transformers", reason="the oracle transformers is not installed")
pytest.importorskip("sentencepiece")
MODEL_TYPES = {"qwen2": "qwen3", "gemma": "gemma3_text", "minicpm": "minicpm"}
CHAT = [{"role": "user", "content": " Hi \n"}]
EVERY_NAME = "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}|{{ mask_token }}{{ messages[0].content }}"
EDITS: dict[str, dict[str, Any]] = {
    "as saved": {},
    "legacy": {"legacy": True, "tokenizer_class": "LlamaTokenizer"},
    "not legacy": {"legacy": False, "tokenizer_class": "LlamaTokenizerFast"},
    "split": {"split_special_tokens": True},
    "names": {"chat_template": EVERY_NAME},
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", KINDS)
def test_both_readers_agree_with_transformers(tmp_path: Path, kind: str, edit: str) -> None:
    config = {**write_tokenizer(tmp_path, kind), "model_type": MODEL_TYPES.get(kind, "llama")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **EDITS[edit]}))
    theirs = Transformers(tmp_path, config)
    second = FolderTokenizer(tmp_path, config, config["vocab_size"])
    ours = Tokenizer.from_metadata(read_vocabulary(tmp_path, config, {}))
    texts = [*awkward_texts()[:200], *(f"  {token}  \n{token}b" for token in theirs.specials)]
    answers = (theirs.ids(texts, True), second.ids(texts, True), ours.encode_batch(texts))
    for text, expected, seconds, got in zip(texts, *answers, strict=True):
        assert seconds == got == expected, repr(text)
    if theirs.template is not None:
        chat = theirs.chat(CHAT)
        assert render_chat(theirs.template, CHAT, special_tokens=second.special_tokens) == chat
        assert chat_text(ours, CHAT) == chat

"""The second reader of tokenizers that are not in a tokenizer.json, against the converter's and transformers'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.inputs import write_folder
from tests.hostile import generate
from tests.make.texts import awkward_texts
from tests.make.tokenizers import train_sentencepiece, write_tokenizer
from tritpack.converter.verify.oracle.sentencepiece_model import SentencePieceTokenizer
from tritpack.converter.verify.oracle.tokenizer import FolderTokenizer, TokenizerOracle
from tritpack.converter.vocab import read_vocabulary
from tritpack.formats.errors import Unreadable
from tritpack.runtime import untrusted
from tritpack.runtime.tokenizer import Tokenizer

pytest.importorskip("sentencepiece")
ADDED = {
    "384": {"content": "<|turn|>", "special": True, "lstrip": True, "rstrip": True},
    "385": {"content": "<b>", "special": False, "normalized": True},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "no class": {},
    "no class, legacy false": {"legacy": False},
    "no prefix": {"add_prefix_space": False, "add_bos_token": False, "add_eos_token": True},
    "Llama": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True},
    "Llama, legacy": {"tokenizer_class": "LlamaTokenizerFast", "legacy": True},
    "1bitLLM": {"tokenizer_class": "BitnetTokenizer", "legacy": False},
    "split": {"split_special_tokens": True},
}


def require_equal(folder: Path, second: TokenizerOracle) -> None:
    ours = Tokenizer.from_metadata(read_vocabulary(folder, {}, {}))
    marks = [f"a{token} b{token}{token}  c" for token in (*second.specials, "<s>", "</s>", "<unk>")]
    texts = [*awkward_texts(), *marks, *(f"  {mark}  \n" for mark in marks)]
    for text, got, expected in zip(texts, second.ids(texts, True), ours.encode_batch(texts), strict=True):
        assert got == expected, repr(text)
    assert second.ids(["a<s>"], False) == [ours.encode("a<s>", add_special=False)]


@pytest.mark.parametrize("added", [{}, ADDED], ids=["bare", "added"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_sentencepiece_model_alone(name: str, added: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train_sentencepiece(384))
    settings = {**SETTINGS[name], **({"added_tokens_decoder": added} if added else {})}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    require_equal(tmp_path, SentencePieceTokenizer(tmp_path, {}, 387))


@pytest.mark.parametrize("name", ["GPTNeoXTokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer"])
def test_vocab_and_merges(name: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "neox")
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(document["model"]["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, document["model"]["merges"]), ""]))
    path = tmp_path / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), "tokenizer_class": name}
    for more in ({}, {"add_bos_token": True}, {"add_prefix_space": True}):
        path.write_text(json.dumps({**settings, **more}))
        require_equal(tmp_path, FolderTokenizer(tmp_path, {}, 10**6))
    path.write_text(json.dumps({**settings, "tokenizer_class": "OddTokenizer"}))
    with pytest.raises(Unreadable, match=r"vocab\.json: its class is unknown"):
        FolderTokenizer(tmp_path, {}, 10**6)


@pytest.mark.parametrize(("part", "words"), [
    ({"post_processor": generate.template("<x>")}, "no entry found"), ({"normalizer": generate.growth(4)}, "memory"),
], ids=["panic", "abort"])  # fmt: skip
def test_a_hostile_source_ends_another_process(
    part: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "MEMORY", 400 << 20)
    write_folder(json.loads(generate.checkpoint(**part)), tmp_path)
    second = FolderTokenizer(tmp_path, {}, 8)
    with pytest.raises(Unreadable, match=rf"tokenizer\.json: the tokenizer .*{words}"):
        second.ids(["a"], True)


def test_a_file_that_is_no_sentencepiece_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(Unreadable, match=r"tokenizer\.model: it is not a sentencepiece model"):
        SentencePieceTokenizer(tmp_path, {}, 387)

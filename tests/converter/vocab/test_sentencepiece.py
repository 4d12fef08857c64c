"""converter/vocab/spm.py: tokenizer.model without tokenizer.json, against the sentencepiece package itself."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.make.texts import awkward_texts
from tests.make.tokenizers import train_sentencepiece
from tritpack.converter.vocab import read_vocabulary
from tritpack.formats.errors import MissingRequirement, Unsupported
from tritpack.runtime.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")


def _sentencepiece(folder: Path, raw: bytes, **settings: Any) -> Tokenizer:
    (folder / "tokenizer.model").write_bytes(raw)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer.from_metadata(read_vocabulary(folder, {}, {}))


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"byte_fallback": False}, {"add_dummy_prefix": False, "user_defined_symbols": "\n,<|x|>,▁▁,▁▁▁▁"}],
    ids=["usual", "no bytes", "symbols"],
)
def test_sentencepiece_alone_gives_sentencepieces_ids(tmp_path: Path, options: dict[str, Any], legacy: bool) -> None:
    raw = train_sentencepiece(384 if options.get("byte_fallback", True) else 160, **options)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=raw)
    ours = _sentencepiece(tmp_path, raw, legacy=legacy)
    assert (ours.bos_token, ours.eos_token, ours.encode("a")[0]) == ("<s>", "</s>", 1)
    for text in awkward_texts():
        if "<s>" not in text and "</s>" not in text:
            assert ours.encode(text, add_special=False) == theirs.encode(text), repr(text)


def test_where_the_space_before_a_text_goes(tmp_path: Path) -> None:
    raw = train_sentencepiece(384)

    def pieces(text: str, **settings: Any) -> list[str]:
        ours = _sentencepiece(tmp_path, raw, **settings)
        return [ours.token_text(i) for i in ours.encode(text, add_special=False)]

    assert pieces(" the</s>the") == ["▁", "▁the", "</s>", "▁the"]
    assert pieces(" the</s>the", legacy=False) == ["▁", "▁the", "</s>", "t", "he"]
    assert pieces("the</s>the", add_prefix_space=False) == ["t", "he", "</s>", "t", "he"]
    assert _sentencepiece(tmp_path, raw, add_bos_token=False, add_eos_token=True).encode("a")[-1] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_type": "unigram", "hard_vocab_limit": False}, "of kind unigram"),
        ({"normalization_rule_name": "nmt_nfkc"}, "replaces characters"),
        ({"remove_extra_whitespaces": True}, "cannot be repeated exactly"),
        ({"treat_whitespace_as_suffix": True}, "cannot be repeated exactly"),
        ({"user_defined_symbols": "\n"}, "cannot be repeated exactly"),
    ],
)
def test_sentencepiece_that_cannot_be_repeated(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        _sentencepiece(tmp_path, train_sentencepiece(384, **options))


def test_the_package_sentencepiece_is_missed_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = train_sentencepiece(384)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingRequirement) as caught:
        _sentencepiece(tmp_path, raw)
    assert caught.value.hint == "pip install sentencepiece"


def test_the_fixture_without_its_tokenizer_json(shared: Path, tmp_path: Path) -> None:
    source, folder = shared / "checkpoints" / "onebitllm_large", tmp_path / "copy"
    folder.mkdir()
    for path in source.glob("*token*"):
        shutil.copy(path, folder)
    (folder / "tokenizer.json").unlink()
    config, generation = (json.loads((source / n).read_text()) for n in ("config.json", "generation_config.json"))
    metadata = read_vocabulary(folder, config, generation)
    ours, other = (Tokenizer.from_metadata(m) for m in (metadata, read_vocabulary(source, config, generation)))
    answers = json.loads((source / "fixture.json").read_text())
    assert ours.encode(answers["prompt"]) == answers["prompt_ids"]
    for text in awkward_texts():
        assert ours.encode(text) == other.encode(text), repr(text)
    scores = metadata["tokenizer.ggml.scores"]
    assert scores[259] == 0 and scores[260] == -1 and scores[384] == -1000  # the model's own; added tokens have none

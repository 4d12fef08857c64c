"""Every kind of tokenizer that ternary checkpoints ship: files -> keys -> the same tokenizer, to the last id."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make.texts import awkward_texts
from tests.make.tokenizers import BITNET_CHAT, KINDS, write_tokenizer
from tritpack.converter.vocab import read_vocabulary, vocabulary_from_gguf
from tritpack.formats.errors import Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import write_gguf
from tritpack.runtime.chat import chat_ids
from tritpack.runtime.tokenizer import BITNET_TEMPLATE, KEY_STOP_IDS, Tokenizer

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("sentencepiece")
BYTE_LEVEL = ("llama3", "falcon3", "qwen2", "neox")
CHAT = [{"role": "user", "content": "Are the lanterns lit?"}, {"role": "assistant", "content": "Seven."}]


@dataclasses.dataclass
class Family:
    folder: Path
    config: dict[str, Any]
    theirs: Any  # the tokenizers library on tokenizer.json
    metadata: dict[str, Any]
    ours: Tokenizer


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def make(kind: str) -> Family:
        folder = tmp_path_factory.mktemp(kind)
        config = write_tokenizer(folder, kind)
        metadata = read(folder, config)
        theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        return Family(folder, config, theirs, metadata, Tokenizer.from_metadata(metadata))

    return make


def read(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    generation = folder / "generation_config.json"
    return read_vocabulary(folder, config, json.loads(generation.read_text()) if generation.is_file() else {})


def without(source: Path, target: Path, *names: str) -> Path:
    """A copy of a folder that lacks some files."""
    shutil.copytree(source, target)
    for name in names:
        (target / name).unlink()
    return target


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "minicpm"])  # its class does not use tokenizer.json
def test_the_same_ids_as_the_checkpoints_own_tokenizer(family: Any, kind: str) -> None:
    ours, theirs = family(kind).ours, family(kind).theirs
    for text in awkward_texts():
        ids = ours.encode(text, add_special=False)
        assert ids == theirs.encode(text, add_special_tokens=False).ids, repr(text)
        assert ours.encode(text) == theirs.encode(text).ids, repr(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), repr(text)
    theirs.encode_special_tokens = True
    for text in awkward_texts()[-1200:]:
        assert ours.encode(text, parse_special=False) == theirs.encode(text).ids, repr(text)
    theirs.encode_special_tokens = False


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "minicpm"])  # its class drops a leading blank
def test_text_comes_back_where_the_tokenizer_keeps_it(family: Any, kind: str) -> None:
    ours, nfc = family(kind).ours, tokenizers.normalizers.NFC()  # the library's Unicode may be newer than Python's
    for text in awkward_texts():
        kept = nfc.normalize_str(text) if kind in ("qwen2", "neox") else text
        if kind not in BYTE_LEVEL and ("▁" in text or "<0x" in text):
            continue  # sentencepiece spells a space so, and a byte
        ids = ours.encode(text, add_special=False, parse_special=False)
        assert ours.decode(ids) == kept, repr(text)
        spaced = f" {kept}" if kind == "llama2" and text else kept
        assert b"".join(map(ours.token_bytes, ids)) == spaced.encode(), repr(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_ids_as_transformers(family: Any, kind: str, tmp_path: Path) -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    transformers = pytest.importorskip("transformers", reason="the oracle transformers is not installed")
    folder = without(family(kind).folder, tmp_path / "copy")
    (folder / "config.json").write_text(json.dumps({**family(kind).config, "model_type": "llama"}))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(str(folder)), family(kind).ours
    for text in awkward_texts():
        assert ours.encode(text) == theirs(text)["input_ids"], repr(text)
    assert (ours.bos_token, ours.eos_token) == (theirs.bos_token, theirs.eos_token)
    if ours.chat_template:
        assert chat_ids(ours, CHAT) == theirs.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]


KEYS = {  # kind -> model, pre, add_bos_token, add_space_prefix, texts that stop
    "llama3": ("gpt2", "llama-bpe", True, None, {"<|end_of_text|>", "<|eot_id|>"}),
    "falcon3": ("gpt2", "falcon3", False, None, {"<|endoftext|>"}),
    "qwen2": ("gpt2", "qwen2", False, None, {"<|endoftext|>", "<|im_end|>"}),
    "neox": ("gpt2", "gpt-2", False, None, {"<|endoftext|>"}),
    "gemma": ("llama", "default", True, False, {"<eos>", "<end_of_turn>"}),
    "llama2": ("llama", "default", True, True, {"</s>"}),
    "minicpm": ("llama", "default", True, True, {"</s>", "<|im_end|>"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_each_kind(family: Any, kind: str) -> None:
    metadata, ours = family(kind).metadata, family(kind).ours
    names = ("model", "pre", "add_bos_token", "add_space_prefix")
    stops = {ours.token_text(i) for i in ours.stop_ids}
    assert (*(metadata.get(f"tokenizer.ggml.{name}") for name in names), stops) == KEYS[kind]
    assert metadata["tokenizer.ggml.add_eos_token"] is False
    assert len(metadata["tokenizer.ggml.tokens"]) == ours.vocab_size == family(kind).config["vocab_size"]
    # Configs name a BOS that Falcon's and Qwen's tokenizers do not have.
    has_bos = kind not in ("falcon3", "qwen2")
    assert ours.bos_id == (family(kind).config["bos_token_id"] if has_bos else None)


@pytest.mark.parametrize("kind", ["qwen2", "gemma"])
def test_an_embedding_models_eos_is_kept(kind: str, tmp_path: Path) -> None:
    config = write_tokenizer(tmp_path, kind, append_eos=True)
    metadata = read(tmp_path, config)
    ours, theirs = Tokenizer.from_metadata(metadata), tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert metadata["tokenizer.ggml.add_eos_token"] is True and "tokenizer.chat_template" not in metadata
    assert ours.encode("a")[-1] == config["eos_token_id"] and ours.stop_ids == {config["eos_token_id"]}
    assert all(ours.encode(text) == theirs.encode(text).ids for text in awkward_texts()[-300:])
    with pytest.raises(AssertionError):
        write_tokenizer(tmp_path, kind, vocab_size=100)


@pytest.mark.parametrize("kind", ["gemma", "llama2", "minicpm", "qwen2"])
def test_without_tokenizer_json(family: Any, kind: str, tmp_path: Path) -> None:
    metadata = read(without(family(kind).folder, tmp_path / "copy", "tokenizer.json"), family(kind).config)
    expected, ours = family(kind).metadata, Tokenizer.from_metadata(metadata)
    own = {"tokenizer.ggml.scores", "tritpack.tokenizer.pipeline", "tritpack.tokenizer.added_tokens"}
    for key in {*metadata, *expected} - own - {"tritpack.tokenizer.merges"}:
        assert np.array_equal(metadata.get(key), expected.get(key)), key
    for text in awkward_texts():
        # Gemma's tokenizer.json takes a run of visible spaces in a text for a token, sentencepiece any run of spaces.
        if kind != "gemma" or "▁▁" not in text.replace(" ", "▁") or "▁" not in text:
            assert ours.encode(text) == family(kind).ours.encode(text), repr(text)


def _foreign(metadata: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if not key.startswith("tritpack.")} | more


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_ours_keeps_its_keys(family: Any, kind: str, tmp_path: Path) -> None:
    def cycle(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        write_gguf(tmp_path / name, {"general.architecture": "llama", **metadata}, [], [])
        return vocabulary_from_gguf(GgufFile(tmp_path / name).metadata, family(kind).config["vocab_size"])

    again = cycle("first.gguf", family(kind).metadata)
    cycle("second.gguf", again)
    assert (tmp_path / "first.gguf").read_bytes() == (tmp_path / "second.gguf").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_file_gets_what_it_leaves_open(family: Any, kind: str) -> None:
    foreign = _foreign(family(kind).metadata)
    metadata = vocabulary_from_gguf(foreign, family(kind).config["vocab_size"] + 3)
    before, after = Tokenizer.from_metadata(foreign), Tokenizer.from_metadata(metadata)
    for text in awkward_texts()[-600:]:
        assert after.encode(text) == before.encode(text), repr(text)
    assert after.vocab_size == before.vocab_size + 3 and after.eos_id in after.stop_ids
    assert family(kind).metadata.get("tokenizer.ggml.eot_token_id", after.eos_id) in after.stop_ids
    missing = set(family(kind).metadata) - set(metadata) - {"tritpack.tokenizer.added_in_model"}
    assert not missing and metadata["tokenizer.ggml.token_type"][-1] == 5
    plain = "The quiet machine counted 12 lanterns, and nobody asked why."
    assert before.encode(plain) == family(kind).ours.encode(plain)
    with pytest.raises(Unsupported, match="vocabulary of 100"):
        vocabulary_from_gguf(foreign, 100)


@pytest.mark.parametrize("architecture", ["bitnet-25", "bitnet-b1.58"])
def test_the_published_2b4t_files(family: Any, architecture: str) -> None:
    stub = {"general.architecture": architecture, "tokenizer.chat_template": "{{ 'Human: ' + m + 'BITNETAssistant:' }}"}
    foreign = _foreign(family("llama3").metadata, **stub)
    for key in ("pre", "add_bos_token", "add_eos_token", "eot_token_id"):
        del foreign[f"tokenizer.ggml.{key}"]
    metadata = vocabulary_from_gguf(foreign, family("llama3").config["vocab_size"])
    expected = family("llama3").metadata
    assert BITNET_TEMPLATE == BITNET_CHAT == metadata["tokenizer.chat_template"]
    for key in ("pre", "add_bos_token", "bos_token_id", "eos_token_id", "eot_token_id"):
        assert metadata[f"tokenizer.ggml.{key}"] == expected[f"tokenizer.ggml.{key}"], key
    assert set(expected[KEY_STOP_IDS]) <= set(metadata[KEY_STOP_IDS])
    ours = Tokenizer.from_metadata(metadata)
    assert all(ours.encode(text) == family("llama3").ours.encode(text) for text in awkward_texts())

"""runtime/tokenizer.py: metadata alone -> the tokenizer, for our files and for foreign ones."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY, SHARED
from tests.make.texts import awkward_texts
from tests.make.tokenizers import write_tokenizer
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.runtime import tokenizer as module
from tritpack.runtime.named_splits import PRE_TOKENIZERS
from tritpack.runtime.tokenizer import BITNET_TEMPLATE, Tokenizer, merges_from_scores

tokenizers = pytest.importorskip("tokenizers")


def foreign_metadata(made: Any, **more: Any) -> dict[str, Any]:
    """What another writer's GGUF would hold of `made`: no key of ours."""
    document = json.loads(made.to_str())
    ids = made.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.__getitem__)
    added = made.get_added_tokens_decoder()
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3 if ids[t] in added else 1 for t in tokens], dtype=np.int32),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in document["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": ids["<|begin_of_text|>"],
        "tokenizer.ggml.eos_token_id": ids["<|end_of_text|>"],
        **more,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("llama3")
    write_tokenizer(folder, "llama3")
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_foreign_llama_bpe_equals_the_library(made: Any) -> None:
    ours = Tokenizer.from_metadata(foreign_metadata(made))
    assert ours.vocab_size == made.get_vocab_size()
    for text in awkward_texts():
        assert ours.encode(text) == made.encode(text).ids, repr(text)
        assert ours.encode(text, add_special=False) == made.encode(text, add_special_tokens=False).ids, repr(text)


def test_decode_and_token_bytes_give_the_text_back(made: Any) -> None:
    ours = Tokenizer.from_metadata(foreign_metadata(made))
    for text in awkward_texts():
        ids = ours.encode(text, add_special=False)
        assert b"".join(map(ours.token_bytes, ids)) == text.encode(), repr(text)
        assert ours.decode(ids) == text, repr(text)
    for text in awkward_texts()[::9]:
        ids = ours.encode(text, add_special=False)
        for end in range(len(ids)):  # every prefix as the library decodes it, cut characters included
            assert ours.decode(ids[:end]) == made.decode(ids[:end], skip_special_tokens=False), repr(text)


def test_specials_can_be_left_out_of_parsing_and_of_text(made: Any) -> None:
    ours = Tokenizer.from_metadata(foreign_metadata(made))
    eot = made.token_to_id("<|eot_id|>")
    assert eot in ours.encode("a<|eot_id|>") and eot not in ours.encode("a<|eot_id|>", parse_special=False)
    assert ours.decode(ours.encode("a<|eot_id|>", parse_special=False), skip_special=True) == "a<|eot_id|>"
    assert ours.decode(ours.encode("a<|eot_id|>"), skip_special=True) == "a"
    assert ours.is_control(eot) and not ours.is_control(0)
    named = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>")  # the latter two by their names
    assert ours.stop_ids == {made.token_to_id(text) for text in named}
    assert (ours.bos_token, ours.eos_token) == ("<|begin_of_text|>", "<|end_of_text|>")
    assert ours.token_text(eot) == "<|eot_id|>"


def test_bos_follows_add_bos_token(made: Any) -> None:
    metadata = foreign_metadata(made)
    bos = metadata["tokenizer.ggml.bos_token_id"]
    assert Tokenizer.from_metadata({**metadata, "tokenizer.ggml.add_bos_token": False}).encode("a")[0] != bos
    with_eos = Tokenizer.from_metadata({**metadata, "tokenizer.ggml.add_eos_token": True}).encode("a")
    assert with_eos[0] == bos and with_eos[-1] == metadata["tokenizer.ggml.eos_token_id"]
    # llama.cpp adds a BOS by itself for this group of names only
    assert Tokenizer.from_metadata({**metadata, "tokenizer.ggml.pre": "qwen2"}).encode("a")[0] != bos


def test_the_published_2b4t_file_lacks_pre_and_carries_a_stub(made: Any) -> None:
    metadata = foreign_metadata(made, **{"general.architecture": "bitnet-b1.58"})
    del metadata["tokenizer.ggml.pre"]
    metadata["tokenizer.chat_template"] = "{{ 'Human: ' + m + 'BITNETAssistant:' }}"
    ours = Tokenizer.from_metadata(metadata)
    assert ours.chat_template == BITNET_TEMPLATE
    text = "they've 123456 lanterns\n\n  x"
    assert ours.encode(text) == made.encode(text).ids
    metadata["general.architecture"] = "llama"  # elsewhere, no name means llama.cpp's default, which cuts otherwise
    assert Tokenizer.from_metadata(metadata).encode("12 + 34 = 46!!\n\n") != made.encode("12 + 34 = 46!!\n\n").ids


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_known_pre_round_trips(made: Any, name: str) -> None:
    ours = Tokenizer.from_metadata(foreign_metadata(made, **{"tokenizer.ggml.pre": name}))
    for text in awkward_texts()[:60]:
        assert ours.decode(ours.encode(text, add_special=False)) == text, repr(text)


def test_specials_at_the_lowest_ids_keep_their_numbers() -> None:
    byte_tokens = sorted(module._byte_of_char(), key=module._byte_of_char().__getitem__)
    tokens = ["<s>", "<|user|>", *byte_tokens, "</s>"]
    types = [3, 4, *[1] * 256, 3]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "falcon3",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.add_bos_token": False,
    }
    ours = Tokenizer.from_metadata(metadata)
    assert ours.encode("<|user|>A</s>") == [1, 2 + 0x41, 258]
    assert ours.bos_id is None and ours.bos_token is None and ours.stop_ids == frozenset()


def sentencepiece_metadata() -> dict[str, Any]:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *"▁abcdelho", "he", "ll", "hell", "▁hell"]
    pieces += ["▁a", "lo", "hello"]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)]
    scores = [0.0] * 259 + [-100.0] * 9 + [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": np.array(types, dtype=np.int32),
        "tokenizer.ggml.scores": np.array(scores, dtype=np.float32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def test_sentencepiece_by_scores() -> None:
    metadata = sentencepiece_metadata()
    ours = Tokenizer.from_metadata(metadata)
    pieces = [ours.token_text(i) for i in ours.encode("hello é")]
    assert pieces == ["<s>", "▁hell", "o", "▁", "<0xC3>", "<0xA9>"]
    ids = ours.encode("hello é", add_special=False)
    assert ours.decode(ids) == "hello é"
    assert b"".join(map(ours.token_bytes, ids)) == " hello é".encode()
    without = Tokenizer.from_metadata({**metadata, "tokenizer.ggml.add_space_prefix": False})
    assert [without.token_text(i) for i in without.encode("hello", add_special=False)] == ["hello"]
    merges = merges_from_scores(metadata["tokenizer.ggml.tokens"], [1] * 300, metadata["tokenizer.ggml.scores"])
    assert merges[0] == "h e" and merges.index("hell o") > merges.index("l o")


def test_engines_golden_files_hold_a_vocabulary_we_can_read() -> None:
    folder = SHARED / "golden" / "engines"
    path = folder / "llamacpp_bitnet_tq2_0.gguf"
    gguf = pytest.importorskip("gguf")
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    fields = gguf.GGUFReader(path).fields
    metadata = {key: field.contents() for key, field in fields.items()}
    ours = Tokenizer.from_metadata(metadata)
    assert ours.vocab_size == 288 and ours.bos_id == 1 and 2 in ours.stop_ids
    assert ours.encode("hello")[0] == 1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tokenizer.ggml.tokens": None}, Unsupported, "no tokenizer"),
        ({"tokenizer.ggml.model": "none"}, Unsupported, "no tokenizer"),
        ({"tokenizer.ggml.model": "t5"}, Unsupported, "'t5'"),
        ({"tokenizer.ggml.pre": "no-such-name"}, Unsupported, "no-such-name"),
        ({"tokenizer.ggml.merges": None}, Unreadable, "merges"),
        ({"tokenizer.ggml.merges": ["q notthere"]}, Unreadable, "contradict each other"),
        ({"tokenizer.ggml.token_type": [1, 2]}, Unreadable, "token_type"),
        ({"tokenizer.ggml.bos_token_id": 10**6}, Unreadable, "bos_token_id"),
        ({"tokenizer.ggml.padding_token_id": "x"}, Unreadable, "padding_token_id is 'x', expected the id"),
        (
            {"tokenizer.ggml.token_type": ["x"]},
            Unreadable,
            "token_type is an array of str, expected an array of integers",
        ),
        ({"tokenizer.ggml.token_type": 7}, Unreadable, "token_type is 7, expected an array of integers"),
        ({"tokenizer.ggml.tokens": "abc"}, Unreadable, "tokens is 'abc', expected an array of texts"),
        ({"tokenizer.ggml.merges": [1, 2]}, Unreadable, "merges is an array of int, expected an array of texts"),
        (
            {module.KEY_STOP_IDS: [True]},
            Unreadable,
            "is an array of bool, expected an array of integers",
        ),
        ({module.KEY_PIPELINE: "{"}, Unreadable, "JSON"),
        ({module.KEY_PIPELINE: "[]"}, Unreadable, "object"),
        ({module.KEY_PIPELINE: '{"pre_tokenizer": {"type": "Nonsense"}}'}, Unreadable, "contradict each other"),
        ({module.KEY_PIPELINE: '{"model": 3}'}, Unreadable, "model"),
        ({module.KEY_PIPELINE: "{}", module.KEY_ADDED_IN_MODEL: [10**6]}, Unreadable, "outside"),
        ({module.KEY_PIPELINE: "{}", module.KEY_ADDED_TOKENS: "7"}, Unreadable, "object"),
    ],
)
def test_bad_metadata_gets_a_sentence(made: Any, change: dict[str, Any], error: type, words: str) -> None:
    metadata = {**foreign_metadata(made), **change}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with pytest.raises(error, match=words):
        Tokenizer.from_metadata(metadata)


def test_ids_and_texts_that_cannot_be(made: Any) -> None:
    ours = Tokenizer.from_metadata(foreign_metadata(made))
    for bad in (-1, ours.vocab_size):
        with pytest.raises(UsageError, match="outside the vocabulary"):
            ours.decode([bad])
        with pytest.raises(UsageError):
            ours.token_bytes(bad)
    with pytest.raises(UsageError, match="Unicode"):
        ours.encode("\ud800")


def test_the_libraries_are_not_imported_here() -> None:
    code = (
        "import sys, tritpack.runtime.chat, tritpack.runtime.generate; "
        "print({'tokenizers', 'jinja2'} & set(sys.modules))"
    )
    root = REPOSITORY
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "tokens", [["a" * 400_000], ["a" * length for length in range(1, 1000)] * 40], ids=["one long", "many long"]
)
def test_merges_of_long_tokens_are_not_sought(tokens: list[str]) -> None:
    tokens = [f"{text[:-5]}{i:05}" for i, text in enumerate(tokens)]
    with pytest.raises(Unreadable, match="cannot be rebuilt from its scores: its tokens have up to"):
        merges_from_scores(tokens, [1] * len(tokens), [0.0] * len(tokens))


def test_a_vocabulary_of_llama3_size() -> None:
    # Every word over seven letters: each has as many merges as places to cut it, as in Llama 3's 280147.
    words = ("".join(letters) for size in range(2, 7) for letters in itertools.product("etaoins", repeat=size))
    texts = [*module._byte_of_char(), *words][:128_000]
    merges = [f"{text[:cut]} {text[cut:]}" for text in texts for cut in range(1, len(text))][:280_147]
    assert len(texts) == 128_000 and len(merges) == 280_147
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": [*texts, *(f"<|reserved_{i}|>" for i in range(256))],
        "tokenizer.ggml.token_type": np.array([1] * 128_000 + [3] * 256, dtype=np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 128_000,
    }
    ours = Tokenizer.from_metadata(metadata)
    assert ours.vocab_size == 128_256 and ours.decode(ours.encode("any text", add_special=False)) == "any text"

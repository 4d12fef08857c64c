"""runtime/named_splits.py against llama.cpp itself: the same ids for every name in `tokenizer.ggml.pre`."""

from __future__ import annotations

import ctypes
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make.texts import awkward_texts
from tritpack.converter.vocab.probes import texts_that_show_cuts
from tritpack.formats.errors import Unsupported
from tritpack.formats.gguf_writer import write_gguf
from tritpack.runtime.named_splits import ALIASES, PRE_TOKENIZERS, RAW_NAMES
from tritpack.runtime.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")

ONLY_IN_FORKS = {"falcon_e", "falcon-e"}
NAMES = [
    *PRE_TOKENIZERS,
    *(pytest.param(name, marks=pytest.mark.slow) for name in ALIASES if name not in ONLY_IN_FORKS),
]


def texts() -> list[str]:
    """The probes of the converter, and others that it does not use.

    llama.cpp takes some texts such as <end_of_turn> for special tokens wherever the vocabulary has them.
    """
    chance = random.Random(11)
    others = chance.sample([text for text in awkward_texts() if len(text) < 200 and "<" not in text], 300)
    return [*texts_that_show_cuts(), *(text.replace("\x00", "") for text in others)]


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, Any]:
    """Keys of a byte-level BPE that has learnt whole texts, so that every cut inside one shows in the ids."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=20_000,
        min_frequency=1,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts(), trainer)
    document = json.loads(made.to_str())["model"]
    tokens = [*sorted(document["vocab"], key=document["vocab"].__getitem__), "<|end|>"]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([1] * (len(tokens) - 1) + [3], dtype=np.int32),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in document["merges"]],
        "tokenizer.ggml.bos_token_id": len(tokens) - 1,
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }


@pytest.fixture(scope="module")
def llama() -> Any:
    library = pytest.importorskip("llama_cpp", reason="llama-cpp-python (extra `engines`) is not installed")
    quiet = library.llama_log_callback(lambda level, text, user: None)
    library.llama_log_set(quiet, ctypes.c_void_p(0))
    library.llama_backend_init()
    library.kept = quiet  # or it is collected while C still calls it
    return library


def ids_of_llamacpp(llama: Any, path: Path, add_special: bool) -> list[list[int]]:
    options = llama.llama_model_default_params()
    options.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), options)
    assert model, f"llama.cpp does not load {path.name}"
    ids = []
    for text in texts():
        data = text.encode()
        room = (llama.llama_token * (len(data) + 8))()
        count = llama.llama_tokenize(
            llama.llama_model_get_vocab(model), data, len(data), room, len(room), add_special, True
        )
        ids.append(list(room[:count]))
    llama.llama_model_free(model)
    return ids


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_llamacpp(llama: Any, vocabulary: dict[str, Any], tmp_path: Path, name: str) -> None:
    keys = {**vocabulary, "tokenizer.ggml.pre": name}
    write_gguf(tmp_path / "m.gguf", keys, [], [])
    ours = Tokenizer.from_metadata(keys)
    for text, expected in zip(texts(), ids_of_llamacpp(llama, tmp_path / "m.gguf", True), strict=True):
        assert ours.encode(text) == expected, (text, [ours.token_text(i) for i in expected])


def test_every_name_has_cuts_of_its_own() -> None:
    """Otherwise the converter could not choose between two of them."""

    def cuts(pre: dict[str, Any]) -> list[list[str]]:
        document = {"version": "1.0", "pre_tokenizer": pre, "model": {"type": "BPE", "vocab": {}, "merges": []}}
        made = tokenizers.Tokenizer.from_str(json.dumps({**document, "added_tokens": []}))
        return [[piece for piece, _ in made.pre_tokenizer.pre_tokenize_str(text)] for text in texts_that_show_cuts()]

    by_name = {name: cuts(pre) for name, pre in PRE_TOKENIZERS.items()}
    for one, other in itertools.combinations(by_name, 2):
        assert by_name[one] != by_name[other], (one, other)


@pytest.mark.parametrize("name", RAW_NAMES)
def test_names_of_raw_vocabularies_are_refused_in_words(vocabulary: dict[str, Any], name: str) -> None:
    with pytest.raises(Unsupported, match=f"'{name}'.* merges characters and not bytes"):
        Tokenizer.from_metadata({**vocabulary, "tokenizer.ggml.pre": name})

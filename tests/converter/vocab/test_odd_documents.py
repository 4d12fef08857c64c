"""Values of another type in the documents of a tokenizer: a sentence with the file's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run
from tritpack.converter.convert import convert
from tritpack.converter.vocab.folder import read_vocabulary
from tritpack.formats.errors import TritpackError, Unreadable


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "x", None, [1], {}], ids=str)
def test_added_tokens_that_are_no_ids(value: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, folder := tmp_path / "odd")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["added_tokens_decoder"]  # which would make transformers ignore the other file
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "added_tokens.json").write_text(json.dumps({"<x>": value}))
    with pytest.raises(Unreadable, match=r"added_tokens\.json: .* is not a token id"):
        convert(folder, tmp_path / "m.gguf")


@pytest.mark.parametrize("value", [[None], {}, "x", -1, 0, 1e30, float("nan"), True, 1 << 40], ids=str)
def test_a_vocabulary_of_no_size(value: Any, tiny_checkpoint: Path) -> None:
    with pytest.raises(Unreadable, match="vocab_size is"):
        read_vocabulary(tiny_checkpoint, {"vocab_size": value}, {})


@pytest.mark.parametrize("key", ["x", "", "1.5", "9" * 5000], ids=lambda key: key[:9])
def test_decoder_keys_that_are_no_ids(key: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, folder := tmp_path / "odd")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {key: 5}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(Unreadable, match=r"tokenizer_config\.json: .* is not a token id"):
        convert(folder, tmp_path / "m.gguf")
    assert isinstance(
        run("verify", tiny_gguf, "--source", folder, "--level", "tokenizer").exception, TritpackError | SystemExit
    )


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json", "config.json", "generation_config.json"])
def test_half_of_a_surrogate_pair_is_no_text(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, folder := tmp_path / "odd")
    document = json.loads((folder / name).read_text())
    document |= {"bos_token": "\ud800", "chat_template": "\udfff"}
    (folder / name).write_text(json.dumps(document))
    with pytest.raises(Unreadable, match=name.replace(".", r"\.")):
        convert(folder, tmp_path / "m.gguf")
    whole = {"bos_token": "<|begin_of_text|>", "chat_template": "\U0001f600"}
    (folder / name).write_text(json.dumps({**document, **whole}))
    if name != "tokenizer.json":
        convert(folder, tmp_path / "m.gguf")


ADDED = {
    "id": 0,
    "content": "a",
    "special": True,
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
}


@pytest.mark.parametrize("values", [
    {"added_tokens": [5]}, {"added_tokens": [{}]}, {"added_tokens": [{**ADDED, "id": "x"}]}, {"added_tokens": None},
    {"added_tokens": [{**ADDED, "content": 7}]}, {"padding": 0.5}, {"padding": [1]}, {"padding": {"pad_token": 7}},
    {"model": None}, {"normalizer": 5}, {"post_processor": []},
], ids=str)  # fmt: skip
def test_a_tokenizer_json_of_other_types(values: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, folder := tmp_path / "odd")
    document = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**document, **values}))
    with pytest.raises(Unreadable, match=r"tokenizer\.json: "):
        convert(folder, tmp_path / "m.gguf")

"""converter/sampling.py: generation_config.json to GGUF keys and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tritpack
from tritpack.converter.sampling import generation_config, sampling_metadata
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.sampling_defaults import KEYS, file_sampling

CONFIG = {
    "do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.05,
    "eos_token_id": 1,
}  # fmt: skip


def test_there_and_back() -> None:
    metadata = sampling_metadata(CONFIG)
    assert metadata == dict(zip(KEYS.values(), (0.7, 20, 0.8, 0.05, 1.05), strict=True))
    assert generation_config(metadata) == {name: value for name, value in CONFIG.items() if name != "eos_token_id"}
    assert sampling_metadata({"do_sample": True}) == {KEYS["temp"]: 1.0}  # as transformers reads it
    for config in ({}, {**CONFIG, "do_sample": False}, {"temperature": 0.7}, {"do_sample": "true"}):
        assert sampling_metadata(config) == {}, config
    assert generation_config({KEYS["temp"]: "hot"}) == {}


def test_an_impossible_value_is_left_out_and_named() -> None:
    notes: list[str] = []
    assert sampling_metadata({**CONFIG, "top_p": 3, "top_k": 1.5}, notes).keys() == {
        KEYS[option] for option in ("temp", "min_p", "repeat_penalty")
    }
    assert notes == [
        "generation_config.json: top_k is '1.5', expected a whole number, 0 or more; left out",
        "generation_config.json: top_p is '3', expected above 0 and at most 1; left out",
    ]


@pytest.mark.parametrize("sampled", [True, False])
def test_a_file_has_them_and_export_gives_them_back(tiny_checkpoint: Path, tmp_path: Path, sampled: bool) -> None:
    folder, file, again = tmp_path / "checkpoint", tmp_path / "m.gguf", tmp_path / "again"
    shutil.copytree(tiny_checkpoint, folder)
    path = folder / "generation_config.json"
    ids = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**ids, **CONFIG, "eos_token_id": ids.get("eos_token_id", 1), "do_sample": sampled}))
    tritpack.convert(folder, file)
    names = ("temp", "top_k", "top_p", "min_p", "repeat_penalty")
    wanted = dict(zip(names, (0.7, 20, 0.8, 0.05, 1.05), strict=True)) if sampled else {}
    assert file_sampling(GgufFile(file).metadata) == wanted
    with tritpack.Model(file) as model:
        assert model.sampling_params().temperature == wanted.get("temp", 0)
    tritpack.export(file, again)
    written = json.loads((again / "generation_config.json").read_text())
    assert {name: written.get(name) for name in ("do_sample", "temperature")} == (
        {"do_sample": True, "temperature": 0.7} if sampled else {"do_sample": None, "temperature": None}
    )

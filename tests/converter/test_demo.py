"""The bundled model: its greedy text is a literal, on every ISA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import DEMO, REPOSITORY
from tritpack.runtime.continuation import Request
from tritpack.runtime.generate import collect, stream_tokens
from tritpack.runtime.library import available_isas
from tritpack.runtime.model import Model


def test_size_and_shape() -> None:
    size = sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file())
    assert size <= 4_000_000
    config = json.loads((DEMO / "checkpoint" / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline",
    }
    assert config["hidden_size"] % 256 == config["intermediate_size"] % 256 == 0
    assert config["num_key_value_heads"] < config["num_attention_heads"] and config["tie_word_embeddings"]


@pytest.mark.parametrize("isa", available_isas())
def test_greedy_text_is_known(demo_gguf: Path, isa: str) -> None:
    known = json.loads((REPOSITORY / "tests" / "golden" / "demo_greedy.json").read_text())
    with Model(demo_gguf, isa=isa, threads=2) as model:
        for prompt, text in known.items():
            ids = model.tokenizer.encode(prompt)
            assert collect(stream_tokens(model, model.tokenizer, Request(ids, 48))).text == text, prompt

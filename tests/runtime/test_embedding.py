"""One vector per text: pooling, length, the token after every text; and which commands an embedding model refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf
from tritpack.formats.errors import UsageError
from tritpack.runtime.embedding import KEY_APPEND, embed, text_ids
from tritpack.runtime.model import Model


@pytest.fixture(scope="module")
def embedder(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that says it is an embedding model, with a token to put after every text."""
    path = tmp_path_factory.mktemp("embed") / "e.gguf"
    pairs = {"bitnet-b1.58.pooling_type": 3, KEY_APPEND: 42}
    return edited_gguf(tiny_gguf, path, metadata=lambda m: m.update(pairs))


def test_pooling_and_length(embedder: Path) -> None:
    tokens = [5, 6, 7, 8]
    with Model(embedder) as model:
        states = model.hidden(tokens)
        for pooling, want in (("last", states[-1]), ("cls", states[0]), ("mean", states.mean(0)), (None, states[-1])):
            vector = embed(model, tokens, pooling=pooling)
            assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1, abs=1e-6), pooling
            assert np.allclose(vector, want / np.linalg.norm(want), atol=1e-6), pooling
            assert np.allclose(embed(model, tokens, pooling=pooling, normalize=False), want, rtol=1e-6), pooling


def test_the_token_after_a_text_is_added_once(embedder: Path) -> None:
    with Model(embedder) as model:
        plain = model.tokenizer.encode("ab")
        assert text_ids(model, "ab") == [*plain, 42]
        assert text_ids(model, model.tokenizer.token_text(42))[-1] == 42


def test_the_command(embedder: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    result = json.loads(run("embed", embedder, "--tokens", "1,2,3", "-o", tmp_path / "v.npy", "--json").stdout)
    assert result["schema"] == "tritpack.embed/1" and result["ids"] == [1, 2, 3] and result["kernels"]
    assert np.load(tmp_path / "v.npy").shape == (256,) == tuple(result["shape"])
    assert exit_code_of(run("embed", embedder, "--tokens", "1", "-o", tmp_path / "v.npy")) == 2  # it exists
    assert run("embed", embedder, "-p", "ab", "-o", tmp_path / "v.npy", "--force").exit_code == 0
    assert exit_code_of(run("embed", tiny_gguf, "-p", "ab", "-o", tmp_path / "w.npy")) == 2
    assert run("embed", tiny_gguf, "-p", "ab", "-o", tmp_path / "w.npy", "--pooling", "mean").exit_code == 0
    with Model(tiny_gguf) as model, pytest.raises(UsageError, match="names no pooling"):
        embed(model, [1])


@pytest.mark.parametrize("command", [["generate"], ["logits", "-o", "x.npy"]])
def test_an_embedding_model_predicts_no_token(embedder: Path, command: list[str], tmp_path: Path) -> None:
    output = [str(tmp_path / part) if part.endswith(".npy") else part for part in command[1:]]
    result = run(command[0], embedder, "--tokens", "1,2", *output)
    assert exit_code_of(result) == 4 and "embedding model" in str(result.exception)

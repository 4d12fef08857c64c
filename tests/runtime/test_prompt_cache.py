"""runtime/prompt_cache.py: what is loaded has the bits of what was saved, and belongs to one model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, program, run
from tritpack.formats.errors import Unreadable, UsageError
from tritpack.runtime.model import Model
from tritpack.runtime.prompt_cache import load_prompt_cache, save_prompt_cache

TOKENS = [5, 9, 2, 77, 31, 8, 12, 400]


@pytest.mark.parametrize("kv_type", ["f32", "i16"])
def test_a_loaded_session_goes_on_with_the_same_bits(demo_gguf: Path, tmp_path: Path, kv_type: str) -> None:
    path = tmp_path / "x.cache"
    with Model(demo_gguf, threads=1, kv_type=kv_type) as model:
        model.append(TOKENS)
        save_prompt_cache(model, path, positions=6)
        assert model.tokens == TOKENS[:6]
        expected = model.eval([3])
    with Model(demo_gguf, threads=2, kv_type=kv_type, context=50) as model:
        assert load_prompt_cache(model, tmp_path / "none") == 0
        model.append([1, 2, 3])
        assert load_prompt_cache(model, path) == 6 and model.tokens == TOKENS[:6]
        assert np.array_equal(model.eval([3]), expected)


@pytest.fixture
def saved(demo_gguf: Path, tmp_path: Path) -> Path:
    with Model(demo_gguf, threads=1) as model:
        model.append(TOKENS)
        save_prompt_cache(model, tmp_path / "x.cache")
    return tmp_path / "x.cache"


def test_a_cache_belongs_to_one_model_and_type(saved: Path, demo_gguf: Path, tiny_gguf: Path) -> None:
    with Model(tiny_gguf) as other, pytest.raises(UsageError, match="prompt cache of another model file") as caught:
        load_prompt_cache(other, saved)
    assert caught.value.path == saved and "another name" in (caught.value.hint or "")
    with Model(demo_gguf, kv_type="i16") as other, pytest.raises(UsageError, match="prompt cache of --kv-type f32"):
        load_prompt_cache(other, saved)
    with Model(demo_gguf, context=4) as short, pytest.raises(UsageError, match="do not fit"):
        load_prompt_cache(short, saved)
    assert short.tokens == []


def test_what_is_not_a_cache(saved: Path, demo_gguf: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    files = {name: tmp_path / name for name in ("flipped", "cut", "text", "other", "compressed")}
    files["flipped"].write_bytes(data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])
    files["cut"].write_bytes(data[: len(data) // 2])
    files["text"].write_text("hello")
    np.savez(files["other"].open("wb"), tokens=np.arange(3))
    np.savez_compressed(files["compressed"].open("wb"), **np.load(saved))
    with Model(demo_gguf) as model:
        for name, path in files.items():
            with pytest.raises(Unreadable, match="not a prompt cache") as caught:
                load_prompt_cache(model, path)
            assert caught.value.path == path and model.tokens == [], name


def test_generate_and_chat_evaluate_a_prompt_once(demo_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.cache"
    options = ("-p", "Once upon a time there was", "-n", "4", "--temp", "0", "-q", "--prompt-cache", path)
    first = run("generate", demo_gguf, *options).stdout
    written = path.stat().st_mtime_ns
    assert run("generate", demo_gguf, *options).stdout == first == run("generate", demo_gguf, *options[:-2]).stdout
    assert path.stat().st_mtime_ns == written  # it had the prompt already
    run("generate", demo_gguf, "-p", "Once upon a hill", *options[2:])
    with Model(demo_gguf) as model:
        load_prompt_cache(model, path)
        assert model.tokens == model.tokenize("Once upon a hill")
    text = tmp_path / "notes"
    text.write_text("mine")
    wrong = run("generate", demo_gguf, "-p", "a", "--prompt-cache", text)
    assert exit_code_of(wrong) == 3 and text.read_text() == "mine"
    both = run("generate", demo_gguf, "--batch-file", text, "--prompt-cache", path)
    assert exit_code_of(both) == 2 and "not both" in str(both.exception)
    chat = tmp_path / "chat.cache"
    result = program("chat", demo_gguf, "-n", "4", "--prompt-cache", chat, stdin="Tell me.\n/stats\n")
    again = program("chat", demo_gguf, "-n", "4", "--prompt-cache", chat, stdin="Tell me.\n/stats\n")
    assert result.returncode == 0 and result.stdout == again.stdout
    assert "; 0 were known already" in result.stderr and "; 0 were known already" not in again.stderr

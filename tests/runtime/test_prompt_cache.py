"""runtime/prompt_cache.py: what is loaded has the bits of what was saved, and belongs to one model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, program, run
from tests.make.hybrid import ROTATED, write_ternary_hybrid
from tritpack.converter.version import VERSION
from tritpack.formats.errors import Unreadable, UsageError
from tritpack.runtime import prompt_cache
from tritpack.runtime.model import Model
from tritpack.runtime.prompt_cache import DIGEST, HEADER, MAGIC, load_prompt_cache, save_prompt_cache

TOKENS = [5, 9, 2, 77, 31, 8, 12, 400]


@pytest.mark.parametrize("kv_type", ["f32", "i16"])
def test_a_loaded_session_goes_on_with_the_same_bits(demo_gguf: Path, tmp_path: Path, kv_type: str) -> None:
    path = tmp_path / "x.cache"
    with Model(demo_gguf, threads=1, kv_type=kv_type) as model:
        model.append(TOKENS)
        save_prompt_cache(model, path, positions=6, version=VERSION)
        assert model.tokens == TOKENS[:6]
        expected = model.eval([3])
    with Model(demo_gguf, threads=2, kv_type=kv_type, context=50) as model:
        assert load_prompt_cache(model, tmp_path / "none", version=VERSION) == 0
        model.append([1, 2, 3])
        assert load_prompt_cache(model, path, version=VERSION) == 6 and model.tokens == TOKENS[:6]
        assert np.array_equal(model.eval([3]), expected)


@pytest.fixture
def saved(demo_gguf: Path, tmp_path: Path) -> Path:
    with Model(demo_gguf, threads=1) as model:
        model.append(TOKENS)
        save_prompt_cache(model, tmp_path / "x.cache", version=VERSION)
    return tmp_path / "x.cache"


def test_a_cache_belongs_to_one_model_and_type(saved: Path, demo_gguf: Path, tiny_gguf: Path) -> None:
    with Model(tiny_gguf) as other, pytest.raises(UsageError, match="prompt cache of another model file") as caught:
        load_prompt_cache(other, saved, version=VERSION)
    assert caught.value.path == saved and "another name" in (caught.value.hint or "")
    with Model(demo_gguf, kv_type="i16") as other, pytest.raises(UsageError, match="prompt cache of --kv-type f32"):
        load_prompt_cache(other, saved, version=VERSION)
    with Model(demo_gguf, context=4) as short, pytest.raises(UsageError, match="do not fit"):
        load_prompt_cache(short, saved, version=VERSION)
    assert short.tokens == []


def test_a_cache_of_no_tokens(demo_gguf: Path, tmp_path: Path) -> None:
    with Model(demo_gguf, threads=1) as model:
        save_prompt_cache(model, tmp_path / "x.cache", version=VERSION)
        model.append(TOKENS)
        assert load_prompt_cache(model, tmp_path / "x.cache", version=VERSION) == 0 and model.tokens == []


def test_a_cache_belongs_to_one_version(saved: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Model(demo_gguf) as model:
        with pytest.raises(UsageError, match="of another version of tritpack"):
            load_prompt_cache(model, saved, version="0.0.1")
        monkeypatch.setattr(prompt_cache, "STATE_VERSION", prompt_cache.STATE_VERSION + 1)
        with pytest.raises(UsageError, match="of another version of tritpack"):
            load_prompt_cache(model, saved, version=VERSION)


@pytest.fixture(scope="module")
def hybrid_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ternary_hybrid(tmp_path_factory.mktemp("hybrid") / "hybrid.gguf", ROTATED)


@pytest.mark.parametrize(
    ("file", "kv_type", "digest"),
    [
        ("demo_gguf", "f32", "d41c06a043e082fe"),
        ("demo_gguf", "i16", "966ace34b85e6981"),
        ("hybrid_gguf", "f32", "7ca3e37bd9e3581e"),
    ],
)
def test_the_state_of_this_version(request: pytest.FixtureRequest, file: str, kv_type: str, digest: str) -> None:
    assert prompt_cache.STATE_VERSION == 1
    with Model(request.getfixturevalue(file), threads=1, kv_type=kv_type) as model:
        model.append([token % model.spec.vocab_size for token in TOKENS] * 4)
        state = model.session.own.save()
    assert hashlib.sha256(state).hexdigest()[:16] == digest, "raise STATE_VERSION: old prompt caches mean another state"


def with_count(data: bytes, count: int) -> bytes:
    """A cache whose header promises other tokens."""
    fields = list(HEADER.unpack_from(data))
    fields[6] = count
    return HEADER.pack(*fields) + data[HEADER.size :]


def sealed(data: bytes) -> bytes:
    """A cache with the digest of its bytes."""
    head, rest = data[: HEADER.size - DIGEST], data[HEADER.size :]
    return head + hashlib.sha256(head + rest).digest() + rest


def test_what_is_not_a_cache(saved: Path, demo_gguf: Path, tmp_path: Path) -> None:
    data, first = saved.read_bytes(), HEADER.size
    outside = data[:first] + (1 << 30).to_bytes(4, "little") + data[first + 4 :]
    files = {
        "empty": b"", "text": b"hello " * 100, "cut": data[: len(data) // 2], "cut header": data[: first - 1],
        "longer": data + b"x", "flipped": data[:3000] + bytes([data[3000] ^ 1]) + data[3001:],
        "another state": data[: first + 4 * len(TOKENS)] + b"\xff" * (len(data) - first - 4 * len(TOKENS)),
        "another token": data[:first] + bytes([data[first] ^ 1]) + data[first + 1 :],
        "more tokens": with_count(data, 9), "no tokens": with_count(data, 0), "2**45 tokens": with_count(data, 1 << 45),
        "2**64 - 1 tokens": with_count(data, (1 << 64) - 1), "outside the vocabulary": sealed(outside),
        "padding": data[: len(MAGIC)] + b"\1" + data[len(MAGIC) + 1 :],
        "another type": data.replace(b"f32\0", b"f64\0", 1),
    }  # fmt: skip
    assert sealed(data) == data
    path = tmp_path / "bad"
    with Model(demo_gguf, threads=1) as model:
        model.append([1, 2])
        for name, content in files.items():
            path.write_bytes(content)
            with pytest.raises(Unreadable, match="prompt cache") as caught:
                load_prompt_cache(model, path, version=VERSION)
            assert caught.value.path == path and model.tokens == [1, 2], name


@pytest.mark.parametrize("prompt", ["Once upon a time", ""], ids=["text", "BOS alone"])
def test_no_tokens_to_write_fill_a_cache(prompt: str, demo_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.cache"
    assert exit_code_of(run("generate", demo_gguf, "-p", prompt, "-n", "0", "--prompt-cache", path)) == 0
    with Model(demo_gguf) as model:
        load_prompt_cache(model, path, version=VERSION)
        assert model.tokens == model.tokenize(prompt)[:-1]  # the last one is evaluated each time
    warm, cold = (run("generate", demo_gguf, "-p", prompt, "-n", "4", "-q", *cache)
                  for cache in (("--prompt-cache", path), ()))  # fmt: skip
    assert warm.stdout == cold.stdout


def test_generate_and_chat_evaluate_a_prompt_once(demo_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.cache"
    options = ("-p", "Once upon a time there was", "-n", "4", "--temp", "0", "-q", "--prompt-cache", path)
    first = run("generate", demo_gguf, *options).stdout
    written = path.stat().st_mtime_ns
    assert run("generate", demo_gguf, *options).stdout == first == run("generate", demo_gguf, *options[:-2]).stdout
    assert path.stat().st_mtime_ns == written  # it had the prompt already
    run("generate", demo_gguf, "-p", "Once upon a hill there", *options[2:])
    with Model(demo_gguf) as model:
        load_prompt_cache(model, path, version=VERSION)
        assert model.tokens == model.tokenize("Once upon a hill there")[:-1]
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

"""runtime/generate.py: the loop, its ends, and text that never shows half a character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tritpack.formats.errors import CheckFailed, UsageError
from tritpack.runtime.generate import Generation, Utf8Stream, collect, stream_tokens
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.tokenizer import Tokenizer, _byte_of_char

pytest.importorskip("tokenizers")
BOS, EOS, MARK = 256, 257, 258


def toy(with_bos: bool = True) -> Tokenizer:
    """Bytes and three control tokens; EOS stops."""
    table = _byte_of_char()
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": [*sorted(table, key=table.__getitem__), "<bos>", "<eos>", "<mark>"],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * 3,
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": EOS,
    }
    return Tokenizer.from_metadata({**metadata, "tokenizer.ggml.bos_token_id": BOS} if with_bos else metadata)


class Parrot:
    """A model that always says the same tokens after a prompt, and keeps count of what it was given."""

    def __init__(self, script: Sequence[int], context_length: int = 64) -> None:
        self.script, self.context_length = list(script), context_length
        self.seen: list[int] = [1, 2, 3]  # as if used before: it has to be reset
        self.calls: list[list[int]] = []

    def reset(self) -> None:
        self.seen, self.calls = [], []

    def eval(self, tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.seen += tokens
        self.calls.append(list(tokens))
        assert len(self.seen) <= self.context_length, "more tokens than the context holds"
        logits = np.zeros(259, np.float32)
        logits[self.script[len(self.calls) - 1]] = 1
        return logits


def run(script: Sequence[int], prompt: Sequence[int] = (65,), count: int = 99, **more: Any) -> Generation:
    context = more.pop("context", 64)
    return collect(stream_tokens(Parrot(script, context), toy(), prompt, count, **more))


def test_ends_at_a_stop_token_that_is_not_shown() -> None:
    done = run([*b"hi", EOS, *b"never"])
    assert (done.text, done.ids, done.stop_reason, done.stop_id) == ("hi", list(b"hi"), "eos", EOS)
    assert done.prompt_tokens == 1 and done.tokens_per_second > 0 and done.prompt_tokens_per_second > 0
    assert run([EOS]).ids == [] and run([EOS]).text == ""


def test_stop_ids_can_be_given_or_taken_away() -> None:
    assert run([*b"ab"], stop_ids=[98]).text == "a"
    done = run([*b"a", EOS, *b"b"], count=3, stop_ids=())
    assert done.text == "ab" and done.ids == [97, EOS, 98] and done.stop_reason == "length"


def test_length_zero_and_without_limit() -> None:
    assert run(b"abcdef", count=3).ids == list(b"abc") and run(b"abcdef", count=3).stop_reason == "length"
    none = run(b"", count=0)
    assert (none.text, none.ids, none.stop_reason, none.tokens_per_second) == ("", [], "length", 0.0)
    assert run([*b"abcdef", EOS], count=-1).text == "abcdef"


def test_the_end_of_the_context() -> None:
    # Eight places, three for the prompt: five tokens fit, and the one that the last of them leads to can be shown.
    done = run(b"abcdefghij", prompt=[65, 66, 67], count=-1, context=8)
    assert done.text == "abcdef" and done.stop_reason == "context"
    assert run(b"x", prompt=[65] * 8, count=-1, context=8).ids == [120]


def test_the_model_is_reset_and_fed_each_token_once() -> None:
    model = Parrot([*b"abc", EOS])
    collect(stream_tokens(model, toy(), [65, 66], 10))
    assert model.calls == [[65, 66], [97], [98], [99]]


@pytest.mark.parametrize(
    ("prompt", "count", "words"),
    [([65] * 9, 1, "9 tokens, more than .* 8"), ([300], 1, "300"), ([65], -2, "-2")],
    ids=["too_long", "outside_the_vocabulary", "negative_count"],
)
def test_errors_come_at_the_call(prompt: list[int], count: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stream_tokens(Parrot(b"x", 8), toy(), prompt, count)


def test_an_empty_prompt_needs_a_bos() -> None:
    with pytest.raises(UsageError, match="empty"):
        stream_tokens(Parrot(b"x"), toy(with_bos=False), [], 1)
    model = Parrot(b"x")
    collect(stream_tokens(model, toy(), [], 1))  # with a BOS, an empty prompt is that
    assert model.seen == [BOS]


def test_control_tokens_are_not_text() -> None:
    assert run([97, MARK, 98, EOS]).text == "ab" and run([97, MARK, 98, EOS]).ids == [97, MARK, 98]
    assert run([97, MARK, 98, EOS], show_special=True).text == "a<mark>b"


TEXT = "é海😀👩‍💻 naïve — \x00ok"


def test_no_half_character_is_ever_shown() -> None:
    pieces: list[str] = []
    done = collect(stream_tokens(Parrot([*TEXT.encode(), EOS]), toy(), [65], 99), pieces.append)
    assert done.text == "".join(pieces) == TEXT and "\ufffd" not in done.text
    assert all(pieces)  # nothing is announced that shows nothing


@pytest.mark.parametrize("end", range(len("é海😀".encode()) + 1))
def test_a_cut_character_is_replaced_at_the_end_only(end: int) -> None:
    data = "é海😀".encode()
    expected = data[:end].decode(errors="replace")
    assert run(data, count=end).text == expected
    assert run([*data[:end], EOS]).text == expected


@pytest.mark.parametrize("size", range(1, 8))
def test_utf8_stream_in_pieces_of(size: int) -> None:
    data = TEXT.encode() + b"\xff\xc3(\xe6\xb5"
    stream = Utf8Stream()
    shown = [stream.feed(data[i : i + size]) for i in range(0, len(data), size)]
    assert "".join(shown) + stream.finish() == data.decode(errors="replace")


@pytest.mark.parametrize(
    ("stops", "text", "shown"),
    [
        (["END"], "abENDcd", "ab"),
        (["END"], "abENcdEN", "abENcdEN"),
        (["aab"], "aaab", "a"),
        (["x", "ab"], "zabx", "z"),
        (["User:", "\n\n"], "Hi.\nUser: x", "Hi.\n"),
        (["é"], "caé!", "ca"),
        ([""], "abc", "abc"),
    ],
)
def test_stop_strings(stops: list[str], text: str, shown: str) -> None:
    pieces: list[str] = []
    done = collect(stream_tokens(Parrot([*text.encode(), EOS]), toy(), [65], 99, stop_strings=stops), pieces.append)
    assert done.text == "".join(pieces) == shown
    assert done.stop_reason == ("stop_string" if shown != text else "eos")


def test_sampling_is_deterministic_and_damaged_logits_stop_it() -> None:
    class Flat(Parrot):
        def eval(self, tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
            return np.zeros(259, np.float32)

    class Broken(Parrot):
        def eval(self, tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
            return np.full(259, np.nan, np.float32)

    params = SamplingParams(temperature=1.0, seed=5)
    first, again = (collect(stream_tokens(Flat([]), toy(), [65], 20, params, stop_ids=())) for _ in range(2))
    assert first.ids == again.ids and len(set(first.ids)) > 5
    with pytest.raises(CheckFailed):
        collect(stream_tokens(Broken([]), toy(), [65], 3))

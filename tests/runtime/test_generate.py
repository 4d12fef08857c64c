"""runtime/generate.py: the loop, its ends, and text that never shows half a character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tritpack.formats.errors import CheckFailed, UsageError
from tritpack.runtime.continuation import Generation, Request, token_logprob
from tritpack.runtime.generate import collect, stream_tokens
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.speculation import LookupDraft, Speculation
from tritpack.runtime.text_stream import Utf8Stream
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
    """A model that says a script after a prompt, whatever it is given, and keeps count of what it was given."""

    def __init__(self, script: Sequence[int], context_length: int = 64) -> None:
        self.script, self.context_length = list(script), context_length
        self.tokens: list[int] = [1, 2, 3]  # as if used before: it has to forget them
        self.calls: list[list[int]] = []
        self.prompt = 0

    def rewindable(self, positions: int) -> int:
        return positions

    def rewind(self, positions: int) -> None:
        assert positions < len(self.tokens), "nothing to forget"
        del self.tokens[positions:]

    def eval_last(self, tokens: Sequence[int], wanted: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.tokens += tokens
        self.prompt = self.prompt or len(self.tokens)
        self.calls.append(list(tokens))
        assert len(self.tokens) <= self.context_length, "more tokens than the context holds"
        return np.stack([self.row(len(self.tokens) - wanted + i - self.prompt + 1) for i in range(wanted)])

    def row(self, place: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        logits = np.zeros(259, np.float32)
        if 0 <= place < len(self.script):  # a prompt is not in it, and a guess may lead beyond its end
            logits[self.script[place]] = 1
        return logits


def run(script: Sequence[int], prompt: Sequence[int] = (65,), count: int = 99, **more: Any) -> Generation:
    context = more.pop("context", 64)
    return collect(stream_tokens(Parrot(script, context), toy(), Request(prompt, count, **more)))


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


def test_the_model_gets_each_token_once_and_none_that_it_remembers() -> None:
    model = Parrot([*b"abc", EOS])
    first = collect(stream_tokens(model, toy(), Request([65, 66], 10)))
    assert model.calls == [[65, 66], [97], [98], [99]] and first.cached_tokens == 0
    model.calls, model.prompt, model.script = [], 7, [*b"de", EOS]
    again = collect(stream_tokens(model, toy(), Request([65, 66, *b"abc", 67, 68], 10)))
    assert model.calls == [[67, 68], [100], [101]] and (again.text, again.cached_tokens) == ("de", 5)
    model.calls, model.prompt, model.script = [], 2, [*b"f", EOS]
    same = collect(stream_tokens(model, toy(), Request([65, 66], 10)))
    assert model.calls == [[66], [102]] and (same.text, same.cached_tokens) == ("f", 1)


@pytest.mark.parametrize(
    ("prompt", "count", "words"),
    [([65] * 9, 1, "9 tokens, more than .* 8"), ([300], 1, "300"), ([65], -2, "-2")],
    ids=["too_long", "outside_the_vocabulary", "negative_count"],
)
def test_errors_come_at_the_call(prompt: list[int], count: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stream_tokens(Parrot(b"x", 8), toy(), Request(prompt, count))


def test_an_empty_prompt_needs_a_bos() -> None:
    with pytest.raises(UsageError, match="empty"):
        stream_tokens(Parrot(b"x"), toy(with_bos=False), Request([], 1))
    model = Parrot(b"x")
    collect(stream_tokens(model, toy(), Request([], 1)))  # with a BOS, an empty prompt is that
    assert model.tokens == [BOS]


def test_control_tokens_are_not_text() -> None:
    assert run([97, MARK, 98, EOS]).text == "ab" and run([97, MARK, 98, EOS]).ids == [97, MARK, 98]
    assert run([97, MARK, 98, EOS], show_special=True).text == "a<mark>b"


TEXT = "é海😀👩‍💻 naïve — \x00ok"


def test_no_half_character_is_ever_shown() -> None:
    pieces: list[str] = []
    done = collect(stream_tokens(Parrot([*TEXT.encode(), EOS]), toy(), Request([65], 99)), pieces.append)
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
    request = Request([65], 99, stop_strings=stops)
    done = collect(stream_tokens(Parrot([*text.encode(), EOS]), toy(), request), pieces.append)
    assert done.text == "".join(pieces) == shown
    assert done.stop_reason == ("stop_string" if shown != text else "eos")
    assert (done.stop_string in stops) if shown != text else done.stop_string is None


class Flat(Parrot):
    def row(self, place: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.zeros(259, np.float32)


class Broken(Parrot):
    def row(self, place: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.full(259, np.nan, np.float32)


def test_sampling_is_deterministic_and_damaged_logits_stop_it() -> None:
    request = Request([65], 20, SamplingParams(temperature=1.0, seed=5), stop_ids=())
    first, again = (collect(stream_tokens(Flat([]), toy(), request)) for _ in range(2))
    assert first.ids == again.ids and len(set(first.ids)) > 5
    with pytest.raises(CheckFailed):
        collect(stream_tokens(Broken([]), toy(), Request([65], 3)))


def test_logprobs_are_those_of_the_model_whatever_the_sampler_does() -> None:
    class Steps(Parrot):
        def row(self, place: int) -> np.ndarray[Any, np.dtype[np.float32]]:
            return (np.arange(259, dtype=np.float32) + place) / 50

    params = SamplingParams(temperature=0.3, top_k=3, seed=1)
    request = Request([65, 66, 67], 4, params, stop_ids=(), top_logprobs=2, prompt_logprobs=True)
    model = Steps([])
    done = collect(stream_tokens(model, toy(), request))
    wide = np.arange(259) / 50
    want = wide - np.log(np.exp(wide).sum())
    assert [entry.id for entry in done.prompt_logprobs] == [66, 67] and [e.id for e in done.logprobs] == done.ids
    for entry in (*done.prompt_logprobs, *done.logprobs):
        assert entry.logprob == pytest.approx(want[entry.id], abs=1e-6), f"token {entry.id}"
        assert [token for token, _ in entry.top] == [258, 257], f"token {entry.id}"
    tied = token_logprob(np.array([0, 3, 1, 3, 3, 2], np.float32), 2, 2)
    assert [token for token, _ in tied.top] == [1, 3] and len(token_logprob(np.zeros(3, np.float32), 0, 9).top) == 3
    assert run(b"", count=0, prompt=[65, 66], prompt_logprobs=True).prompt_logprobs[0].id == 66
    assert run(b"ab", count=2).logprobs == []


class Only:
    """A grammar of one text."""

    def __init__(self, text: bytes) -> None:
        self.rest, self.finished = list(text), False

    def mask(self, logits: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        masked = np.full_like(logits, -np.inf)
        masked[self.rest[0]] = logits[self.rest[0]]
        return masked

    def accept(self, token: int) -> None:
        assert token == self.rest.pop(0), "not in the grammar"
        self.finished = not self.rest


@pytest.mark.parametrize("guess", [False, True])
def test_a_constraint_decides_what_can_be_written(guess: bool) -> None:
    speculation = Speculation(LookupDraft(), always=True) if guess else None
    done = run(b"zzzzzzzz", prompt=list(b"json json"), constraint=Only(b" json"), speculation=speculation)
    assert (done.text, done.stop_reason, done.stop_id) == (" json", "eos", None)
    assert done.accepted <= done.drafted and (done.drafted > 0) == guess


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(0.9, 40, 0.95, 0.01, 1.1, seed=3)])
def test_guesses_change_nothing_but_the_number_of_passes(params: SamplingParams) -> None:
    text = b"the cat and the dog and the cat and the dog and the bird"
    script, passes = [*text, EOS], {}
    for most in (0, 1, 3, 50):
        model = Parrot(script, 128)
        speculation = Speculation(LookupDraft(), most, always=True) if most else None
        done = collect(stream_tokens(model, toy(), Request(list(b"the cat"), -1, params, speculation=speculation)))
        passes[most] = len(model.calls)
        if most == 0:
            want = done
        assert (done.ids, done.text, done.stop_reason) == (want.ids, want.text, want.stop_reason), f"{most}"
        assert done.accepted <= done.drafted, f"{most}"
    if params == SamplingParams():
        assert want.text == text.decode() and passes[50] < passes[3] < passes[1] < passes[0]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 11])
def test_guesses_write_no_token_more_than_allowed(count: int) -> None:
    script = list(b"ababababababab")
    done = run(script, prompt=list(b"abab"), count=count, speculation=Speculation(LookupDraft(), always=True))
    assert done.ids == script[:count] and done.stop_reason == "length"
    ends = run(script, prompt=list(b"abab"), count=-1, context=9, speculation=Speculation(LookupDraft(), always=True))
    assert ends.ids == script[:6] and ends.stop_reason == "context"


def test_guesses_are_made_only_where_they_pay() -> None:
    """A pass costs one second, and `row` seconds more per guess."""

    def guesses(row: float, right: float) -> list[int]:
        class Ready:
            def guess(self, history: Sequence[int], most: int) -> list[int]:
                return [0] * most

        speculation, made, luck = Speculation(Ready()), [], np.random.default_rng(0)
        for _ in range(400):
            made.append(len(speculation.guess([1], 7)))
            hits = next((i for i in range(made[-1]) if luck.random() > right), made[-1])
            speculation.observe(made[-1], hits, 1 + row * made[-1])
        return made[200:]

    assert min(guesses(0.01, 0.95)) >= 4  # nearly free, and nearly always right
    assert np.mean(guesses(0.25, 0.05)) < 0.1  # what a wrong guess costs is not paid again and again
    assert 0.25 * np.mean(guesses(0.25, 0.0)) < 0.03
    assert np.mean(guesses(1.0, 0.9)) < 0.2  # a guess that costs a whole pass


def test_the_gain_counts_passes_and_not_the_noise() -> None:
    speculation = Speculation(LookupDraft(), 3)
    assert speculation.gain(1) is None
    for seconds in (1.0, 1.0, 9.0, 1.0):  # something else slowed one of them down
        speculation.observe(0, 0, seconds)
    assert speculation.gain(4) is None  # nothing was guessed
    speculation.observe(1, 0, 1.5)
    assert speculation.gain(5) == pytest.approx(5 / 5.5)
    for _ in range(4):
        speculation.observe(3, 3, 2.0)
    assert speculation.gain(21) == pytest.approx(21 / 13.5)

"""Hybrids in use: what recurrent layers make hard. Nothing may go on from a state that is not that of its tokens."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import exit_code_of, run
from tests.runtime.test_scheduler import Client, alone
from tritpack.converter.cli.main import cli
from tritpack.converter.version import VERSION
from tritpack.formats.arrays import F32
from tritpack.formats.errors import MissingRequirement, UsageError
from tritpack.runtime import scheduler, token_bytes
from tritpack.runtime.continuation import Request
from tritpack.runtime.generate import collect, stream_tokens
from tritpack.runtime.library import library
from tritpack.runtime.model import Model
from tritpack.runtime.prompt_cache import load_prompt_cache, save_prompt_cache
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.scheduler import Scheduler
from tritpack.runtime.speculation import Speculation
from tritpack.runtime.token_bytes import cache_bytes, kept_bytes, state_bytes

TEXT = "The quiet machine counted 12 lanterns near the harbour wall, and nobody asked why. "


@pytest.fixture(scope="module")
def path(shared: Path) -> Path:
    return shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf"


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model(path, threads=2, context=512, draft="none") as model:
        yield model


@pytest.fixture(scope="module")
def ids(model: Model) -> list[int]:
    """420 tokens: a batch and a half."""
    return (model.tokenize(TEXT) * 20)[:420]


@pytest.fixture(scope="module")
def expected(model: Model, ids: list[int]) -> F32:
    """The logits of each of them."""
    return model.logits(ids)


class Wrong:
    """Guesses that are right for a while and then wrong, as long as they may be."""

    def __init__(self, text: Sequence[int], right: int) -> None:
        self.text, self.right = text, right

    def guess(self, history: Sequence[int], most: int) -> list[int]:
        truth = list(self.text[len(history) :])[: min(most, self.right)]
        return truth + [7] * (most - len(truth))


@pytest.mark.parametrize("answer", [2, 6, 30])
def test_the_end_of_the_prompt_is_kept_whatever_the_length_of_its_answer(
    model: Model, ids: list[int], expected: F32, answer: int
) -> None:
    model.reset()
    model.append(ids[:300])
    for token in ids[300 : 300 + answer]:
        model.append([token])
    model.append(ids[300 + answer : 320 + answer])  # the next turn, which somebody edits
    assert model.rewindable(290) == 290
    model.rewind(290)
    assert (model.eval(ids[290:310]) == expected[309]).all()


@pytest.mark.parametrize("name", ["bonsai2_rotated_gguf/model-PQ2_0.gguf", "bonsai2_rotated_gguf_rep3/model.gguf"])
def test_token_ids_of_texts_and_chats(shared: Path, name: str) -> None:
    file = shared / "checkpoints" / name
    fixture = json.loads((file.parent / "fixture.json").read_text())
    chat = [("system", "You are a patient keeper."), ("user", "How many lanterns are lit?"), ("assistant", "Seven."),
            ("user", "Count again, please.")]  # fmt: skip
    with Model(file, threads=1) as model:
        assert model.tokenize(fixture["prompt"]) == fixture["prompt_ids"]
        assert model.tokenize(chat=[{"role": role, "content": text} for role, text in chat]) == fixture["chat_ids"]


def test_what_a_sequence_takes(model: Model, ids: list[int], expected: F32) -> None:
    own = model.session.own
    assert own.state_bytes(16) - own.state_bytes(0) == 16 * cache_bytes(model.spec, "f32") + state_bytes(model.spec)
    assert kept_bytes(model.spec) > 3 * state_bytes(model.spec)


def test_states_have_a_bound(model: Model, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(model.spec, context_length=4096)
    each = kept_bytes(spec) + 1000 * cache_bytes(spec, "f32")
    monkeypatch.setattr(token_bytes, "DEFAULT_CACHE_BYTES", 8 * each)
    assert token_bytes.context_for(spec, "f32", 8, None) == 1000
    assert token_bytes.context_for(spec, "f32", 100, 4000) == 4000
    most = 8 * each // kept_bytes(spec)
    with pytest.raises(UsageError, match=rf"the recurrent states of {most} sequences take .*; by default") as caught:
        token_bytes.context_for(spec, "f32", most, None)
    assert "--context" in (caught.value.hint or "")
    assert exit_code_of(run("serve", path, "--port", "0", "-np", "256")) == 2
    monkeypatch.setattr(scheduler, "available_memory", lambda: 3 * kept_bytes(spec) - 1)
    with pytest.raises(MissingRequirement, match=r"states of 3 requests at once need .* GB are available"):
        Scheduler(model, slots=3)
    Scheduler(model, slots=2).close()


def test_any_beginning_can_be_taken_up(model: Model, ids: list[int], expected: F32) -> None:
    luck = random.Random(24)
    model.logits(ids)
    for _ in range(12):
        keep = luck.randrange(len(model.tokens) + 1)
        more = min(len(ids), keep + luck.choice((1, 2, 17, 40, 200)))
        assert model.rewindable(keep) <= keep, keep
        model.rewind(keep)
        assert model.tokens == ids[:keep], keep
        if more > keep:
            assert (model.eval_all(ids[keep:more]) == expected[keep:more]).all(), (keep, more)
    model.rewind(len(model.tokens) // 2)
    count = len(model.tokens)
    assert (model.eval_last(ids[count : count + 3], 3) == expected[count : count + 3]).all()


@pytest.mark.parametrize("after", [1, 2])
def test_ctrl_c_in_a_long_prompt(
    model: Model, ids: list[int], expected: F32, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    real, calls = library().c.tp_eval, 0

    def interrupted(*arguments: Any) -> int:
        nonlocal calls
        status, calls = int(real(*arguments)), calls + 1
        if calls == after:
            signal.raise_signal(signal.SIGINT)
        return status

    model.reset()
    for token in ids[:20]:
        model.eval([token])
    with monkeypatch.context() as patched:
        patched.setattr(library().c, "tp_eval", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.append(ids[20:400])
    assert model.tokens == ids[:20]
    assert (model.eval_all(ids[20:30]) == expected[20:30]).all()


@pytest.mark.parametrize("right", [0, 2, 6])
def test_guesses_do_not_change_the_text(model: Model, ids: list[int], right: int) -> None:
    request = Request(ids[:50], 40, stop_ids=())
    plain = alone(model, request)
    draft = Speculation(Wrong(ids[:50] + plain.ids, right), always=True)
    model.reset()
    guessed = collect(stream_tokens(model, model.tokenizer, dataclasses.replace(request, speculation=draft)))
    assert guessed.ids == plain.ids and guessed.drafted > guessed.accepted
    again = collect(stream_tokens(model, model.tokenizer, request))  # from what the session remembers of the prompt
    assert again.ids == plain.ids and again.cached_tokens == 49


def test_a_hybrid_guesses_for_another(path: Path, model: Model) -> None:
    plain = model.generate(TEXT, max_tokens=24)
    with Model(path, threads=1, context=128, draft_model=path) as guessing:
        assert guessing.generate(TEXT, max_tokens=24).ids == plain.ids
        assert guessing.generate(TEXT[:60], max_tokens=9).ids == model.generate(TEXT[:60], max_tokens=9).ids


def test_requests_beside_each_other(model: Model, ids: list[int]) -> None:
    """Three slots, with beginnings in common, guesses, and some that are given up."""
    luck = random.Random(3)
    requests = []
    for index in range(14):
        params = SamplingParams(temperature=0.9, seed=index) if index % 2 else None
        prompt = ids[: luck.choice((3, 30, 31, 90, 300))] + ids[index : index + luck.randrange(3)]
        options: dict[str, Any] = {} if params is None else {"params": params}
        guesses = Speculation(Wrong(ids, 3), always=True) if index % 3 == 0 else None
        requests.append(Request(prompt, luck.randrange(1, 30), stop_ids=(), speculation=guesses, **options))
    wanted = [alone(model, request) for request in requests]
    with Scheduler(model, slots=3, queue_limit=50) as serving:
        clients = [Client(serving, request, 2 if i % 5 == 4 else None) for i, request in enumerate(requests)]
        results = [client.result() for client in clients]
    for index, (result, want) in enumerate(zip(results, wanted, strict=True)):
        cancelled = index % 5 == 4 and len(want.ids) > 2
        assert result.ids == want.ids[: len(result.ids)] if cancelled else result.ids == want.ids, index


@pytest.mark.parametrize("kv_type", ["f32", "i16"])
def test_prompt_caches(path: Path, tmp_path: Path, ids: list[int], kv_type: str) -> None:
    file = tmp_path / "x.cache"
    with Model(path, threads=1, kv_type=kv_type, context=200) as model:
        model.append(ids[:150])
        save_prompt_cache(model, file, positions=60, version=VERSION)  # which has to be evaluated again
        want = model.eval_all(ids[60:70])
    with Model(path, threads=2, kv_type=kv_type, context=100) as model:
        model.append(ids[5:9])
        assert load_prompt_cache(model, file, version=VERSION) == 60
        assert (model.eval_all(ids[60:70]) == want).all()
        model.rewind(30)
        assert (model.eval_all(ids[30:70])[-10:] == want).all()


def test_a_prompt_is_evaluated_once(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.cache"
    options = ("-p", TEXT, "-n", "4", "--temp", "0", "--json")
    first, again, without = (
        json.loads(run("generate", path, *options, *cache).stdout)
        for cache in (("--prompt-cache", file), ("--prompt-cache", file), ())
    )
    assert first["ids"] == again["ids"] == without["ids"]
    with Model(path) as model:
        count = load_prompt_cache(model, file, version=VERSION)
        assert count == len(model.tokenize(TEXT)) - 1 == model.rewindable(count)


def test_a_later_chat_knows_the_system_message(shared: Path, tmp_path: Path) -> None:
    source, cache = shared / "checkpoints" / "bonsai2_rotated_gguf" / "model-PQ2_0.gguf", tmp_path / "x.cache"
    options = ("--system", TEXT, "-n", "6", "--temp", "0", "--no-history", "--prompt-cache", cache)
    arguments = ["chat", *map(str, (source, *options))]
    said = [
        CliRunner().invoke(cli, arguments, input=f"{question}\n/stats\n").output
        for question in ("one two", "three", "three", "one two")
    ]
    known = [int(text.partition(" of prompts; ")[2].split()[0]) for text in said]
    with Model(source, kv_type="i16") as model:
        assert known[0] == 0 and known[1:] == 3 * [load_prompt_cache(model, cache, version=VERSION)] > [len(TEXT) // 9]
    assert said[0].splitlines()[0] == said[3].splitlines()[0] != said[1].splitlines()[0]


def test_commands(path: Path, tmp_path: Path) -> None:
    result = json.loads(run("bench", path, "-p", "20", "-n", "4", "-d", "40", "-r", "2", "-t", "1", "--json").stdout)
    assert [row["test"] for row in result["rows"]] == ["pp20 @ d40", "tg4 @ d40"]
    assert {"floats_limit", "dots_limit"} <= result["rows"][0].keys() and result["rows"][0]["dots_limit"] is None
    batch = tmp_path / "in.jsonl"
    batch.write_text("".join(json.dumps({"prompt": TEXT[:n], "max_tokens": 5}) + "\n" for n in (9, 30, 60, 60)))
    done = run("generate", path, "--batch-file", batch, "-o", tmp_path / "out.jsonl", "--parallel", "3")
    assert exit_code_of(done) == 0
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    with Model(path) as model:
        assert [answer["text"] for answer in answers] == [
            model.generate(TEXT[:n], max_tokens=5).text for n in (9, 30, 60, 60)
        ]
    assert exit_code_of(run("embed", path, "-p", "a", "-o", tmp_path / "v.npy")) == 2  # it names no pooling

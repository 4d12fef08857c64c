"""runtime/scheduler.py: many requests at once get what each gets alone, whoever comes, goes or fails beside them."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tritpack.formats.errors import TritpackError, UsageError
from tritpack.runtime.continuation import Continuation, GeneratedToken, Generation, Request
from tritpack.runtime.generate import collect, stream_tokens
from tritpack.runtime.model import Model
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.scheduler import Scheduler
from tritpack.runtime.speculation import LookupDraft, Speculation
from tritpack.runtime.ticket_queue import Closed, FairQueue, QueueFull, Ticket

PROMPTS = (
    "Once upon a time",
    "Once upon a time there was a little girl named Lily.",
    "The dog",
    "Tom and Sue went to the park. Tom and Sue went to the",
    "One day",
)


@pytest.fixture(scope="module")
def model(demo_gguf: Path) -> Iterator[Model]:
    with Model(demo_gguf, threads=2, context=96) as model:
        yield model


@pytest.fixture
def scheduler(model: Model) -> Iterator[Scheduler]:
    with Scheduler(model, slots=3, queue_limit=50) as made:
        yield made


class Client:
    """Waits for a result, and notes the tokens; stops after `enough` of them, if that is given."""

    def __init__(self, scheduler: Scheduler, request: Request, enough: int | None = None, name: str = "") -> None:
        self.tokens: list[GeneratedToken] = []
        self.enough = enough
        self._end: queue.Queue[Generation | Exception] = queue.Queue()
        self._ready = threading.Event()
        self.ticket: Ticket = scheduler.submit(request, self._on_token, self._end.put, client=name)
        self._ready.set()

    def _on_token(self, token: GeneratedToken) -> None:
        self._ready.wait()
        self.tokens.append(token)
        if len(self.tokens) == self.enough:
            self.ticket.cancel()

    def result(self) -> Generation:
        end = self._end.get(timeout=60)
        if isinstance(end, Exception):
            raise end
        return end


def alone(model: Model, request: Request) -> Generation:
    """The request's result without a scheduler, without guesses, and without anything remembered."""
    model.reset()
    return collect(stream_tokens(model, model.tokenizer, replace(request, speculation=None)))


def requests(model: Model, count: int, seed: int) -> list[Request]:
    """Random ones: greedy and sampled, short and long, some with guesses."""
    luck = random.Random(seed)
    made = []
    for index in range(count):
        sampled = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, seed=index) if luck.random() < 0.5 else None
        made.append(
            Request(
                model.tokenize(luck.choice(PROMPTS)),
                luck.choice((0, 1, 5, 12, 30, 90)),
                sampled or SamplingParams(),
                speculation=Speculation(LookupDraft(), 3, always=True) if luck.random() < 0.3 else None,
                stop_strings=("park",) if luck.random() < 0.2 else (),
            )
        )
    return made


def test_every_request_gets_what_it_gets_alone(model: Model) -> None:
    made = requests(model, 24, seed=1)
    want = [alone(model, request) for request in made]
    luck = random.Random(2)
    with Scheduler(model, slots=3, speculation=lambda: Speculation(LookupDraft())) as scheduler:
        cuts = [luck.randrange(1, 6) if luck.random() < 0.3 else None for _ in made]
        clients = [Client(scheduler, request, cut) for request, cut in zip(made, cuts, strict=True)]
        results = [client.result() for client in clients]
        for index, (done, expected, cut) in enumerate(zip(results, want, cuts, strict=True)):
            assert done.ids == expected.ids[: len(done.ids)], f"request {index}"
            if done.stop_reason == "cancelled":
                # Guesses that turn out right come in one step, so a few more tokens may have been written.
                assert cut is not None and cut <= len(done.ids) <= cut + 8, f"request {index}"
                continue
            assert (done.text, done.stop_reason) == (expected.text, expected.stop_reason), f"request {index}"
            assert "".join(token.text for token in clients[index].tokens) == done.text, f"request {index}"
        counts = scheduler.statistics()
    assert counts.requests == 24 and counts.busy == counts.waiting == 0
    assert counts.cancelled == sum(done.stop_reason == "cancelled" for done in results) > 0
    assert counts.passes < counts.generated_tokens  # several in one pass


def test_guesses_are_for_few_requests(model: Model) -> None:
    request = Request(model.tokenize(PROMPTS[3]), 40, stop_ids=())
    want = alone(model, request)
    for slots in (1, 3):
        with Scheduler(model, slots, speculation=lambda: Speculation(LookupDraft(), always=True)) as scheduler:
            clients = [Client(scheduler, request) for _ in range(slots)]
            assert [client.result().ids for client in clients] == [want.ids] * slots, f"{slots} slots"
            counts = scheduler.statistics()
        assert counts.guessed_tokens >= counts.right_guesses, f"{slots} slots"
        if slots == 1:
            assert counts.right_guesses > 0 and counts.passes < 40, "one slot"


def test_a_remembered_beginning_is_not_evaluated_again(model: Model, scheduler: Scheduler) -> None:
    ids = model.tokenize(PROMPTS[1])
    first = Client(scheduler, Request(ids, 8)).result()
    assert first.cached_tokens == 0
    longer = [*ids, *first.ids, *model.tokenize("The dog", no_special=True)]
    again = Client(scheduler, Request(longer, 8)).result()
    assert again.cached_tokens >= len(ids) + 7
    assert again.ids == alone(model, Request(longer, 8)).ids
    before = scheduler.statistics()
    other = Client(scheduler, Request(ids, 3)).result()  # the beginning of a longer text, which stays
    assert other.cached_tokens == len(ids) - 1
    assert Client(scheduler, Request([*longer, *again.ids], 1)).result().cached_tokens >= len(longer)
    assert scheduler.statistics().evictions == before.evictions


def test_a_beginning_is_copied_from_a_request_that_still_runs(model: Model, scheduler: Scheduler) -> None:
    ids = model.tokenize(PROMPTS[1])
    started = threading.Event()
    long = Request(ids, 60, stop_ids=())
    end: queue.Queue[Any] = queue.Queue()
    scheduler.submit(long, lambda token: started.set(), end.put)
    assert started.wait(30)
    short = Client(scheduler, Request(ids, 5)).result()
    assert short.cached_tokens == len(ids) - 1
    assert end.get(timeout=60).stop_reason == "length"
    assert short.ids == alone(model, Request(ids, 5)).ids


def test_the_queue_has_a_limit_and_clients_take_turns(model: Model) -> None:
    waiting = FairQueue()
    continuation = Continuation(Request([1]), model.tokenizer, 8)
    for name in ("a", "a", "a", "b", "c", "b"):
        waiting.put(Ticket(continuation, name, print, print))
    assert [waiting.get().client for _ in range(6)] == ["a", "b", "c", "a", "b", "a"] and not len(waiting)
    with pytest.raises(IndexError):
        waiting.get()

    gate = threading.Event()
    with Scheduler(model, slots=1, queue_limit=2) as scheduler:
        blocker = scheduler.call(lambda _: gate.wait(30))
        clients = [Client(scheduler, Request([1, 5, 77], 3)) for _ in range(3)]  # one for the slot, two that wait
        with pytest.raises(QueueFull) as full:
            Client(scheduler, Request([1], 3))
        assert full.value.retry_after >= 1 and scheduler.statistics().refused == 1
        clients[1].ticket.cancel()
        gate.set()
        assert blocker.result(30)
        assert [client.result().stop_reason for client in clients] == ["length", "cancelled", "length"]


def test_whoever_left_keeps_no_place_in_the_queue(model: Model) -> None:
    begun, gate, ended = threading.Event(), threading.Event(), queue.Queue[str]()

    def wait(token: GeneratedToken) -> None:
        begun.set()
        gate.wait(30)

    with Scheduler(model, slots=1, queue_limit=2) as scheduler:
        scheduler.submit(Request([5], 20, stop_ids=()), wait, lambda _: ended.put("runs"))
        assert begun.wait(30)
        left = [scheduler.submit(Request([5], 3), print, lambda _, n=name: ended.put(n), client=name) for name in "ab"]
        with pytest.raises(QueueFull):
            scheduler.submit(Request([5], 3), print, print)
        for ticket in left:
            ticket.cancel()
        gate.set()
        assert [ended.get(timeout=30) for _ in range(3)] == ["a", "b", "runs"]
        assert scheduler.statistics().waiting == 0


def test_an_impossible_request_is_refused_at_once(scheduler: Scheduler) -> None:
    for request in (Request([1] * 97), Request([10**6]), Request([1], -2)):
        with pytest.raises(UsageError):
            Client(scheduler, request)
    assert scheduler.statistics().requests == 0


def test_a_failure_ends_its_own_request_only(model: Model, scheduler: Scheduler) -> None:
    class Broken:
        finished = False

        def mask(self, logits: Any) -> Any:
            raise UsageError("a grammar that fails")

        def accept(self, token: int) -> None: ...

    class Panic(BaseException):
        """What a library in Rust raises."""

    class Panicking(Broken):
        def mask(self, logits: Any) -> Any:
            raise Panic("at the disco")

    def careless(token: GeneratedToken) -> None:
        raise RuntimeError("a client that fails")

    end: queue.Queue[Any] = queue.Queue()
    request = Request(model.tokenize(PROMPTS[0]), 10)
    scheduler.submit(request, careless, end.put)
    broken = Client(scheduler, replace(request, constraint=Broken()))
    panicking = Client(scheduler, replace(request, constraint=Panicking()))
    fine = Client(scheduler, request)
    with pytest.raises(TritpackError, match="a grammar that fails"):
        broken.result()
    with pytest.raises(RuntimeError, match="Panic: at the disco"):
        panicking.result()
    ids = fine.result().ids
    assert end.get(timeout=30).ids == ids == alone(model, request).ids and len(fine.tokens) == 10


def test_work_between_passes_and_its_errors(model: Model, scheduler: Scheduler) -> None:
    client = Client(scheduler, Request(model.tokenize(PROMPTS[0]), 20, stop_ids=()))
    shape = scheduler.call(lambda model: model.hidden([1, 2, 3]).shape).result(30)
    assert shape == (3, model.spec.hidden_size)
    with pytest.raises(UsageError):
        scheduler.call(lambda model: model.hidden([])).result(30)
    assert len(client.result().ids) == 20


def test_closing_drains_or_cancels(model: Model) -> None:
    request = Request([1, 5], 80, stop_ids=())
    for seconds, reason in ((60.0, "length"), (0.0, "cancelled")):
        scheduler = Scheduler(model, slots=2)
        clients = [Client(scheduler, request) for _ in range(4)]
        scheduler.close(seconds)
        assert {client.result().stop_reason for client in clients} == {reason}, f"{seconds} s"
        with pytest.raises(Closed):
            Client(scheduler, request)
        with pytest.raises(Closed):
            scheduler.call(lambda model: 1)


def test_a_second_interrupt_waits_for_the_thread_all_the_same(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(model, slots=1)
    client = Client(scheduler, Request([1, 5], 80, stop_ids=()))
    real, calls = scheduler._thread.join, []

    def interrupted() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real()

    monkeypatch.setattr(scheduler._thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scheduler.close(60.0)
    assert not scheduler._thread.is_alive() and client.result().stop_reason == "cancelled"


def test_embeddings_do_not_keep_others_waiting(model: Model, scheduler: Scheduler) -> None:
    client = Client(scheduler, Request(model.tokenize(PROMPTS[0]), 20, stop_ids=()))
    seen: list[int] = []
    futures = [scheduler.call(lambda _: seen.append(len(client.tokens))) for _ in range(30)]
    assert len(client.result().ids) == 20
    for future in futures:
        future.result(30)
    assert len(set(seen)) > 5  # tokens came between the calls


def test_a_request_for_nothing_takes_no_slot(model: Model) -> None:
    ids = model.tokenize(PROMPTS[1])
    with Scheduler(model, slots=1) as scheduler:
        Client(scheduler, Request(ids, 4)).result()
        nothing = Client(scheduler, Request([1, 5, 77], 0)).result()
        assert (nothing.ids, nothing.stop_reason) == ([], "length")
        assert Client(scheduler, Request(ids, 4)).result().cached_tokens == len(ids) - 1
        assert scheduler.statistics().cancelled == 0


def test_logprobs_of_a_prompt_are_those_of_the_model(model: Model, scheduler: Scheduler) -> None:
    ids = model.tokenize(PROMPTS[1])
    Client(scheduler, Request(ids, 1)).result()
    scored = Client(scheduler, Request(ids, 0, prompt_logprobs=True, top_logprobs=1)).result()
    assert [entry.id for entry in scored.prompt_logprobs] == ids[1:] and scored.ids == []
    logits = model.logits(ids)
    for place, entry in enumerate(scored.prompt_logprobs):
        row = logits[place].astype(float)
        assert entry.top[0][0] == row.argmax(), f"position {place}"

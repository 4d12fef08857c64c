"""One model for many requests: continuous batching over slots, a prefix cache and a fair queue.

A thread of its own owns the model. Each pass gives every running request its next tokens: one while it writes, a piece
of its prompt before. Requests come and go between passes. A token's bits do not depend on what else is in its pass, so
a request gets the same text as alone.

A slot keeps the tokens of its last request. A new request takes over the longest common beginning that any slot has:
where it lies if nothing of worth follows it, else as a copy in the slot that was unused for longest. Where recurrent
layers do not allow that (`CSequence.rewindable`), it takes over less.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tritpack.formats.arrays import F32
from tritpack.formats.errors import MissingRequirement
from tritpack.runtime.continuation import CANCELLED, Continuation, Generation, Request
from tritpack.runtime.generate import common_prefix
from tritpack.runtime.machine import available_memory
from tritpack.runtime.model import Model
from tritpack.runtime.session import DEFAULT_BATCH, CSequence, Span
from tritpack.runtime.speculation import Speculation
from tritpack.runtime.ticket_queue import Closed, FairQueue, OnEnd, OnToken, QueueFull, Ticket
from tritpack.runtime.token_bytes import kept_bytes

PROMPT_BESIDE_WRITING = 64
"""Most tokens of prompts in a pass while other requests write, which wait for it."""
GUESSING_JOBS, GUESSING_ROWS = 2, 8
"""Tokens are guessed while at most so many requests run, and fill a pass up to so many rows: with more requests a pass
is full of tokens that are surely wanted."""
LOG = logging.getLogger(__name__)
T = TypeVar("T")
V = TypeVar("V")


@dataclass
class Slot:
    """A sequence, the tokens in it, and the request that it serves."""

    sequence: CSequence
    tokens: list[int] = field(default_factory=list)
    ticket: Ticket | None = None
    last_used: float = 0.0


@dataclass
class Statistics:
    """Counts since the start."""

    requests: int = 0
    refused: int = 0
    cancelled: int = 0
    generated_tokens: int = 0
    guessed_tokens: int = 0
    right_guesses: int = 0
    passes: int = 0
    evictions: int = 0  # beginnings of texts that were given up for others
    busy: int = 0  # slots, now
    waiting: int = 0  # requests, now


class Scheduler:
    """The thread that serves requests with a model, which nothing else may use meanwhile.

    slots: requests that are served at once. queue_limit: requests that may wait. speculation: makes what guesses for a
    request that brings nothing of its own, see speculation.py. Raises MissingRequirement if there is too little memory
    for the recurrent states of all slots.
    """

    def __init__(
        self,
        model: Model,
        slots: int = 4,
        queue_limit: int = 64,
        speculation: Callable[[], Speculation | None] | None = None,
    ) -> None:
        _require_memory(model, slots)
        self.model, self.queue_limit, self._speculation = model, queue_limit, speculation
        self._slots = [Slot(model.session.new_sequence()) for _ in range(slots)]
        self._queue, self._calls = FairQueue(), collections.deque[Callable[[], None]]()
        self._wake = threading.Condition()
        self._closing: float | None = None  # when what still runs is cancelled
        self._statistics, self._pass_seconds = Statistics(), 0.0
        self._thread = threading.Thread(target=self._run, name="tritpack-scheduler", daemon=True)
        self._thread.start()

    # -- from any thread -----------------------------------------------------------------------------------------------

    def submit(self, request: Request, on_token: OnToken, on_end: OnEnd, *, client: str = "") -> Ticket:
        """Hand in a request. Both callbacks run in the scheduler's thread and must not block it.

        on_token gets each token; on_end the result, or the error that ended the request. client: whose turn it is, for
        the queue. Raises UsageError for a prompt that is empty, too long or outside the vocabulary, QueueFull, Closed.
        """
        if self._speculation is not None and request.speculation is None:
            request = replace(request, speculation=self._speculation())
        continuation = Continuation(request, self.model.tokenizer, self.model.context_length)
        ticket = Ticket(continuation, client, on_token, on_end)
        with self._wake:
            if self._closing is not None:
                raise Closed
            free = sum(slot.ticket is None for slot in self._slots)
            if len(self._queue) >= self.queue_limit + free:
                self._statistics.refused += 1
                raise QueueFull(len(self._queue), self._wait_seconds())
            self._statistics.requests += 1
            self._queue.put(ticket)
            self._wake.notify()
        return ticket

    def call(self, function: Callable[[Model], T]) -> Future[T]:
        """Run a function with the model between two passes; it may use the model's own session. Raises Closed."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(self.model))
            except BaseException as error:
                future.set_exception(error)

        with self._wake:
            if self._closing is not None:
                raise Closed
            self._calls.append(run)
            self._wake.notify()
        return future

    def statistics(self) -> Statistics:
        """A copy of the counts."""
        with self._wake:
            busy = sum(slot.ticket is not None for slot in self._slots)
            return Statistics(**{**vars(self._statistics), "busy": busy, "waiting": len(self._queue)})

    def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more requests, let those that run and wait end within `drain_seconds`, cancel the rest, and stop."""
        with self._wake:
            self._closing = time.monotonic() + drain_seconds
            self._wake.notify()
        interrupt: BaseException | None = None
        while self._thread.is_alive():
            try:
                self._thread.join()
            except BaseException as error:  # a second Ctrl-C: the thread must not outlive the model, but can hurry
                interrupt, self._closing = error, 0.0
        for slot in self._slots:
            slot.sequence.close()
        if interrupt is not None:
            raise interrupt

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the scheduler's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._wait():
            try:
                if self._calls:  # one, so that those who write need not wait for all
                    self._calls.popleft()()
                if self._closing is not None and time.monotonic() > self._closing:
                    self._cancel_all()
                self._end_cancelled()
                self._admit()
                self._pass()
            except BaseException as error:  # a request must not wait for ever because of a bug here
                LOG.exception("the scheduler failed; its requests end")
                for slot, ticket in self._running():
                    self._end(slot, ticket, error)

    def _wait(self) -> bool:
        """Wait for something to do. False if there is nothing left and the scheduler closes."""
        with self._wake:
            while not (self._calls or len(self._queue) or any(slot.ticket for slot in self._slots)):
                if self._closing is not None:
                    return False
                self._wake.wait()
            return True

    def _running(self) -> list[tuple[Slot, Ticket]]:
        return [(slot, slot.ticket) for slot in self._slots if slot.ticket is not None]

    def _cancel_all(self) -> None:
        with self._wake:
            waiting = [self._queue.get() for _ in range(len(self._queue))]
        for ticket in waiting:
            self._end_unserved(ticket)
        for _, ticket in self._running():
            ticket.cancel()

    def _end_cancelled(self) -> None:
        with self._wake:
            gone = self._queue.take_cancelled()
        for ticket in gone:
            self._end_unserved(ticket)
        for slot, ticket in self._running():
            if ticket.cancelled:
                ticket.continuation.cancel()
                self._end(slot, ticket)

    def _end_unserved(self, ticket: Ticket) -> None:
        ticket.continuation.cancel()
        self._statistics.cancelled += ticket.cancelled or ticket.continuation.stop_reason == CANCELLED
        _tell(ticket.on_end, ticket.continuation.result())

    def _admit(self) -> None:
        """Give free slots to the requests whose turn it is."""
        while any(slot.ticket is None for slot in self._slots):
            with self._wake:
                if not len(self._queue):
                    return
                ticket = self._queue.get()
            if ticket.cancelled or ticket.continuation.stop_reason is not None:
                self._end_unserved(ticket)  # nothing is to be written, so no slot has to forget anything for it
                continue
            try:
                self._prepare_slot(ticket.continuation).ticket = ticket
            except BaseException as error:
                _tell(ticket.on_end, _as_exception(error))

    def _prepare_slot(self, continuation: Continuation) -> Slot:
        """Make a free slot begin with as much of the prompt as any slot has."""
        shared = {id(slot): common_prefix(slot.tokens, continuation.history) for slot in self._slots}
        useful = {key: min(known, continuation.prompt_tokens - 1) for key, known in shared.items()}
        reach = {id(slot): slot.sequence.rewindable(useful[id(slot)]) for slot in self._slots}
        source = max(self._slots, key=lambda slot: (reach[id(slot)], slot.ticket is None))
        continuation.reuse(shared[id(source)], source.sequence.rewindable)
        known = continuation.evaluated
        free = sorted((slot for slot in self._slots if slot.ticket is None), key=lambda slot: slot.last_used)
        slot = free[0]
        if known and source.ticket is None:
            # What follows the common beginning is kept if it is longer than what the slot unused for longest has.
            others = [other for other in free if other is not source]
            keep = others and len(source.tokens) - known > len(others[0].tokens)
            slot = others[0] if keep else source
        if len(slot.tokens) > max(known, shared[id(slot)]):
            self._statistics.evictions += 1
        if slot is source or not known:
            slot.sequence.rewind(known)
        else:
            slot.sequence.copy_from(source.sequence, known)
        slot.tokens = continuation.history[:known]
        return slot

    def _pass(self) -> None:
        """Give each running request its next tokens."""
        begin, running = time.perf_counter(), self._running()
        writing = [pair for pair in running if not pair[1].continuation.reads_prompt]
        reading = [pair for pair in running if pair[1].continuation.reads_prompt]
        reading.sort(key=lambda pair: pair[1].began)
        guesses = GUESSING_ROWS // len(running) - 1 if 0 < len(running) <= GUESSING_JOBS else 0
        room = PROMPT_BESIDE_WRITING if writing else DEFAULT_BATCH
        spans: list[Span] = []
        served: list[tuple[Slot, Ticket]] = []
        for slot, ticket in writing + reading:
            reads = ticket.continuation.reads_prompt
            if reads and not room:
                continue
            try:
                tokens, wanted = ticket.continuation.next_tokens(room if reads else DEFAULT_BATCH, guesses)
            except BaseException as error:
                self._end(slot, ticket, error)
                continue
            room -= len(tokens) if reads else 0
            spans.append(Span(slot.sequence, tokens, wanted))
            served.append((slot, ticket))
        if spans:
            self._evaluate(spans, served, begin)

    def _evaluate(self, spans: list[Span], served: list[tuple[Slot, Ticket]], begin: float) -> None:
        try:
            logits = self.model.session.eval_spans(spans)
        except BaseException as error:
            for slot, ticket in served:
                del slot.tokens[slot.sequence.n_past :]
                self._end(slot, ticket, error)
            return
        self._pass_seconds = time.perf_counter() - begin  # guessing is part of it
        self._statistics.passes += 1
        place = 0
        for (slot, ticket), span in zip(served, spans, strict=True):
            slot.tokens.extend(span.tokens)
            try:
                self._take(slot, ticket, logits[place : place + span.wanted])
            except BaseException as error:
                self._end(slot, ticket, error)
            place += span.wanted

    def _take(self, slot: Slot, ticket: Ticket, logits: F32) -> None:
        """Let a request take its logits, and tell its client."""
        continuation = ticket.continuation
        written = continuation.take(logits, self._pass_seconds)
        self._statistics.generated_tokens += len(written)
        if len(slot.tokens) > continuation.evaluated:  # wrong guesses
            slot.sequence.rewind(continuation.evaluated)
            del slot.tokens[continuation.evaluated :]
        for token in written:
            _tell(ticket.on_token, token)
        if continuation.stop_reason is not None:
            self._end(slot, ticket)

    def _end(self, slot: Slot, ticket: Ticket, error: BaseException | None = None) -> None:
        """Free a slot, whose tokens stay for the next request, and tell the client."""
        slot.ticket, slot.last_used = None, time.monotonic()
        result = ticket.continuation.result() if error is None else _as_exception(error)
        if isinstance(result, Generation):
            self._statistics.guessed_tokens += result.drafted
            self._statistics.right_guesses += result.accepted
            self._statistics.cancelled += result.stop_reason == CANCELLED
        _tell(ticket.on_end, result)

    def _wait_seconds(self) -> float:
        """A guess at how long a place in the queue takes to become free: a hundred passes for each round of slots."""
        return min(60.0, max(1.0, 100 * self._pass_seconds * len(self._queue) / len(self._slots)))


def _require_memory(model: Model, slots: int) -> None:
    """Raise MissingRequirement if the memory does not hold the recurrent states of all slots, which do not grow with
    the text as a KV cache does, but are there soon."""
    needed, free = slots * kept_bytes(model.spec), available_memory()
    if free is not None and needed > free:
        raise MissingRequirement(
            f"the recurrent states of {slots} requests at once need {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are available",
            path=model.file.path,
            hint="answer fewer at once (-np, --parallel)",
        )


def _as_exception(error: BaseException) -> Exception:
    """The error for a client. A library in Rust that panics raises what is no Exception; the thread must go on."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


def _tell(callback: Callable[[V], object], value: V) -> None:
    """Call a client, whose errors are its own: they are logged, and other requests go on."""
    try:
        callback(value)
    except BaseException:
        LOG.exception("a client's callback failed")

"""The model behind the HTTP layer: texts to ids, and requests to the scheduler's thread, awaited in the event loop."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from tritpack.formats.arrays import F32
from tritpack.formats.errors import TritpackError
from tritpack.runtime import embedding
from tritpack.runtime.chat import Message, chat_ids
from tritpack.runtime.continuation import GeneratedToken, Generation, Request
from tritpack.runtime.grammar import GrammarConstraint, constraint_for
from tritpack.runtime.model import Model
from tritpack.runtime.scheduler import Scheduler
from tritpack.runtime.serve.access import KEY_INDEX
from tritpack.runtime.serve.api_errors import ApiError, ContextTooLong, from_library, shutting_down
from tritpack.runtime.serve.limits import CHARACTERS_PER_BYTE, Settings
from tritpack.runtime.serve.metrics import Metrics
from tritpack.runtime.ticket_queue import Closed, QueueFull

RETRY_SECONDS = 1.0
"""After which a list of prompts tries again to get into a full queue, at the latest."""
KERNELS_SECONDS = 2.0
"""That /props waits for the end of a pass."""
T = TypeVar("T")


class Backend:
    """A model with its scheduler and settings, as the endpoints use them."""

    def __init__(
        self, model: Model, scheduler: Scheduler, settings: Settings, about: Mapping[str, Any] | None = None
    ) -> None:
        """about: what /props says of the file besides, such as its attestation."""
        self.model, self.scheduler, self.settings, self.about = model, scheduler, settings, dict(about or {})
        self.tokenizer = model.tokenizer
        self.metrics = Metrics(scheduler.statistics)
        self.created = int(model.file.path.stat().st_mtime)
        self.fingerprint = f"tritpack-{model.file.sha256[:16]}"
        self._kernels: list[str] = []
        # One thread, since a tokenizer's process answers one request at a time anyway.
        self._texts = concurrent.futures.ThreadPoolExecutor(1, "texts")
        longest = max(len(self.tokenizer.token_text(i)) for i in range(self.tokenizer.vocab_size))
        self.most_characters = CHARACTERS_PER_BYTE * longest * model.context_length

    # -- texts ---------------------------------------------------------------------------------------------------------

    async def apart(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what takes time and works on texts in the thread for it. Raises ApiError for the library's errors."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._texts, function, *arguments)
        except TritpackError as error:
            raise from_library(error) from error

    async def text_ids(self, text: str, param: str, add_special: bool = True) -> list[int]:
        """Return the token ids of a prompt. Raises ContextTooLong."""
        self.check_characters(len(text), param)
        ids = await self.apart(self.tokenizer.encode, text, add_special)
        self.check_length(ids, param)
        return ids

    async def conversation_ids(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], param: str
    ) -> list[int]:
        """Return the token ids of a conversation through the model's template. Raises ContextTooLong, and ApiError for
        a model without a template."""
        if not self.tokenizer.chat_template:
            message = "the model has no chat template: it is a base model; use /v1/completions with a prompt"
            raise ApiError(message, code="no_chat_template")
        if len(messages) > self.model.context_length:
            raise ContextTooLong(f"{len(messages)} messages do not fit into {self._context()}", param)
        self.check_characters(_characters(messages) + _characters(tools), param)
        ids = await self.apart(functools.partial(chat_ids, self.tokenizer, messages, tools=list(tools)))
        self.check_length(ids, param)
        return ids

    async def constraint(self, schema: Mapping[str, Any] | None) -> GrammarConstraint | None:
        """Return a constraint for answers that have to follow a JSON schema; each takes a copy. Raises ApiError."""
        if schema is None:
            return None
        return await self.apart(functools.partial(constraint_for, self.tokenizer, json_schema=schema))

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Raise ApiError for ids outside the vocabulary, or more than the context has."""
        self.check_vocabulary(ids, param)
        self.check_length(ids, param)

    def check_vocabulary(self, ids: Sequence[int], param: str) -> None:
        """Raise ApiError for an id outside the vocabulary."""
        size = self.tokenizer.vocab_size
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            message = f"token id {wrong} is outside the vocabulary of {size} tokens"
            raise ApiError(message, code="invalid_value", param=param)

    def check_length(self, ids: Sequence[int], param: str) -> None:
        """Raise ContextTooLong for more tokens than the context has."""
        if len(ids) > self.model.context_length:
            raise ContextTooLong(f"the prompt has {len(ids)} tokens, more than {self._context()}", param)

    def check_characters(self, characters: int, param: str) -> None:
        """Raise ContextTooLong for a text that no tokenizer could make short enough, before one has to try."""
        if characters > self.most_characters:
            raise ContextTooLong(f"a prompt of {characters} characters does not fit into {self._context()}", param)

    def _context(self) -> str:
        return f"the model's context of {self.model.context_length} tokens"

    # -- the scheduler -------------------------------------------------------------------------------------------------

    def require_logits(self) -> None:
        """Raise ApiError for an embedding model."""
        if self.model.spec.is_embedding_model:
            message = "the model is an embedding model, which was not trained to write; use /v1/embeddings"
            raise ApiError(message, code="embedding_model")

    def run(self, requests: Sequence[Request], client: str, constraint: GrammarConstraint | None = None) -> Runs:
        """Submit requests that belong together. client: takes turns with others in the queue. constraint: of each
        request. Raises ApiError, with status 429 if the queue is full, 503 if the server shuts down."""
        return Runs(self, requests, client, constraint)

    async def embedded(self, ids: Sequence[int], pooling: str | None) -> F32:
        """Return the vector of a text, float32 (hidden,). Raises ApiError, also after the time limit."""
        try:
            future = self.scheduler.call(lambda model: embedding.embed(model, ids, pooling=pooling))
            return await asyncio.wait_for(asyncio.wrap_future(future), self.settings.timeout)
        except asyncio.TimeoutError:
            raise late(self.settings) from None
        except TritpackError as error:
            raise from_library(error) from error

    async def kernels(self) -> list[str]:
        """Return the kernels that have run, or those known before where the model is too busy to be asked."""
        with contextlib.suppress(asyncio.TimeoutError, Closed):
            future = self.scheduler.call(lambda model: model.kernels())  # a pass adds to them meanwhile
            self._kernels = await asyncio.wait_for(asyncio.wrap_future(future), KERNELS_SECONDS)
        return self._kernels

    def close(self, drain_seconds: float = 0.0) -> None:
        """End the scheduler's thread and that of the texts; a second call makes the first one hurry."""
        self.scheduler.close(drain_seconds)
        self._texts.shutdown(cancel_futures=True)


class Runs:
    """Requests of one client, at most as many at once as there are slots, so that a long list does not fill the queue.

    Iterating gives (index, token) and at last (index, generation) of each. Whoever makes one closes it, which stops
    what still runs within one token.
    """

    def __init__(
        self, backend: Backend, requests: Sequence[Request], client: str, constraint: GrammarConstraint | None
    ) -> None:
        self._scheduler, self._settings, self._metrics = backend.scheduler, backend.settings, backend.metrics
        self._client, self._constraint = client, constraint
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[tuple[int, GeneratedToken | Generation | Exception]] = asyncio.Queue()
        self._waiting = collections.deque(enumerate(requests))
        self._tickets: dict[int, Any] = {}
        self._open = len(requests)
        self._begin = time.perf_counter()
        self._first = True
        self._late = False
        self._timer = self._loop.call_later(self._settings.timeout, self._expire)
        try:
            self._fill()
        except TritpackError as error:
            self.close()
            raise from_library(error) from error

    def _fill(self) -> None:
        while self._waiting and len(self._tickets) < max(1, self._settings.slots):
            index, request = self._waiting[0]
            if self._constraint is not None:  # copied late: each is as large as its schema
                request = dataclasses.replace(request, constraint=self._constraint.copy())
            put = functools.partial(self._hand_over, index)
            self._tickets[index] = self._scheduler.submit(request, put, put, client=self._client)
            self._waiting.popleft()

    def _refill(self) -> None:
        """Submit more, some time after the first: the queue may be full now, and not for long."""
        try:
            self._fill()
        except QueueFull as full:
            if not self._tickets:  # otherwise the end of one of them comes back here
                self._loop.call_later(min(full.retry_after, RETRY_SECONDS), self._refill)
        except TritpackError as error:
            self._items.put_nowait((self._waiting[0][0], error))

    def _hand_over(self, index: int, item: GeneratedToken | Generation | Exception) -> None:
        """Called in the scheduler's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended before the scheduler
            self._loop.call_soon_threadsafe(self._items.put_nowait, (index, item))

    def _expire(self) -> None:
        self._late = True
        for ticket in self._tickets.values():
            ticket.cancel()
        if self._waiting:
            self._items.put_nowait((self._waiting[0][0], late(self._settings)))

    def close(self) -> None:
        """Stop what still runs."""
        self._timer.cancel()
        self._waiting.clear()
        for ticket in self._tickets.values():
            ticket.cancel()
        self._tickets.clear()

    async def __aiter__(self) -> AsyncIterator[tuple[int, GeneratedToken | Generation]]:
        try:
            while self._open:
                index, item = await self._items.get()
                if isinstance(item, Exception):
                    raise from_library(item) if isinstance(item, TritpackError) else item
                self._observe(item)
                if isinstance(item, Generation):
                    self._open -= 1
                    del self._tickets[index]
                    self._refill()
                yield index, item
        finally:
            self.close()

    def _observe(self, item: GeneratedToken | Generation) -> None:
        """Count an item. Raises ApiError for an answer that ended before it began."""
        seconds = time.perf_counter() - self._begin
        if isinstance(item, GeneratedToken):
            if self._first:
                self._metrics.first_token.observe(seconds)
            self._first = False
            return
        self._metrics.count(item)
        self._metrics.answers.observe(seconds)
        if item.stop_reason == "cancelled" and not item.ids:
            raise late(self._settings) if self._late else shutting_down()


def late(settings: Settings) -> ApiError:
    """Return the answer to a request that got none within the limit."""
    message = f"no answer within {settings.timeout:g} s: the server is busy, or the prompt is long"
    return ApiError(message, status=503, code="timeout", headers={"Retry-After": "10"})


def client_of(request: HttpRequest) -> str:
    """Return who asks, for the queue: a key where there are keys, since a proxy may stand for many, else a machine.

    Nothing counts that a client could make up to get more turns.
    """
    key = request.scope.get(KEY_INDEX)
    if key is not None:
        return f"key {key}"
    return request.client.host if request.client else ""


def _characters(value: Any) -> int:
    """The characters of all texts in a JSON value."""
    if isinstance(value, dict):
        return sum(len(key) + _characters(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return sum(map(_characters, value))
    return len(value) if isinstance(value, str) else 0

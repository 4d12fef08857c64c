"""llama-server of any fork: it is started on loopback and asked for the token that follows, with probabilities.

Every request gives token ids and asks for one token, so tokenizers play no part, and nothing depends on text that is
not whole. Since December 2024 servers answer with ids and log-probabilities, before that with the text of tokens and
probabilities over those that they name.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tritpack.converter.sources.hub_transfer import within
from tritpack.converter.verify.engine.answers import Answer, Run
from tritpack.converter.verify.engine.program import Deadline, EngineFailed, Program, Running
from tritpack.formats.errors import NetworkTrouble

HOST = "127.0.0.1"
LARGEST_ANSWER = 1 << 23
TOP = 64
"""Tokens whose probabilities are asked for."""
LEAST = -80.0
"""Log-probabilities below it have no float32 probability, and servers write something else for them."""
TOKEN_BY_TOKEN, ONE_BATCH = "token by token", "prompt in one batch"

Pieces = Callable[[], "dict[str, list[int]]"]
"""The tokens with a text, as servers before December 2024 write it."""


def ask_server(
    program: Program,
    arguments: Sequence[str],
    tokens: Sequence[int],
    batches: Sequence[int],
    vocab: int,
    pieces: Pieces,
    deadline: Deadline,
) -> list[Run]:
    """Return a server's predictions after each of the tokens, fed one by one, and after the first n for each n of
    `batches`, fed at once. arguments: -m FILE and others. Raises EngineFailed if it never answers."""
    port = _free_port()
    options = {"--host": HOST, "--port": port, "-np": 1, "--offline": None, "--no-webui": None}
    with Running([str(program.path), *arguments, *program.options(options)]) as running:
        server = _Server(running, port, min(TOP, vocab), vocab, pieces, deadline)
        server.wait_until_ready()
        first = server.run(TOKEN_BY_TOKEN, tokens, range(1, len(tokens) + 1), keep_cache=True)
        return [first, server.run(ONE_BATCH, tokens, batches, keep_cache=False)]


class _Server:
    """The running server. top: how many tokens it is asked for."""

    def __init__(self, running: Running, port: int, top: int, vocab: int, pieces: Pieces, deadline: Deadline) -> None:
        self._running, self._top, self._vocab, self._pieces, self._deadline = running, top, vocab, pieces, deadline
        self._port = port

    def wait_until_ready(self) -> None:
        for _ in self._deadline.ticks(0.1):
            if self._running.ended is not None:
                raise self._running.ended_error()
            try:
                if self._exchange("GET", "/health")[0] == 200:
                    return
            except TimeoutError:
                break
            except OSError:
                continue
            except http.client.HTTPException as error:
                raise self._running.failed("does not answer as an HTTP server does") from error
        raise self._running.failed(f"was not ready after {self._deadline.seconds:.0f} seconds")

    def run(self, way: str, tokens: Sequence[int], lengths: Sequence[int], *, keep_cache: bool) -> Run:
        """Return its predictions after the first n tokens for each n of `lengths`. keep_cache: it may reuse what it
        computed for a shorter prefix."""
        answers = []
        try:
            for length in lengths:
                if (answer := self._next_token(tokens[:length], keep_cache)) is not None:
                    answers.append(answer)
        except EngineFailed as error:
            return Run(way, answers, f"{error.message} ({error.hint})", len(lengths))
        return Run(way, answers, asked=len(lengths))

    def _next_token(self, tokens: Sequence[int], keep_cache: bool) -> Answer | None:
        reply = self._post(
            {"prompt": list(tokens), "n_predict": 1, "temperature": 0.0, "n_probs": self._top, "stream": False,
             "cache_prompt": keep_cache, "ignore_eos": False, "return_tokens": True, "repeat_penalty": 1.0}
        )  # fmt: skip
        entries = reply.get("completion_probabilities")
        if not entries:  # the text of the token is not whole characters, and the server keeps it back
            return None
        if not isinstance(entries, list):
            raise self._running.failed("answered with probabilities in an unknown form")
        return self._answer(len(tokens), entries[0])

    def _answer(self, length: int, entry: Any) -> Answer:
        try:
            if "top_logprobs" in entry or "top_probs" in entry:
                rows = entry.get("top_logprobs") or entry["top_probs"]
                named = [
                    (int(row["id"]), _number(row["logprob"]) if "logprob" in row else _log(row.get("prob")))
                    for row in rows
                ]
                likeliest = [token for token, _ in named[:1]]
            else:
                found = self._pieces()
                texts = [(found.get(row["tok_str"], []), _log(row.get("prob"))) for row in entry["probs"]]
                named = [(candidates[0], value) for candidates, value in texts if len(candidates) == 1]
                likeliest = texts[0][0] if texts else []
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self._running.failed("answered with probabilities in an unknown form") from error
        if any(not 0 <= token < self._vocab for token, _ in named):
            raise self._running.failed("named a token that the file does not have")
        kept = [(token, value) for token, value in named if not value < LEAST]
        return Answer(
            length,
            np.array([token for token, _ in kept], np.int64),
            np.array([value for _, value in kept], np.float64),
            tuple(likeliest),
        )

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            status, text = self._exchange("POST", "/completion", json.dumps(body).encode())
        except TimeoutError:
            raise self._hung() from None
        except OSError as error:
            raise self._ended_or("closed the connection") from error
        except http.client.HTTPException as error:
            raise self._ended_or("answered with something that is not HTTP") from error
        if status != 200:
            raise self._running.failed(f"answered with HTTP status {status}")
        if len(text) > LARGEST_ANSWER:
            raise self._running.failed("answered with more than 8 MiB")
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._running.failed("answered with something that is not JSON") from error
        if not isinstance(reply, dict):
            raise self._running.failed("answered with JSON that is not an object")
        return reply

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return the status of an answer and its bytes, LARGEST_ANSWER + 1 at most. No redirect is followed.

        Raises TimeoutError for one that is not there whole when the time is over: a timeout of the socket counts from
        byte to byte. Raises OSError and http.client.HTTPException too.
        """

        def ask() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(HOST, self._port, timeout=self._deadline.left)
            with contextlib.closing(connection):
                connection.request(method, path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                return answer.status, answer.read(LARGEST_ANSWER + 1)

        try:
            return within(self._deadline.left, ask, path)
        except NetworkTrouble:
            raise TimeoutError from None

    def _hung(self) -> EngineFailed:
        return self._running.failed(f"did not answer within {self._deadline.seconds:.0f} seconds")

    def _ended_or(self, how: str) -> EngineFailed:
        for _ in Deadline(2).ticks(0.05):
            if self._running.ended is not None:
                return self._running.ended_error()
        return self._running.failed(how)


def _number(value: Any) -> float:
    """A log-probability; JSON has no NaN, so servers write null."""
    return float("nan") if value is None else float(value)


def _log(value: Any) -> float:
    """The logarithm of a probability."""
    probability = _number(value)
    return math.log(probability) if probability > 0 else (-math.inf if probability == 0 else math.nan)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

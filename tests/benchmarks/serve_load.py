"""Load on a server: requests of mixed length, many at once, some of whose clients hang up in mid-stream.

`python -m tests.benchmarks.serve_load HOST:PORT --requests 1000 --at-once 50 --killed 0.3` sends it to a server that
runs, asks each request alone afterwards, and prints what became of all of them. With `--speed 4` it measures instead
the total speed of so many clients and the time of their first tokens, on any server with /v1/completions.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import random
import socket
import statistics
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PATH = "/v1/completions"
TEXT = """
the king had three sons and a fox who lived in wood by sea golden bird said to princess old woman gave him apple until
night came they went over hills house was dark there stood an oak tree under which wolf slept
"""
WORDS = TEXT.split()
Address = tuple[str, int]


@dataclasses.dataclass
class Load:
    """What became of requests, by their index."""

    finished: dict[int, str] = dataclasses.field(default_factory=dict)
    killed: set[int] = dataclasses.field(default_factory=set)
    refused: set[int] = dataclasses.field(default_factory=set)  # 429 with Retry-After
    errors: dict[int, str] = dataclasses.field(default_factory=dict)
    first_tokens: list[float] = dataclasses.field(default_factory=list)  # seconds


def mixed_requests(count: int, seed: int, longest: int = 400) -> list[dict[str, Any]]:
    """Return bodies with prompts of 3 to `longest` words and answers of 1 to 100 tokens, half of them sampled."""
    chance = random.Random(seed)
    requests = []
    for _ in range(count):
        words = int(3 * (longest / 3) ** chance.random())  # as many short ones as long ones
        sampled = {"temperature": 0.9, "top_p": 0.95, "seed": chance.randrange(1000)}
        requests.append(
            {
                "prompt": "Once upon a time " + " ".join(chance.choices(WORDS, k=words)),
                "max_tokens": int(100 ** chance.random()),
                **(sampled if chance.random() < 0.5 else {"temperature": 0}),
            }
        )
    return requests


def run_load(address: Address, requests: Sequence[dict[str, Any]], *, at_once: int, killed: float, seed: int) -> Load:
    """Send requests as streams, `at_once` at a time. killed: the share of clients that hang up after some events."""
    load, chance = Load(), random.Random(seed)
    victims = set(chance.sample(range(len(requests)), int(killed * len(requests))))
    patience = {index: chance.randrange(4) for index in victims}
    with ThreadPoolExecutor(at_once) as pool:
        for future in [
            pool.submit(_one, address, index, body, patience.get(index), load) for index, body in enumerate(requests)
        ]:
            future.result()
    return load


def _one(address: Address, index: int, body: dict[str, Any], events: int | None, load: Load) -> None:
    """Send one request. events: after how many the client hangs up; None waits for the end."""
    begin = time.perf_counter()
    try:
        with _sent(address, {**body, "stream": True}) as (connection, response):
            if response.status == 429 and response.getheader("retry-after"):
                load.refused.add(index)
                return
            if response.status != 200:
                load.errors[index] = f"{response.status} {response.read()[:200]!r}"
                return
            if events == 0:
                _hang_up(connection)
                load.killed.add(index)
                return
            texts: list[str] = []
            for number, text in enumerate(_texts(response), 1):
                if number == 1:
                    load.first_tokens.append(time.perf_counter() - begin)
                texts.append(text)
                if number == events:
                    _hang_up(connection)
                    load.killed.add(index)
                    return
            if events is None:
                load.finished[index] = "".join(texts)
            else:
                load.killed.add(index)  # the answer was shorter than its patience
    except (OSError, http.client.HTTPException, ValueError) as error:
        load.errors[index] = f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _sent(
    address: Address, body: dict[str, Any]
) -> Iterator[tuple[http.client.HTTPConnection, http.client.HTTPResponse]]:
    connection = http.client.HTTPConnection(*address, timeout=600)
    try:
        connection.request("POST", PATH, json.dumps(body).encode(), {"Content-Type": "application/json"})
        yield connection, connection.getresponse()
    finally:
        connection.close()


def _texts(response: http.client.HTTPResponse) -> Iterator[str]:
    """The texts of a stream's events. Raises ValueError for a stream that does not end as it should."""
    ended = False
    for data in _events(response):
        if "error" in data:
            raise ValueError(data["error"])
        ended = ended or any(choice["finish_reason"] for choice in data["choices"])
        yield "".join(choice["text"] for choice in data["choices"])
    if not ended:
        raise ValueError("the stream has no end")


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The data of a stream's events, without the mark at its end."""
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """Close a connection as a process that was killed does."""
    if connection.sock is not None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def alone(address: Address, body: dict[str, Any]) -> str:
    """Return the answer to a request that is the only one."""
    with _sent(address, body) as (_, response):
        return str(json.loads(response.read())["choices"][0]["text"])


def resident(address: Address) -> float:
    """Return the server's memory in MB, as it says itself; NaN if it does not."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    found = [line for line in lines if line.startswith("process_resident_memory_bytes ")]
    return float(found[0].split()[1]) / 1e6 if found else float("nan")


def speed(address: Address, clients: int, tokens: int, words: int, seed: int) -> tuple[float, float]:
    """Return (tokens per second of all clients together, median seconds to the first token), of any server with
    /v1/completions: of ours, of llama-server, and of the older llama-server in bitnet.cpp."""
    chance = random.Random(seed)
    bodies = [
        {"prompt": " ".join(chance.choices(WORDS, k=words)), "max_tokens": tokens, "n_predict": tokens,
         "temperature": 0, "ignore_eos": True, "cache_prompt": False, "stream_options": {"include_usage": True}}
        for _ in range(clients)
    ]  # fmt: skip

    def one(body: dict[str, Any]) -> tuple[float, int]:
        begin, first, count = time.perf_counter(), 0.0, 0
        with _sent(address, {**body, "stream": True}) as (_, response):
            for data in _events(response):
                first = first or time.perf_counter() - begin
                count = (data.get("usage") or {}).get("completion_tokens") or data.get("tokens_predicted") or count
        return first, count

    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        firsts, counts = zip(*pool.map(one, bodies))
    return sum(counts) / (time.perf_counter() - begin), statistics.median(firsts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--killed", type=float, default=0.3)
    parser.add_argument("--longest", type=int, default=400, help="words of the longest prompt")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=int, metavar="CLIENTS", help="measure the speed of so many clients instead")
    parser.add_argument("--tokens", type=int, default=128, help="of each client's answer, with --speed")
    parser.add_argument("--words", type=int, default=24, help="of each client's prompt, with --speed")
    options = parser.parse_args(arguments)
    host, _, port = options.address.rpartition(":")
    address = (host, int(port))
    if options.speed:
        total, first = speed(address, options.speed, options.tokens, options.words, options.seed)
        print(f"{options.speed} clients: {total:.2f} tokens/s, first token after {first:.3f} s")
        return
    requests = mixed_requests(options.requests, options.seed, options.longest)
    before, begin = resident(address), time.perf_counter()
    load = run_load(address, requests, at_once=options.at_once, killed=options.killed, seed=options.seed)
    seconds, after = time.perf_counter() - begin, resident(address)
    different = [index for index, text in load.finished.items() if alone(address, requests[index]) != text]
    kinds = f"{len(load.finished)} finished, {len(load.killed)} hung up, {len(load.refused)} refused with 429"
    print(f"{len(requests)} requests in {seconds:.1f} s: {kinds}, {len(load.errors)} errors")
    for error, count in Counter(load.errors.values()).items():
        print(f"error, {count} times: {error}")
    print(f"answers that differ from those given alone: {len(different)} of {len(load.finished)}")
    print(f"memory of the server: {before:.1f} MB before, {after:.1f} MB after, {resident(address):.1f} MB at the end")


if __name__ == "__main__":
    main()

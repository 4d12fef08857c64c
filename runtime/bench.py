"""How fast a packed file runs here, beside what this machine could do at most: rows in llama-bench's terms."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.library import Kernel, Library, library
from tritpack.runtime.machine import peak_rss
from tritpack.runtime.model import Model, cache_bytes

SCHEMA = "tritpack.bench/1"
KERNELS_SCHEMA = "tritpack.bench-kernels/1"
FIRST_PROMPT = 8
"""Tokens of the prompt whose first answer is timed from the opening of the file."""
WARM_UP = 4
RAPL = Path("/sys/class/powercap")
COUNTED = ("matmul", "dots")
"""Kernels whose work is products; the others' is bytes."""
BEFORE_ATTENTION = ("attn_q.weight", "attn_k.weight", "attn_v.weight")
"""Linears that all tokens of a prompt pass in the last layer too."""

Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Row:
    """One test on so many threads. tokens_per_second of each repetition; limits of the same run (None: unknown)."""

    test: str
    threads: int
    tokens_per_second: list[float]
    file_bytes_per_token: int
    """Of a decoded token: every weight once, of a table that only embeds one row."""
    cache_bytes_per_token: int
    """Keys and values that it reads, on average over the test."""
    read_limit: float | None
    """Bytes a second that as many threads stream from this file; None for one below a MiB."""
    dots_limit: float | None
    """int8 products a second of registers; None for instruction sets that have no kernel for it."""
    macs_per_token: int
    """Of the linears: what is counted against dots_limit."""
    joules_per_token: float | None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.tokens_per_second)

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.tokens_per_second) if len(self.tokens_per_second) > 1 else 0.0

    @property
    def is_prompt(self) -> bool:
        return self.test.startswith("pp")

    @property
    def bytes_per_second(self) -> float:
        return self.mean * (self.file_bytes_per_token + self.cache_bytes_per_token)

    @property
    def share_of_limit(self) -> float | None:
        """Decoding: bandwidth by the read limit. Prompts: products by the int8 limit."""
        if not self.is_prompt:
            return self.bytes_per_second / self.read_limit if self.read_limit else None
        return self.mean * self.macs_per_token / self.dots_limit if self.dots_limit else None

    def as_json(self) -> dict[str, Any]:
        return {
            "test": self.test,
            "threads": self.threads,
            "tokens_per_second": self.mean,
            "deviation": self.deviation,
            "samples": self.tokens_per_second,
            "file_bytes_per_token": self.file_bytes_per_token,
            "cache_bytes_per_token": self.cache_bytes_per_token,
            "bytes_per_second": None if self.is_prompt else self.bytes_per_second,
            "read_limit": self.read_limit,
            "macs_per_second": self.mean * self.macs_per_token,
            "dots_limit": self.dots_limit,
            "share_of_limit": self.share_of_limit,
            "joules_per_token": self.joules_per_token,
        }


def bench(
    path: str | Path,
    *,
    prompt: Sequence[int] = (512,),
    generate: Sequence[int] = (128,),
    depth: int = 0,
    threads: Sequence[int] = (1,),
    repetitions: int = 5,
    isa: str | None = None,
    kv_type: str = "f32",
    progress: Progress = lambda name, done, total: None,
) -> dict[str, Any]:
    """Rows for every test and thread count, one after the other over the same mapped file.

    prompt: lengths evaluated at once (ppN); generate: numbers of tokens decoded one by one (tgN), both behind `depth`
    tokens that are not timed. Raises UsageError if the model's context is shorter; otherwise as Model.
    """
    c = library()
    file = GgufFile(path)
    tests = [(f"pp{n}", n) for n in prompt if n > 0] + [(f"tg{n}", n) for n in generate if n > 0]
    if not tests or not threads or repetitions < 1:
        raise UsageError("nothing to measure", hint="give -p or -n, and at least one thread and repetition")
    positions = depth + max(n for _, n in tests)
    # First of all: afterwards this mapping of the file would be counted beside theirs.
    first = [_first_token(path, count, isa, kv_type) for count in threads]
    rows, kernels = [], set()
    for count in threads:
        with Model(file, threads=count, isa=isa, kv_type=kv_type, context=positions) as model:
            if positions > model.context_length:
                has = f"the model has {model.context_length}"
                raise UsageError(f"{positions} positions, {has}", hint="give a smaller -p, -n or -d")
            limits = c.read_limit(file.mapped, count, isa) or None, c.dots_limit(count, isa) or None
            for number, (name, n) in enumerate(tests):
                label = name + (f" @ d{depth}" if depth else "")
                progress(f"{label}, {count} threads", number, len(tests))
                samples, joules = _samples(model, name.startswith("pp"), n, depth, repetitions)
                cached = (depth + (n + 1) / 2) * cache_bytes(model.spec, kv_type)
                size, macs = _bytes_per_token(model), _macs_per_token(model, n if name.startswith("pp") else 1)
                rows.append(Row(label, count, samples, size, round(cached), *limits, macs, joules))
            kernels |= set(model.kernels())
    return {
        "schema": SCHEMA,
        "file": str(path),
        "file_bytes": Path(path).stat().st_size,
        "architecture": model.spec.architecture,
        "layouts": _layouts(file),
        "kv_type": kv_type,
        "machine": {"cpu": c.cpu(), "system": f"{platform.system()} {platform.machine()}", "isa": isa or c.best_isa()},
        "rows": [row.as_json() for row in rows],
        "first_token_seconds": dict(zip(map(str, threads), first, strict=True)),
        "peak_rss_bytes": peak_rss(),
        "kernels": sorted(kernels),
    }


def bench_kernels(*, progress: Progress = lambda name, done, total: None) -> dict[str, Any]:
    """Every kernel of this CPU: against scalar first, then its speed on one thread on data in the cache."""
    c = library()
    wrong = {line.split(":")[0] for line in c.self_test()[1] if "WRONG" in line}
    table = []
    kernels = c.kernels()
    for number, kernel in enumerate(kernels):
        progress(kernel.symbol, number, len(kernels))
        table.append(_kernel_row(c, kernel, wrong))
    return {
        "schema": KERNELS_SCHEMA,
        "machine": {"cpu": c.cpu(), "system": f"{platform.system()} {platform.machine()}", "isa": c.best_isa()},
        "kernels": table,
    }


def _kernel_row(c: Library, kernel: Kernel, wrong: set[str]) -> dict[str, Any]:
    state = "not on this CPU" if not kernel.available else "wrong" if kernel.symbol in wrong else "ok"
    unit = "macs_per_second" if kernel.op in COUNTED else "bytes_per_second"
    return {
        "symbol": kernel.symbol,
        "isa": kernel.isa,
        "state": state,
        unit: (c.kernel_speed(kernel) or None) if state == "ok" else None,
    }


def _samples(model: Model, at_once: bool, n: int, depth: int, repetitions: int) -> tuple[list[float], float | None]:
    """Tokens a second of each repetition, and joules a token over all of them."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, model.spec.vocab_size, depth + n).tolist()
    model.reset()
    if depth:
        model.append(ids[:depth])
    model.append(ids[depth : depth + (n if at_once else min(n, WARM_UP))])
    samples, used = [], 0.0
    for _ in range(repetitions):
        model.rewind(depth)
        with _energy() as joules:
            begin = time.perf_counter()
            if at_once:
                model.eval(ids[depth:])
            else:
                for token in ids[depth:]:
                    model.eval([token])
            samples.append(n / (time.perf_counter() - begin))
        used += joules[0] if joules else 0.0
    return samples, used / (n * repetitions) if used else None


def _first_token(path: str | Path, threads: int, isa: str | None, kv_type: str) -> float:
    """Seconds from opening the file, its pages in memory, to the logits behind a prompt of FIRST_PROMPT tokens."""
    begin = time.perf_counter()
    with Model(path, threads=threads, isa=isa, kv_type=kv_type) as model:
        model.eval(list(range(min(FIRST_PROMPT, model.spec.vocab_size))))
        return time.perf_counter() - begin


def _bytes_per_token(model: Model) -> int:
    """What a decoded token reads of the file: all tensors, but of an embedding that is no head only a row."""
    total = sum(info.nbytes for info in model.file.tensors.values())
    if not model.spec.tied:
        embedding = model.file.tensors["token_embd.weight"]
        total -= embedding.nbytes - embedding.nbytes // embedding.rows
    return total


def _macs_per_token(model: Model, tokens: int) -> int:
    """Of the linears, over tokens evaluated at once: behind its cache the last layer works on the last alone."""
    shapes, last = model.spec.tensor_shapes(), f"blk.{model.spec.layers - 1}."
    macs = {name: math.prod(shapes[name]) for name in model.spec.linear_names()}
    behind = sum(macs[name] for name in macs if name.startswith(last) and not name.endswith(BEFORE_ATTENTION))
    return round(sum(macs.values()) - behind * (tokens - 1) / tokens)


def _layouts(file: GgufFile) -> list[str]:
    return sorted({info.layout for info in file.tensors.values() if info.layout is not None} - {"f32"})


@contextlib.contextmanager
def _energy() -> Iterator[list[float]]:
    """Joules that the processors used within the block, put into the list: empty where RAPL is not readable."""
    found = sorted(RAPL.glob("intel-rapl:[0-9]"))
    counters = [path for path in found if os.access(path / "energy_uj", os.R_OK)]

    def read() -> list[int]:
        return [int((counter / "energy_uj").read_text()) for counter in counters]

    joules: list[float] = []
    try:
        before = read()
        wraps = [int((counter / "max_energy_range_uj").read_text()) for counter in counters]
    except (OSError, ValueError):
        counters = []
    yield joules
    if counters:
        spent = [(after - was) % wrap for after, was, wrap in zip(read(), before, wraps, strict=True)]
        joules.append(sum(spent) / 1e6)

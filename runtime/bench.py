"""Speed of a packed file on this machine, and its share of the machine's own limits, in llama-bench's terms."""

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

from tritpack.formats import model_metadata
from tritpack.formats.errors import UsageError, locating
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.names import BLOCK_FLOATS
from tritpack.formats.progress import Progress, silent
from tritpack.runtime.library import Kernel, Library, library
from tritpack.runtime.machine import peak_rss, usable_cores
from tritpack.runtime.model import Model
from tritpack.runtime.pages import huge_share
from tritpack.runtime.parts import seconds_by_part
from tritpack.runtime.session import Span
from tritpack.runtime.token_bytes import cache_bytes, read_per_token, state_bytes

SCHEMA = "tritpack.bench/1"
KERNELS_SCHEMA = "tritpack.bench-kernels/1"
N_PROMPT, N_GEN = 512, 128
"""What is measured unless a caller says otherwise."""
FIRST_PROMPT = 8
"""Tokens of the prompt for the time to the first token."""
WARM_UP = 4
STEPS = 16
"""Tokens that each of several sequences decodes."""
RAPL = Path("/sys/class/powercap")
COUNTED = ("matmul", "dots")
"""Operations measured in products per second; all others are measured in bytes per second."""
BEFORE_ATTENTION = ("attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_qkv.weight")
"""The linears that the last layer computes for every token of a prompt."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """A test after `depth` tokens, in llama-bench's terms: `pp` evaluates n at once, `tg` decodes n one by one.

    `batch` evaluates n at once and wants the logits of each, as speculation does. `seq` decodes STEPS tokens of each of
    n sequences together, as a server does.
    """

    kind: str
    n: int
    depth: int

    @property
    def is_prompt(self) -> bool:
        return self.kind == "pp"

    @property
    def positions(self) -> int:
        """Tokens of each sequence."""
        return STEPS if self.kind == "seq" else self.n

    @property
    def label(self) -> str:
        return f"{self.kind}{self.n}" + (f" @ d{self.depth}" if self.depth else "")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What this machine could do at some moment: bytes per second that a row's threads stream from the weights where
    the model reads them, and products per second on registers, of int8 or, where the model's activations are floats, of
    floats that are multiplied and added without FMA. None: below one MiB, for the other kind of activations, and for an
    instruction set without such a kernel."""

    read: float | None
    dots: float | None
    floats: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One test at one thread count: the speed of each repetition, and the machine's limits around it."""

    test: str
    threads: int
    samples: list[float]
    """Tokens per second of each repetition."""
    limits: list[Limits]
    """Before the first repetition and after each."""
    file_bytes_per_token: int
    """Bytes of the file that a decoded token reads: every weight, but one row of an embedding that is not the head."""
    cache_bytes_per_token: int
    """Bytes of keys, values and recurrent states that one token reads, on average over the test."""
    macs_per_token: int
    """Products of the linears per token, the figure that the limit of products bounds."""
    joules_per_token: float | None
    batch: int = 1
    """Tokens that share one reading of the weights, in tests of batches and sequences."""
    sequences: int = 1
    """Sequences that share it; each reads its own keys and values."""

    @property
    def tokens_per_second(self) -> float:
        """The median, which one disturbed repetition does not move."""
        return statistics.median(self.samples)

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0

    @property
    def is_prompt(self) -> bool:
        return self.test.startswith("pp")

    @property
    def bytes_per_second(self) -> float:
        return self.tokens_per_second * self._bytes_read

    @property
    def _bytes_read(self) -> float:
        """Bytes that are read for one token of the test."""
        return (self.file_bytes_per_token + self.cache_bytes_per_token * self.sequences) / self.batch

    @property
    def read_limits(self) -> list[float]:
        return [limit.read for limit in self.limits if limit.read]

    @property
    def dots_limits(self) -> list[float]:
        return [limit.dots for limit in self.limits if limit.dots]

    @property
    def floats_limits(self) -> list[float]:
        return [limit.floats for limit in self.limits if limit.floats]

    @property
    def shares(self) -> dict[str, float]:
        """What was reached of each limit that was measured: `read`, the bandwidth, and `dots` or `floats`, the products
        per second. The median over the repetitions, each held against the limits just before and after it."""
        limits = {
            "read": (self._bytes_read, [] if self.is_prompt else self.read_limits),
            "dots": (self.macs_per_token, self.dots_limits),
            "floats": (self.macs_per_token, self.floats_limits),
        }
        return {
            name: statistics.median(
                2 * sample * work / (before + after) for sample, before, after in zip(self.samples, around, around[1:])
            )
            for name, (work, around) in limits.items()
            if around
        }

    @property
    def share_of_limit(self) -> float | None:
        """The share of the limit that `bound` names; None if it was not measured."""
        return self.shares.get(self.bound)

    @property
    def bound(self) -> str:
        """The limit of this test: products for prompts, `read` for decoding. For batches and sequences, and for
        decoding with float activations, the lower of reads and products, whose share is the larger one."""
        shares = self.shares
        if self.is_prompt:
            return "floats" if "floats" in shares else "dots"
        if "floats" in shares or (self.batch > 1 and len(shares) == 2):
            return max(shares, key=shares.__getitem__)
        return "read"

    def as_json(self) -> dict[str, Any]:
        return {
            "test": self.test,
            "threads": self.threads,
            "tokens_per_second": self.tokens_per_second,
            "lowest": min(self.samples),
            "highest": max(self.samples),
            "deviation": self.deviation,
            "samples": self.samples,
            "file_bytes_per_token": self.file_bytes_per_token,
            "cache_bytes_per_token": self.cache_bytes_per_token,
            "bytes_per_second": None if self.is_prompt else self.bytes_per_second,
            "read_limit": statistics.median(self.read_limits) if self.read_limits else None,
            "read_limits": self.read_limits,
            "macs_per_second": self.tokens_per_second * self.macs_per_token,
            "dots_limit": statistics.median(self.dots_limits) if self.dots_limits else None,
            "dots_limits": self.dots_limits,
            "floats_limit": statistics.median(self.floats_limits) if self.floats_limits else None,
            "floats_limits": self.floats_limits,
            "shares": self.shares,
            "share_of_limit": self.share_of_limit,
            "bound": self.bound,
            "joules_per_token": self.joules_per_token,
        }


def bench(
    file: str | Path,
    *,
    n_prompt: Sequence[int] | None = None,
    n_gen: Sequence[int] | None = None,
    n_batch: Sequence[int] | None = None,
    n_sequences: Sequence[int] | None = None,
    n_depth: int = 0,
    threads: Sequence[int] | None = None,
    repetitions: int = 5,
    kv_type: str = "f32",
    isa: str | None = None,
    no_mmap: bool = False,
    parts: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Time a model, and return what `tritpack bench --json` prints: one row per test and thread count.

    n_prompt: numbers of tokens evaluated at once (ppN). n_gen: numbers of tokens decoded one by one (tgN). None takes
    N_PROMPT and N_GEN, as far as the context holds them, or nothing if n_batch or n_sequences has a number. n_batch:
    numbers of tokens evaluated at once with the logits of each (batchN). n_sequences: numbers of sequences that decode
    together (seqN). All come after `n_depth` tokens that are not timed.
    threads: thread counts; None measures all cores that this process may use. no_mmap: see Model. parts: also
    say where the time of a decoded token goes, see parts.py. Raises UsageError if the model's context is shorter, and
    what Model raises.
    """
    c, gguf = library(), GgufFile(file)
    thread_counts = [usable_cores()] if threads is None else list(threads)
    with locating(path=gguf.path):
        model_metadata.require_ternary(gguf)
        room = max(1, model_metadata.from_gguf(gguf).context_length - n_depth)
    if n_batch or n_sequences:
        n_prompt, n_gen = n_prompt or (), n_gen or ()
    tests = [Workload("pp", n, n_depth) for n in ([min(N_PROMPT, room)] if n_prompt is None else n_prompt) if n > 0]
    tests += [Workload("tg", n, n_depth) for n in ([min(N_GEN, room)] if n_gen is None else n_gen) if n > 0]
    tests += [Workload("batch", n, n_depth) for n in n_batch or () if n > 0]
    tests += [Workload("seq", n, n_depth) for n in n_sequences or () if n > 0]
    if not tests or not thread_counts or repetitions < 1:
        raise UsageError("nothing to measure", hint="give -p, -n, --batch or --sequences, and at least one thread")
    # Before the models below, whose mapping of the file would keep its pages in memory.
    options: dict[str, Any] = {"isa": isa, "kv_type": kv_type, "no_mmap": no_mmap}
    first = [_first_token(file, count, options) for count in thread_counts]
    rows, kernels, shares, by_part = [], set(), {}, {}
    positions = n_depth + max(STEPS if parts else 0, *(test.positions for test in tests))
    for count in thread_counts:
        with Model(gguf, threads=count, context=positions, **options) as model:
            if positions > model.context_length:
                sizes = f"{positions} positions are more than the model's {model.context_length}"
                raise UsageError(sizes, hint="give a smaller -p, -n or -d")
            for number, test in enumerate(tests):
                progress(f"{test.label}, {count} threads", number, len(tests))
                rows.append(_measure(model, test, count, repetitions, kv_type, isa))
            if parts:
                _go_to(model, n_depth)
                by_part[str(count)] = seconds_by_part(model, [0] * STEPS)
            kernels |= set(model.kernels())
            shares[str(count)] = huge_share(model.weights)
    return {
        "schema": SCHEMA,
        "file": str(file),
        "file_bytes": gguf.size,
        "architecture": model.spec.architecture,
        "layouts": _layouts(gguf),
        "kv_type": kv_type,
        "context_length": model.spec.context_length,
        "shortened": (n_prompt is None and room < N_PROMPT) or (n_gen is None and room < N_GEN),
        "machine": {"cpu": c.cpu(), "system": f"{platform.system()} {platform.machine()}", "isa": isa or c.best_isa()},
        "rows": [row.as_json() for row in rows],
        "no_mmap": no_mmap,
        "huge_pages": shares,
        "part_seconds": by_part,
        "first_token_seconds": dict(zip(map(str, thread_counts), first, strict=True)),
        "peak_rss_bytes": peak_rss(),
        "kernels": sorted(kernels),
    }


def bench_kernels(*, progress: Progress = silent) -> dict[str, Any]:
    """Compare every kernel of this CPU with scalar, then time it on one thread, on data in the cache."""
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


def _measure(model: Model, test: Workload, threads: int, repetitions: int, kv_type: str, isa: str | None) -> Row:
    c, weights = library(), max(model.weights, key=len)

    def limits() -> Limits:
        read = c.read_limit(weights, threads, isa) or None
        if model.spec.int8_activations:
            return Limits(read, c.dots_limit(threads, isa) or None)
        return Limits(read, None, c.floats_limit(threads, isa) or None)

    samples, around, joules = _samples(model, test, repetitions, limits)
    cached = round((test.depth + (test.positions + 1) / 2) * cache_bytes(model.spec, kv_type)) + state_bytes(model.spec)
    macs = _macs_per_token(model, test.n if test.is_prompt else 1)
    read = read_per_token(model.spec, {name: info.nbytes for name, info in model.file.tensors.items()})
    batch, sequences = test.n if test.kind in ("batch", "seq") else 1, test.n if test.kind == "seq" else 1
    return Row(test.label, threads, samples, around, read, cached, macs, joules, batch, sequences)


def _samples(
    model: Model, test: Workload, repetitions: int, limits: Callable[[], Limits]
) -> tuple[list[float], list[Limits], float | None]:
    """Tokens per second of each repetition, the limits before, between and after them, and joules per token."""
    go_back, work, tokens = _prepared(model, test)
    samples, around, used = [], [limits()], 0.0
    for _ in range(repetitions):
        go_back()
        with _energy() as joules:
            begin = time.perf_counter()
            work()
            samples.append(tokens / (time.perf_counter() - begin))
        used += joules[0] if joules else 0.0
        around.append(limits())
    return samples, around, used / (tokens * repetitions) if used else None


def _prepared(model: Model, test: Workload) -> tuple[Callable[[], None], Callable[[], None], int]:
    """What is done before a repetition, what it does, warmed up, and how many tokens it evaluates."""
    n, depth = test.n, test.depth
    rng = np.random.default_rng(0)
    ids = rng.integers(0, model.spec.vocab_size, depth + test.positions).tolist()
    if test.kind == "seq":
        model.reset()
        return *_together(model, n, ids, depth), n * STEPS
    _go_to(model, depth)
    model.append(ids[depth : depth + (min(n, WARM_UP) if test.kind == "tg" else n)])

    def go_back() -> None:
        model.rewind(depth)
        model.settle()

    def work() -> None:
        if test.is_prompt:
            model.eval(ids[depth:])
        elif test.kind == "batch":
            model.eval_all(ids[depth:])
        else:
            for token in ids[depth:]:
                model.eval([token])

    return go_back, work, n


def _go_to(model: Model, depth: int) -> None:
    """Let the session remember `depth` tokens."""
    model.reset()
    if depth:
        model.append(np.random.default_rng(0).integers(0, model.spec.vocab_size, depth).tolist())


def _together(model: Model, n: int, ids: Sequence[int], depth: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Decoding of n sequences, each of which has the first `depth` ids before it."""
    sequences = [model.session.new_sequence() for _ in range(n)]

    def go_back() -> None:
        for sequence in sequences:
            sequence.rewind(sequence.rewindable(depth))
            if missing := ids[sequence.n_past : depth]:
                model.session.eval_spans([Span(sequence, missing, 0)])

    def work() -> None:
        for token in ids[depth:]:
            model.session.eval_spans([Span(sequence, [token]) for sequence in sequences])

    go_back()
    work()
    return go_back, work


def _first_token(file: str | Path, threads: int, options: dict[str, Any]) -> float:
    """Seconds from opening the file, with its pages in memory, to the logits after a prompt of FIRST_PROMPT tokens."""
    begin = time.perf_counter()
    with Model(file, threads=threads, **options) as model:
        model.eval(list(range(min(FIRST_PROMPT, model.spec.vocab_size))))
        return time.perf_counter() - begin


def _macs_per_token(model: Model, tokens: int) -> int:
    """Products of the linears per token, of tokens evaluated at once. After writing keys and values, the last layer
    computes the last token only. With float activations a ternary or float head counts too, once."""
    shapes, last = model.spec.tensor_shapes(), f"blk.{model.spec.layers - 1}."
    macs = {name: math.prod(shapes[name]) for name in model.spec.linear_names()}
    last_only = sum(macs[name] for name in macs if name.startswith(last) and not name.endswith(BEFORE_ATTENTION))
    head = "token_embd.weight" if model.spec.tied else "output.weight"
    counts = not model.spec.int8_activations and model.file.tensors[head].layout not in BLOCK_FLOATS
    once = math.prod(shapes[head]) if counts else 0
    return round(sum(macs.values()) - last_only * (tokens - 1) / tokens + once / tokens)


def _layouts(file: GgufFile) -> list[str]:
    return sorted({info.layout for info in file.tensors.values() if info.layout is not None} - {"f32"})


@contextlib.contextmanager
def _energy() -> Iterator[list[float]]:
    """Measure the joules that the processors use within the block; the list stays empty if RAPL is not readable."""
    counters = [path for path in sorted(RAPL.glob("intel-rapl:[0-9]")) if os.access(path / "energy_uj", os.R_OK)]

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

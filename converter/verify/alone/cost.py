"""What the checks of a file without a source will cost: each is tried on a few of the file's own tensors, and timed.

It is right to some 30 % on a machine that does nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tritpack.converter.verify.alone.language import tokens_to_score
from tritpack.converter.verify.alone.weights import check_tensor
from tritpack.converter.verify.rungs.kernels import SCALAR_PIECES, compare, tensors_to_run
from tritpack.formats import model_metadata
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.integrity import recorded_hashes
from tritpack.formats.model_spec import ALL_LINEARS, TABLES
from tritpack.runtime import packers
from tritpack.runtime.library import library
from tritpack.runtime.machine import usable_cores
from tritpack.runtime.model import c_tensor
from tritpack.runtime.perplexity import negative_log_likelihoods

ROWS = 4096
"""Rows of a table of floats that are tried."""
TOKENS = 128
"""Tokens of a product that is tried."""
SIZE = 6_000_000
"""Weights of the tensor that is tried: of many fewer, the time is not in the weights."""
REST_OF_THE_GRAPH = 1.15
"""Attention, norms and activation functions: a factor on the time of the matrix products."""
BUILDING = 20.0
"""To build a tokenizer and try it takes so many times as long as to read the file's header, most of which is its
vocabulary."""

MOST_COLUMNS = 1 << 17
"""Logits of a token that are tried: a file may claim any vocabulary."""
HASHED = 16 << 20
"""Bytes of the file that are hashed."""


class Cost(NamedTuple):
    """Seconds. checks: of each check that takes more than a moment, by name. hashing: of the whole file, at the end.
    without_language: what `language` takes besides, if the first text shows none and all others are tried."""

    checks: dict[str, float]
    hashing: float
    without_language: float


def expected_cost(file: GgufFile, words: str | None, *, opening: float, everything: bool) -> Cost:
    """Return what the checks will cost. words: see AloneContext. opening: seconds that it took to open the file.
    everything: as with `--level full`.

    Raises TritpackError if the file says no model, or cannot be run.
    """
    packers.use_c_packers()
    spec = model_metadata.from_gguf(file)
    hashed, cores = bool(recorded_hashes(file)), usable_cores()
    rates: dict[str | None, _Rates] = {}

    def cost(info: TensorInfo) -> _Rates:
        """Seconds of one thread for one tensor; those of one layout cost in proportion to their weights."""
        if info.layout not in rates:
            same = [other for other in file.tensors.values() if other.layout == info.layout and _is_product(other)]
            rates[info.layout] = _try(
                file,
                min(same, key=lambda other: abs(_weights(other) - SIZE)),
                hashed=hashed,
                int8=spec.int8_activations,
            )
        return rates[info.layout].times(_weights(info))

    products = [info for info in file.tensors.values() if _is_product(info)]
    head = file.tensors.get("output.weight") or file.tensors.get("token_embd.weight")
    if head is None:
        raise Unreadable("has no embedding", path=file.path)
    in_graph = [info for info in products if info is head or not _is_table(info)]
    candidates, sample = tensors_to_run(file)
    run = sum(cost(info).kernels for info in sample.values())
    if everything:
        run += sum(cost(info).fast_kernels for info in candidates if info.name not in sample)
    token = sum(cost(info).token for info in in_graph) / cores * REST_OF_THE_GRAPH + _scoring(spec.vocab_size)
    first, others = tokens_to_score(words, everything=everything)
    data = file.mapped[0][:HASHED]
    checks = {
        "weights": sum(cost(info).check for info in products) / cores,
        "kernels": run / cores,
        "tokenizer": opening * BUILDING,
        "language": 0.0 if spec.is_embedding_model else first * token,
    }
    hashing = _seconds(lambda: hashlib.sha256(data.data)) * file.size / data.size
    return Cost(checks, hashing, 0.0 if spec.is_embedding_model else others * token)


class _Rates(NamedTuple):
    """Seconds of one thread: to check a tensor, to compare its kernels with the scalar ones and without them, and to
    multiply it by one of many tokens."""

    check: float
    kernels: float
    fast_kernels: float
    token: float

    def times(self, factor: float) -> _Rates:
        return _Rates(*(factor * seconds for seconds in self))


def _try(file: GgufFile, info: TensorInfo, *, hashed: bool, int8: bool) -> _Rates:
    """Return the seconds per weight of a tensor, from the first rows of it if it is a table of floats."""
    if file.layout_of(info) is None and info.rows > ROWS:
        info = dataclasses.replace(info, shape=(ROWS, info.cols), nbytes=info.nbytes // info.rows * ROWS)
    tensor, x = c_tensor(file, info, file.bytes_of(info)), np.ones((TOKENS, info.cols), np.float32)
    if file.layout_of(info) is not None and int8:
        usable = [k for k in library().kernels() if k.op == "matmul" and k.available]
        kernel = [k for k in usable if k.layout in (info.layout, "u8")][-1]
        product = _seconds(lambda: library().integer_product(kernel, tensor, x.astype(np.int8)))
    else:
        product = _seconds(lambda: library().head_product(tensor, x))
    check = _seconds(lambda: check_tensor(file, info, hashed=hashed))
    fast = _seconds(lambda: compare(file, info, int8=int8, scalar=False))
    kernels = _seconds(lambda: compare(file, info, int8=int8, scalar=True))
    if _is_table(info):  # of which the scalar kernels run some pieces
        kernels = (kernels + (SCALAR_PIECES - 1) * fast) / SCALAR_PIECES
    return _Rates(check, kernels, fast, product / TOKENS).times(1 / _weights(info))


def _scoring(vocab_size: int) -> float:
    """Return the seconds that it takes to score a token from its logits."""
    columns = min(vocab_size, MOST_COLUMNS)
    logits, tokens = np.zeros((8, columns), np.float32), [0] * 9
    return _seconds(lambda: negative_log_likelihoods(logits, tokens)) / 8 * vocab_size / columns


def _seconds(work: Callable[[], object]) -> float:
    """Return the shorter time of two: the first one may have to read the disk, which all others may not."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _weights(info: TensorInfo) -> int:
    return info.rows * info.cols


def _is_product(info: TensorInfo) -> bool:
    return info.name.endswith(".weight") and info.name.split(".")[-2] in (*ALL_LINEARS, *TABLES)


def _is_table(info: TensorInfo) -> bool:
    return info.name.split(".")[-2] in TABLES

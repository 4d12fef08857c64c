"""What each rung will cost, from the size of the model and the speed of this machine.

It is meant to be right to some 30 % where nothing is wrong and the machine has nothing else to do. Structure and
tokenizer take a few seconds with a large vocabulary and are not estimated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeGuard

import numpy as np

from tritpack.converter.verify.compare.near_ties import searches
from tritpack.converter.verify.context import compared_positions
from tritpack.converter.verify.rungs.generation import SLOW, SLOW_TOKENS
from tritpack.converter.verify.rungs.kernels import MAX_WEIGHTS
from tritpack.converter.verify.rungs.text import positions_at_once
from tritpack.formats import model_metadata
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.names import BLOCK_FLOATS
from tritpack.runtime.library import available_isas

# What work costs per weight, in the time that numpy takes to multiply one float in the cache by another on one core.
# Measured with a 2B model; a slower machine is slower at all of it. Products of matrices are counted by themselves.
READ = 26.0
"""To read it from both sides and compare."""
ENCODE = 400.0
"""Of a table in blocks: to encode it by the specification."""
KERNELS = 25.0
"""To run all kernels, the scalar ones among them."""
OTHER_KERNELS = 2.0
"""To run all kernels of an instruction set."""
DECODE = 18.0
"""To decode it for the oracle, for each pass."""
POSITION = 0.065
"""Per position: what the runtime does, and the oracle besides products."""
SLOW_TOKEN, TOKEN = 16.0, 1.2
"""To compute a token with slow kernels and with those of another instruction set."""
COUNTED = 1 << 16
"""Characters of a text whose tokens are counted; the others are taken to have as many."""
LONGEST_TOKEN = 16


def expected_seconds(file: GgufFile, *, text: str, given: bool, full: bool = False) -> dict[str, float]:
    """Return the seconds of each rung that costs more than a moment, by name.

    text: what is compared. given: whether --text gives it. full: as `--level full`.
    Raises TritpackError if the file says no model.
    """
    spec = model_metadata.from_gguf(file)
    shapes = spec.tensor_shapes()
    linears = sum(math.prod(shapes[name]) for name in spec.linear_names())
    table = spec.vocab_size * spec.hidden_size
    weights = linears + (0 if spec.is_embedding_model else table)
    positions, most = token_count(file, text), compared_positions(spec, full=full, given=given)
    positions = positions if most is None else min(positions, most)
    large = not searches(spec)
    passes = -(-positions // max(1, positions_at_once(spec)))
    sampled = min(linears, MAX_WEIGHTS) + table
    blocks = table if full and any(info.layout in BLOCK_FLOATS for info in file.tensors.values()) else 0
    generated = int(np.clip(2.5e9 // (file.size * 4), 3, 24))
    isas = len(available_isas())
    slow = sum(isa in SLOW for isa in available_isas())
    slow_tokens = slow * (SLOW_TOKENS / 2 if large else 1.5 * generated)
    values = {
        "weights": READ * (linears + table) + ENCODE * blocks,
        "kernels": KERNELS * sampled
        + (OTHER_KERNELS * isas * (weights - sampled) if full and weights > sampled else 0),
        "logits": DECODE * weights * (1 if large else 4),
        "text": weights * (passes * DECODE + positions * POSITION),
        "generation": weights * (DECODE + SLOW_TOKEN * slow_tokens + TOKEN * 1.5 * generated * (isas - slow)),
    }
    # Small models soon have safe prompts, for which rounds of 80 positions are searched.
    multiplied = {"logits": 6 if large else 250, "text": positions, "generation": 34}
    speed, products = _values_per_second(), _operations_per_second()
    return {name: count / speed + 2.0 * weights * multiplied.get(name, 0) / products for name, count in values.items()}


def token_count(file: GgufFile, text: str) -> int:
    """Return about how many tokens a text has: the longest ones that fit, from left to right, in its beginning."""
    if len(text) > COUNTED:
        return round(token_count(file, text[:COUNTED]) * len(text) / COUNTED)
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not _are_strings(tokens):
        return len(text) // 4 + 1
    space = "\u2581" if file.metadata.get("tokenizer.ggml.model") == "llama" else "\u0120"
    merges = file.metadata.get("tokenizer.ggml.merges")
    made = [merge.replace(" ", "") for merge in merges] if _are_strings(merges) else tokens
    known, at, count = set(made), 0, 0
    spelled = text.replace(" ", space)
    while at < len(spelled):
        sizes = range(min(LONGEST_TOKEN, len(spelled) - at), 1, -1)
        at += next((size for size in sizes if spelled[at : at + size] in known), 1)
        count += 1
    return count


def _are_strings(values: object) -> TypeGuard[Sequence[str]]:
    return isinstance(values, Sequence) and len(values) > 0 and isinstance(values[0], str)


def _operations_per_second() -> float:
    """Return how many floating-point operations numpy does in a second when it multiplies matrices."""
    left, right = np.ones((256, 1024), np.float32), np.ones((1024, 1024), np.float32)
    return 2 * 256 * 1024 * 1024 / _shortest(lambda: left @ right)


def _values_per_second() -> float:
    """Return how many floats numpy multiplies in a second on one core."""
    values = np.ones(1 << 16, np.float32)
    return values.size / _shortest(lambda: np.multiply(values, values, out=values))


def _shortest(work: Callable[[], object]) -> float:
    """The shortest of some times that work takes, in seconds; the first one may start threads."""
    best = np.inf
    for _ in range(8):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return float(best)

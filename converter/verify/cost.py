"""What each rung will cost, from the size of the model and the speed of this machine.

It is meant to tell seconds from minutes and hours: right to a factor of about two where nothing is wrong.
"""

from __future__ import annotations

import time

import numpy as np

from tritpack.converter.verify.compare.tolerances import MAX_LOGITS
from tritpack.converter.verify.context import TEXT_POSITIONS
from tritpack.converter.verify.rungs.kernels import MAX_WEIGHTS, TOKENS
from tritpack.formats import model_metadata
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import LINEARS
from tritpack.runtime.library import available_isas

# What work costs, in floating-point operations that numpy's product of matrices does in the same time. Measured with
# 136 M weights; a slower machine is slower at all of it.
READ = 200.0
"""Per weight: to read it from both sides and compare."""
DECODE = 300.0
"""Per weight: to decode it for the oracle, for each pass over the text or the prompts."""
SCALAR = 80.0
"""Per weight and token: the scalar kernels."""
FAST = 3.0
"""Per weight and token: the best kernels."""
CHAT_AND_TEXT = 60
"""Tokens of the two prompts of the rung `generation`."""


def expected_seconds(file: GgufFile, *, text_bytes: int, full: bool = False) -> dict[str, float]:
    """Return the seconds of each rung that costs more than a moment, by name.

    text_bytes: length of the text that is compared. full: nothing is sampled.
    Raises TritpackError if the file says no model.
    """
    spec = model_metadata.from_gguf(file)
    linears = spec.layers * sum(int(np.prod(spec.linear_shape(linear))) for linear in LINEARS)
    head = 0 if spec.is_embedding_model else spec.vocab_size * spec.hidden_size
    weights = linears + head

    def oracle(positions: int) -> float:
        return weights * (DECODE + 2.0 * positions)

    most = text_bytes if full else max(TEXT_POSITIONS, MAX_LOGITS // spec.vocab_size)
    positions = min(text_bytes // 3 + 1, most)
    # Small models soon have safe prompts, for which rounds of 80 positions are searched, and pass the text at once.
    small = linears < 3e7
    rounds = 3 if small else int(1e9 // linears)
    generated = int(np.clip(2.5e9 // (file.size * 4), 3, 24))
    isas = len(available_isas())
    operations = {
        "weights": READ * (linears + spec.vocab_size * spec.hidden_size),
        "kernels": (weights if full else min(weights, MAX_WEIGHTS)) * TOKENS * (SCALAR + isas * FAST),
        "logits": rounds * oracle(80) + oracle(12),
        "text": (1 if small else 2) * (oracle(positions) + positions * weights * FAST),
        "generation": oracle(CHAT_AND_TEXT + 2 * generated) + 1.5 * weights * (8 + generated) * (SCALAR + isas * FAST),
    }
    speed = _operations_per_second()
    return {name: count / speed for name, count in operations.items()}


def _operations_per_second() -> float:
    """Return how many floating-point operations numpy does in a second when it multiplies matrices: best of three."""
    left, right = np.ones((256, 1024), np.float32), np.ones((1024, 1024), np.float32)
    best = np.inf
    for _ in range(4):  # the first one starts the threads
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return float(2 * 256 * 1024 * 1024 / best)

"""How long a pass will take, from rates that are measured on the spot."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from tritpack.converter.plan import Plan
from tritpack.formats import float_types

SAMPLE_ROWS, SAMPLE_COLS = 256, 2560
"""The matrix that rates are measured with: a megabyte of codes."""


def estimate(plans: Sequence[Plan], threads: int) -> float:
    """Return the seconds for one pass with these outputs over a source that is in the page cache, or on a disk that
    keeps up.

    Hashing a file is one chain; packing and encoding are spread over the threads. Takes a few hundredths of a second.
    """
    places = {tensor.source.place for plan in plans for tensor in plan.tensors}
    source_bytes = sum(place.nbytes for place in places if place is not None)
    data = np.zeros(1 << 22, np.uint8)
    rate = _seconds(lambda: hashlib.sha256(data.data).digest()) / data.size
    hashing = source_bytes * rate
    packing = sum(_packing(plan) + _encoding(plan) + _recording(plan) * rate for plan in plans)
    # The thread that hashes and the one that reads want cores too.
    return max(hashing, packing / threads, (2 * hashing + packing) / (threads + 1))


def _recording(plan: Plan) -> int:
    """Return how many bytes of tensors and of their codes are hashed for the output."""
    return sum(t.output.nbytes + t.ternary * math.prod(t.output.shape) for t in plan.tensors)


def _packing(plan: Plan) -> float:
    """Return the seconds on one core to unpack, pack and check the ternary tensors."""
    weights = sum(math.prod(tensor.output.shape) for tensor in plan.tensors if tensor.ternary)
    layout = plan.choice.layout
    codes = np.zeros((SAMPLE_ROWS, SAMPLE_COLS), np.int8)
    if layout.shape_misfit(*codes.shape) or not layout.row_unit:
        from tritpack.formats.layouts.catalog import LAYOUTS

        layout = LAYOUTS["i2_s"]  # of the same order
    body = np.zeros(layout.nbytes(*codes.shape), np.uint8)
    body = layout.body(body, *codes.shape)

    def once() -> None:
        layout.fill(codes, body)
        np.array_equal(layout.codes_of(body, *codes.shape), codes)

    return weights / codes.size * 1.5 * _seconds(once)


def _encoding(plan: Plan) -> float:
    """Return the seconds on one core to encode the tables."""
    seconds = 0.0
    for tensor in plan.tensors:
        if not tensor.ternary and len(tensor.output.shape) > 1:
            if (kind := float_types.FLOAT_TYPES.get(tensor.kind)) is None:
                continue  # copied
            values = np.ones((8, max(kind.block, 2048)), np.float32)
            share = math.prod(tensor.output.shape) / values.size
            seconds += share * _seconds(lambda kind=kind, values=values: float_types.encode(kind.name, values))  # type: ignore[misc]
    return seconds


def _seconds(action: Callable[[], object]) -> float:
    """Return the shortest time of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)

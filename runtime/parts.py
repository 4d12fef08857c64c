"""Where the time of a decoded token goes: the steps of the graph, timed between the trace points that C passes."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence

from tritpack.runtime.model import Model

PRODUCTS, ROWS, ATTENTION, RECURRENCE, HEAD = "products", "norms and transforms", "attention", "recurrence", "head"
PARTS = {
    ROWS: ("embd", "attn_in", "ssm_out_in", "attn_sub_norm", "ffn_in", "ffn_mul", "ffn_down_in", "layer_out",
           "final_norm"),
    ATTENTION: ("attn_q_rope", "attn_out"),
    RECURRENCE: ("delta_out",),
}  # fmt: skip
"""The trace points (tritpack.h) at the end of what is no product. Each part is what lies between two points: that of
`ROWS` has the embedding's row, residuals, norms, gates and act(gate) * up, int8 codes, and the transforms of rotated
inputs; `RECURRENCE` the convolution and the delta rule. HEAD follows the last point, with the head's transform."""
PART_OF = {point: part for part, points in PARTS.items() for point in points}


def seconds_by_part(model: Model, tokens: Sequence[int]) -> dict[str, float]:
    """Decode tokens one by one in the model's session, and return the mean seconds of a token by part.

    The callback's own work is not counted, but the way into Python and back is: about a millisecond for 500 points.
    """
    seconds: dict[str, float] = collections.defaultdict(float)
    since = 0.0

    def step(point: str) -> None:
        nonlocal since
        seconds[PART_OF.get(point.partition(".")[0], PRODUCTS)] += time.perf_counter() - since
        since = time.perf_counter()

    with model.session.stepped(step):
        for token in tokens:
            since = time.perf_counter()
            model.eval([token])
            seconds[HEAD] += time.perf_counter() - since
    return {part: total / len(tokens) for part, total in seconds.items()}

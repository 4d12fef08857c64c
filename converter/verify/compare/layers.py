"""Compares runtime and oracle step by step through the graph, on one prompt, to find where a deviation enters."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import F32
from tritpack.formats.model_spec import ModelSpec

LIMIT = 1e-4
"""Far above the float32 noise of a correct step (1e-7 to 1e-5 with depth), far below what any mistake makes."""
PARTS = {
    "embd": "the embedding",
    "attn_in": "the norm before attention",
    "attn_q_in": "the norm of the query projection",
    "attn_k_in": "the norm of the key projection",
    "attn_v_in": "the norm of the value projection",
    "attn_q": "the query projection",
    "attn_k": "the key projection",
    "attn_v": "the value projection",
    "attn_qkv": "the projection to queries, keys and values",
    "attn_gate": "the projection of the output gate",
    "ssm_alpha": "the projection of the decay",
    "ssm_beta": "the projection of beta",
    "delta_out": "the convolution or the delta rule",
    "attn_q_rope": "the query norm or rotary embedding",
    "attn_k_rope": "the key norm or rotary embedding",
    "attn_out": "attention",
    "attn_sub_norm": "the sub-norm after attention",
    "attn_output": "the output projection",
    "attn_residual": "the addition of attention to the stream",
    "ffn_in": "the norm before the feed-forward part",
    "ffn_gate_in": "the norm of the gate projection",
    "ffn_up_in": "the norm of the up projection",
    "ffn_gate": "the gate projection",
    "ffn_up": "the up projection",
    "ffn_mul": "the activation function",
    "ffn_down_in": "the sub-norm of the feed-forward part",
    "ffn_down": "the down projection",
    "layer_out": "the addition of the feed-forward part to the stream",
    "final_norm": "the final norm",
}
"""Trace points of the graph (tritpack.h, tp_trace_fn), by what was computed last when they were recorded."""

ORDERED = {
    "attn_q": "attn_q_rope", "attn_k": "attn_k_rope",
    "attn_qkv": "attn_qkv", "attn_gate": "delta_out", "ssm_alpha": "ssm_alpha", "ssm_beta": "ssm_beta",
}  # fmt: skip
"""Projections whose rows GGUF may have in another order, and what comes later in the same one."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the graph.

    layer: its number, negative outside the layers. error: the largest difference, relative to the largest expected
    value of its position, over all positions.
    """

    point: str
    layer: int
    error: float

    def __str__(self) -> str:
        return PARTS[self.point] + (f" of layer {self.layer}" if self.layer >= 0 else "")


class Layers:
    """Give `trace_runtime` to the runtime and then `trace_oracle` to the oracle as tracers; they fill `steps`.

    spec: of FILE, whose architecture may have the rows of q and k in another order than the checkpoint."""

    def __init__(self, spec: ModelSpec) -> None:
        # A point whose projection has a norm of its own is recorded twice, before and after that norm.
        self._recorded: dict[tuple[str, int], list[F32]] = {}
        self._orders: dict[str, npt.NDArray[np.int64]] = {}
        for part, after in ORDERED.items():
            if (order := spec.row_order(f"blk.0.{part}.weight")) is not None:
                self._orders |= {part: np.argsort(order), after: np.argsort(order)}
        self.steps: list[Step] = []

    def trace_runtime(self, point: str, layer: int, values: F32) -> None:
        values = values[:, self._orders[point]] if point in self._orders else values
        self._recorded.setdefault((point, layer), []).append(values)

    def trace_oracle(self, point: str, layer: int, values: F32) -> None:
        recorded = self._recorded.get((point, layer))
        if not recorded or point not in PARTS:
            return
        ours = recorded.pop(0)
        scale = np.maximum(np.abs(values).max(-1), np.finfo(np.float32).tiny)
        self.steps.append(Step(point, layer, float((np.abs(ours - values).max(-1) / scale).max())))

    def first_deviation(self) -> Step | None:
        """The first step that rounding does not explain; None if rounding explains all."""
        return next((step for step in self.steps if not step.error <= LIMIT), None)

    def series(self) -> dict[str, list[Any]]:
        """Every step in order, for plots."""
        return {
            "layer": [step.layer for step in self.steps],
            "point": [step.point for step in self.steps],
            "step_error": [step.error for step in self.steps],
        }

"""The BitNet forward pass in numpy, float32 and exact integers: slow, obvious, and the measure of the C graph.

Arithmetic only: a ModelSpec and arrays go in, logits come out. Where the arrays come from is the caller's business
(converter/verify/oracle.py reads them from a checkpoint with its own code). Formulas: arXiv 2402.17764 and
transformers' BitNet classes; activations per token to int8, a = max(max|x|, 1e-5), q = round_half_even(x * 127 / a).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from formats.model_spec import ModelSpec

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]


class Weights(Protocol):
    """Where the arrays come from, a layer at a time so that a big model need not be held whole."""

    def embedding(self, tokens: npt.NDArray[np.int64]) -> F32:
        """float32 (tokens, hidden)."""

    def norm(self, name: str) -> F32 | None:
        """float32 (size,) of a GGUF norm name without `.weight`, or None if the model has none."""

    def linear(self, name: str) -> tuple[I8, np.float32]:
        """int8 (rows, cols) codes and the multiplier of a GGUF linear name without `.weight`."""

    def head(self) -> Iterator[F32]:
        """float32 (rows, hidden) blocks of the output head, together (vocab, hidden)."""


@dataclasses.dataclass(frozen=True)
class QuantizedInput:
    """What entered one group of linears: `point` is one of attn_in, attn_out_in, ffn_in, ffn_down_in."""

    layer: int
    point: str
    codes: I8  # (tokens, cols)
    margins: F32  # (tokens,) smallest distance of a value from a rounding boundary, relative to the value


Observer = Callable[[QuantizedInput], None]
TieBreaker = Callable[[int, str], "I8 | None"]

TIE = 1e-2
"""In units of a code: values nearer than this to a rounding boundary may honestly round either way. Generous, because
float32 noise grows with depth; what is adopted is one code at a fiftieth of the places: nothing can hide in that."""


def forward(
    spec: ModelSpec,
    weights: Weights,
    sequences: Sequence[Sequence[int]],
    *,
    observe: Observer | None = None,
    tie_breaker: TieBreaker | None = None,
    observe_free: Observer | None = None,
    attention_type: type[np.floating] = np.float32,
) -> list[F32]:
    """Logits, float32 (tokens, vocab), of each sequence by itself.

    observe: called with the codes that enter each group of linears. tie_breaker: given (layer, point), the int8 codes
    that another implementation used; they are adopted where they differ by one at a near-tie and nowhere else, which
    takes the chaos of rounding out of a comparison without hiding any other difference; observe_free sees the codes as
    they were before that. attention_type: float64 shows how much of a result is float32 noise of the attention.
    """
    tokens = np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences])
    bounds = np.cumsum([0] + [len(sequence) for sequence in sequences])
    spans = [slice(start, end) for start, end in zip(bounds, bounds[1:])]
    positions = np.concatenate([np.arange(len(sequence)) for sequence in sequences]).astype(np.float32)
    angles = (positions[:, None] * spec.inverse_frequencies()).astype(np.float64)
    rotation = np.cos(angles).astype(np.float32)[:, None], np.sin(angles).astype(np.float32)[:, None]

    def quantized(layer: int, point: str, x: F32) -> tuple[F32, F32]:
        step = np.float32(127) / np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-5))
        scaled = x * step
        codes = np.clip(np.rint(scaled), -128, 127).astype(np.int8)
        distance = np.abs(np.abs(scaled - np.floor(scaled)) - np.float32(0.5))
        margins = (distance / np.maximum(np.abs(scaled), np.float32(0.5))).min(-1)
        if observe_free is not None:
            observe_free(QuantizedInput(layer, point, codes, margins))
        if tie_breaker is not None and (other := tie_breaker(layer, point)) is not None:
            ties = (distance < TIE) & (np.abs(codes.astype(np.int16) - other) <= 1)
            codes = np.where(ties, other, codes)
        if observe is not None:
            observe(QuantizedInput(layer, point, codes, margins))
        return codes.astype(np.float32), step

    def product(name: str, inputs: tuple[F32, F32]) -> F32:
        codes, scale = weights.linear(name)
        activations, step = inputs
        # |sum| <= 128 cols: every partial sum is an integer that float32 (float64 for wide rows) holds exactly, in any
        # order, so BLAS may do it.
        kind = np.float32 if 128 * codes.shape[1] < 2**24 else np.float64
        total = activations.astype(kind, copy=False) @ codes.T.astype(kind)
        result: F32 = (total.astype(np.float32) / step) * scale
        return result

    def rms_norm(name: str, x: F32) -> F32:
        weight = weights.norm(name)
        if weight is None:
            return x
        mean = np.mean(x * x, -1, keepdims=True, dtype=np.float32)
        inverse: F32 = np.divide(np.float32(1), np.sqrt(mean + np.float32(spec.norm_eps)), dtype=np.float32)
        return (x * inverse) * weight

    x = weights.embedding(tokens)
    for layer in range(spec.layers):
        blk = f"blk.{layer}"
        inputs = quantized(layer, "attn_in", rms_norm(f"{blk}.attn_norm", x))
        q = _rotate(product(f"{blk}.attn_q", inputs).reshape(-1, spec.heads, spec.head_dim), rotation)
        k = _rotate(product(f"{blk}.attn_k", inputs).reshape(-1, spec.kv_heads, spec.head_dim), rotation)
        v = product(f"{blk}.attn_v", inputs).reshape(-1, spec.kv_heads, spec.head_dim)
        wide = [part.astype(attention_type, copy=False) for part in (q, k, v)]
        attended = np.concatenate([_attention(*(part[span] for part in wide)) for span in spans]).astype(np.float32)
        inputs = quantized(layer, "attn_out_in", rms_norm(f"{blk}.attn_sub_norm", attended))
        x = x + product(f"{blk}.attn_output", inputs)
        inputs = quantized(layer, "ffn_in", rms_norm(f"{blk}.ffn_norm", x))
        gated = _activate(spec.activation, product(f"{blk}.ffn_gate", inputs)) * product(f"{blk}.ffn_up", inputs)
        inputs = quantized(layer, "ffn_down_in", rms_norm(f"{blk}.ffn_sub_norm", gated))
        x = x + product(f"{blk}.ffn_down", inputs)
    final = rms_norm("output_norm", x)
    logits = np.concatenate([final @ block.T for block in weights.head()], -1)
    return [logits[span] for span in spans]


def _activate(name: str, x: F32) -> F32:
    if name == "relu2":
        squared: F32 = np.square(np.maximum(x, np.float32(0)))
        return squared
    with np.errstate(over="ignore"):
        return np.divide(x, np.float32(1) + np.exp(-x), dtype=np.float32)


def _rotate(x: F32, rotation: tuple[F32, F32]) -> F32:
    """Rotary embedding of (tokens, heads, head_dim), pairs (i, i + head_dim / 2)."""
    cos, sin = rotation
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def _attention(q: F32, k: F32, v: F32) -> F32:
    """Causal attention with grouped keys and values: (n, heads, dim), (n, kv_heads, dim) -> (n, heads * dim)."""
    n, heads, dim = q.shape
    k, v = (np.repeat(part, heads // part.shape[1], axis=1).transpose(1, 0, 2) for part in (k, v))
    scores = (q.transpose(1, 0, 2) @ k.transpose(0, 2, 1)) * q.dtype.type(1 / np.sqrt(dim))
    scores = np.where(np.tri(n, dtype=bool), scores, q.dtype.type(-np.inf))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    attended: F32 = (weights @ v).transpose(1, 0, 2).reshape(n, heads * dim)
    return attended

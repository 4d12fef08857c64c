"""Every architecture's forward pass in numpy, in float32 and exact integers: slow and plain, to check the C graph.

This is arithmetic only: it takes a ModelSpec and arrays, and returns logits. The caller supplies the arrays
(converter/verify/oracle/ reads them from a checkpoint with its own code). The formulas are those of arXiv 2402.17764,
of the BitNet, Llama, Qwen3 and Gemma3 classes of transformers, and of MiniCPM's own code. Where the model asks for it,
activations become int8 per token: a = max(max|x|, 1e-5), q = round_half_even(x * 127 / a).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import F32, I8
from tritpack.formats.model_spec import ModelSpec


class Weights(Protocol):
    """Source of the arrays, one at a time, so that a large model need not fit into memory."""

    def embedding(self, tokens: npt.NDArray[np.int64]) -> F32:
        """Return float32 (tokens, hidden) as stored, before the model's embedding scale."""

    def norm(self, name: str) -> F32 | None:
        """Return the float32 (size,) factors of a norm, by its GGUF name without `.weight`; None if it is absent."""

    def linear(self, name: str) -> tuple[I8, F32]:
        """Return int8 (rows, cols) codes and float32 (row_blocks, col_blocks) multipliers of a linear, by its GGUF name
        without `.weight`; the rows are in transformers' order."""

    def head(self) -> Iterator[F32]:
        """Yield float32 (rows, hidden) blocks of the output head, together (vocab, hidden)."""


@dataclasses.dataclass(frozen=True)
class QuantizedInput:
    """The int8 input of one group of linears.

    point: attn_in, attn_sub_norm, ffn_in or ffn_down_in; where each projection has its own norm, attn_q_in, attn_k_in,
    attn_v_in, ffn_gate_in or ffn_up_in. The C graph's trace points have the same names.
    """

    layer: int
    point: str
    codes: I8  # (tokens, cols)
    scaled: F32  # (tokens, cols) what was rounded to the codes

    @property
    def margins(self) -> F32:
        """The smallest relative distance of a value from a rounding boundary, float32 (tokens,)."""
        margins: F32 = (_distance(self.scaled) / np.maximum(np.abs(self.scaled), np.float32(0.5))).min(-1)
        return margins


Observer = Callable[[QuantizedInput], None]
Tracer = Callable[[str, int, "F32"], None]
"""Called with (point, layer or -1, float32 (tokens, columns)) after each step. The points are those of the C graph
(tritpack.h, tp_trace_fn) except the int8 codes, which observers get."""
TieBreaker = Callable[[int, str], "I8 | None"]

TIE = 1e-2
"""Distance from a rounding boundary, in units of a code, below which a value may round either way. It is generous,
because float32 noise grows with depth. It concerns one code in fifty or so, which is too few to hide an error."""
AT_ONCE = 1 << 22
"""Weights that are widened to floats at a time, into memory that is used again: they stay in the cache."""


def forward(
    spec: ModelSpec,
    weights: Weights,
    sequences: Sequence[Sequence[int]],
    *,
    observe: Observer | None = None,
    tie_breaker: TieBreaker | None = None,
    observe_free: Observer | None = None,
    trace: Tracer = lambda point, layer, values: None,
    attention_type: type[np.floating] = np.float32,
    hidden: bool = False,
) -> list[F32]:
    """Return the logits, float32 (tokens, vocab), of each sequence by itself.

    observe: called with the codes that enter each group of linears. tie_breaker: called with (layer, point), returns
    the int8 codes that another implementation used. They replace ours only where both differ by one at a near-tie, so
    that rounding noise does not spread through a comparison and every other difference stays visible. observe_free:
    called with the codes before that. trace: called after each step. attention_type: float64 shows how much of a result
    is float32 noise of the attention. hidden: return the states after the final norm instead of logits.
    """
    tokens = np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences])
    bounds = np.cumsum([0] + [len(sequence) for sequence in sequences])
    spans = [slice(start, end) for start, end in zip(bounds, bounds[1:])]
    positions = np.concatenate([np.arange(len(sequence)) for sequence in sequences]).astype(np.float32)
    factor = spec.rope_scaling.attention_factor if spec.rope_scaling else 1.0
    rotations = [_rotation(positions, spec.inverse_frequencies(), factor)]
    if spec.sliding_layers:
        rotations.append(_rotation(positions, spec.inverse_frequencies(local=True), 1.0))

    def quantized(layer: int, point: str, x: F32) -> tuple[F32, F32 | None]:
        if not spec.int8_activations:
            return x, None
        step = np.float32(127) / np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-5))
        scaled = x * step
        rounded = np.rint(scaled)
        np.clip(rounded, -128, 127, out=rounded)
        codes = rounded.astype(np.int8)
        if observe_free is not None:
            observe_free(QuantizedInput(layer, point, codes, scaled))
        if tie_breaker is not None and (other := tie_breaker(layer, point)) is not None:
            differing = np.unravel_index(np.flatnonzero(codes != other), codes.shape)
            ours, theirs = codes[differing], other[differing]
            ties = (_distance(scaled[differing]) < TIE) & (np.abs(ours.astype(np.int16) - theirs) <= 1)
            rounded[differing] = np.where(ties, theirs, ours)
        if observe is not None:
            observe(QuantizedInput(layer, point, rounded.astype(np.int8), scaled))
        return rounded, step

    widened: dict[type, npt.NDArray[Any]] = {}

    def wide(codes: I8, kind: type[np.floating]) -> npt.NDArray[Any]:
        """Codes as floats, until the next call."""
        if codes.size > widened.get(kind, np.empty(0)).size:
            widened[kind] = np.empty(codes.size, kind)
        values = widened[kind][: codes.size].reshape(codes.shape)
        values[...] = codes
        return values

    def product(name: str, inputs: tuple[F32, F32 | None]) -> F32:
        codes, scales = weights.linear(name)
        x, step = inputs
        (rows, cols), (row_blocks, col_blocks) = codes.shape, scales.shape
        scale = np.repeat(scales, rows // row_blocks, axis=0)  # (rows, col_blocks)
        if step is None:
            return x @ (codes * np.repeat(scale, cols // col_blocks, axis=1)).T
        # |sum| <= 128 cols: float32 (float64 for wide rows) holds every partial sum exactly, so the order of BLAS does
        # not matter.
        kind = np.float32 if 128 * cols < 2**24 else np.float64
        result = np.empty((len(x), rows), np.float32)
        width, height = cols // col_blocks, max(1, AT_ONCE // cols)
        for block in range(col_blocks):
            part = slice(block * width, (block + 1) * width)
            for first in range(0, rows, height):
                some = codes[first : first + height, part]
                total = x[:, part].astype(kind, copy=False) @ wide(some, kind).T
                share = total.astype(np.float32, copy=False)
                share /= step
                share *= scale[first : first + height, block]
                if block:
                    result[:, first : first + height] += share
                else:
                    result[:, first : first + height] = share
        return result

    def rms_norm(name: str, x: F32, eps: float = spec.norm_eps) -> F32:
        weight = weights.norm(name)
        if weight is None:
            return x
        mean = np.mean(x * x, -1, keepdims=True, dtype=np.float32)
        inverse: F32 = np.divide(np.float32(1), np.sqrt(mean + np.float32(eps)), dtype=np.float32)
        return (x * inverse) * weight

    def linears(layer: int, point: str, x: F32, names: Sequence[str]) -> list[F32]:
        """The products of `names` with x, which is quantised once for all of them, or after each linear's own norm."""
        blk = f"blk.{layer}"
        trace(point, layer, x)
        if not spec.projection_norms:
            inputs = quantized(layer, point, x)
            return [product(f"{blk}.{name}", inputs) for name in names]
        results = []
        for name in names:
            linear_point = point if len(names) == 1 else f"{name}_in"
            normed = rms_norm(f"{blk}.{name}_norm_in", x, spec.projection_norm_eps)
            trace(linear_point, layer, normed)
            results.append(product(f"{blk}.{name}", quantized(layer, linear_point, normed)))
        return results

    residual = np.float32(spec.residual_scale)
    x = weights.embedding(tokens) * np.float32(spec.embedding_scale)
    trace("embd", -1, x)
    for layer in range(spec.layers):
        blk = f"blk.{layer}"
        sliding = bool(spec.sliding_layers) and spec.sliding_layers[layer]
        q, k, v = linears(layer, "attn_in", rms_norm(f"{blk}.attn_norm", x), ("attn_q", "attn_k", "attn_v"))
        for name, part in zip(("attn_q", "attn_k", "attn_v"), (q, k, v)):
            trace(name, layer, part)
        q = rms_norm(f"{blk}.attn_q_norm", q.reshape(-1, spec.heads, spec.head_dim))
        k = rms_norm(f"{blk}.attn_k_norm", k.reshape(-1, spec.kv_heads, spec.head_dim))
        q, k = _rotate(q, rotations[sliding]), _rotate(k, rotations[sliding])
        trace("attn_q_rope", layer, q.reshape(len(q), -1))
        trace("attn_k_rope", layer, k.reshape(len(k), -1))
        v = v.reshape(-1, spec.kv_heads, spec.head_dim)
        q, k, v = (part.astype(attention_type, copy=False) for part in (q, k, v))
        window = spec.sliding_window if sliding else len(tokens)
        scale = spec.query_key_scale()
        parts = [_attention(q[span], k[span], v[span], scale, window) for span in spans]
        mixed = np.concatenate(parts).astype(np.float32)
        trace("attn_out", layer, mixed)
        attended = rms_norm(f"{blk}.attn_sub_norm", mixed)
        [output] = linears(layer, "attn_sub_norm", attended, ("attn_output",))
        trace("attn_output", layer, output)
        x = x + rms_norm(f"{blk}.post_attention_norm", output) * residual
        trace("attn_residual", layer, x)
        gate, up = linears(layer, "ffn_in", rms_norm(f"{blk}.ffn_norm", x), ("ffn_gate", "ffn_up"))
        trace("ffn_gate", layer, gate)
        trace("ffn_up", layer, up)
        gated = _activate(spec.activation, gate) * up
        trace("ffn_mul", layer, gated)
        [output] = linears(layer, "ffn_down_in", rms_norm(f"{blk}.ffn_sub_norm", gated), ("ffn_down",))
        trace("ffn_down", layer, output)
        x = x + rms_norm(f"{blk}.post_ffw_norm", output) * residual
        trace("layer_out", layer, x)
    final = rms_norm("output_norm", x)
    trace("final_norm", -1, final)
    if hidden:
        return [final[span] for span in spans]
    final = final * np.float32(spec.logit_scale)
    logits, first = np.empty((len(final), spec.vocab_size), np.float32), 0
    for block in weights.head():
        np.matmul(final, block.T, out=logits[:, first : first + len(block)])
        first += len(block)
    return [logits[span] for span in spans]


def pool(spec: ModelSpec, states: F32) -> F32:
    """Return the embedding, float32 (hidden,) of length 1, of one text's hidden states (tokens, hidden)."""
    vector = {"last": states[-1], "cls": states[0], "mean": states.mean(0)}[spec.pooling]
    length = np.float32(np.sqrt(np.square(vector, dtype=np.float64).sum()))
    unit: F32 = np.divide(vector, length, dtype=np.float32)
    return unit


def _distance(scaled: F32) -> F32:
    """How far values are from a rounding boundary, in units of a code."""
    return np.abs(np.abs(scaled - np.floor(scaled)) - np.float32(0.5))


def _activate(name: str, x: F32) -> F32:
    if name == "relu2":
        squared: F32 = np.square(np.maximum(x, np.float32(0)))
        return squared
    # gelu's tanh form is a silu of another slope: 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u)).
    u = x if name == "silu" else np.float32(2 * np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * (x * x * x))
    with np.errstate(over="ignore"):
        return np.divide(x, np.float32(1) + np.exp(-u), dtype=np.float32)


def _rotation(positions: F32, frequencies: F32, factor: float) -> tuple[F32, F32]:
    """cos and sin, float32 (tokens, 1, head_dim / 2), times the attention factor."""
    angles = (positions[:, None] * frequencies).astype(np.float64)
    cos, sin = (part.astype(np.float32)[:, None] * np.float32(factor) for part in (np.cos(angles), np.sin(angles)))
    return cos, sin


def _rotate(x: F32, rotation: tuple[F32, F32]) -> F32:
    """Rotary embedding of (tokens, heads, head_dim), pairs (i, i + head_dim / 2)."""
    cos, sin = rotation
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def _attention(q: F32, k: F32, v: F32, scale: np.float32, window: int) -> F32:
    """Causal attention with grouped keys and values over the last `window` positions:
    (n, heads, dim), (n, kv_heads, dim) -> (n, heads * dim)."""
    n, heads, dim = q.shape
    k, v = (np.repeat(part, heads // part.shape[1], axis=1).transpose(1, 0, 2) for part in (k, v))
    scores = (q.transpose(1, 0, 2) @ k.transpose(0, 2, 1)) * q.dtype.type(scale)
    seen = np.tri(n, dtype=bool) & ~np.tri(n, k=-window, dtype=bool)
    scores = np.where(seen, scores, q.dtype.type(-np.inf))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    attended: F32 = (weights @ v).transpose(1, 0, 2).reshape(n, heads * dim)
    return attended

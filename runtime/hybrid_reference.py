"""The forward pass of a Qwen3.5 hybrid in numpy, in float32: slow and plain, to check other implementations.

Arithmetic only, as in reference.py. The formulas are those of transformers' Qwen3_5ForCausalLM, token by token. What is
rotated is said by spec.rotation (formats/hadamard.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import F32
from tritpack.formats.delta_net import DeltaNet
from tritpack.formats.model_spec import ModelSpec

Tracer = Callable[[str, int, "F32"], None]
"""Called with (point, layer or -1, float32 (tokens, columns)) after each step. The points are those of the C graph
(tritpack.h, tp_trace_fn)."""
LayerTracer = Callable[[str, "F32"], "F32"]
"""The same of one layer; returns the values."""
SUM_EPS = np.float32(1e-6)
"""What the length of queries and keys of a Gated DeltaNet is kept away from zero by."""


class HybridWeights(Protocol):
    """Source of the arrays, one at a time, so that a large model need not fit into memory."""

    def rows(self, name: str, rows: npt.NDArray[np.int64]) -> F32:
        """Return some rows of a table as stored, float32 (rows, hidden)."""

    def array(self, name: str) -> F32:
        """Return a tensor by its GGUF name, float32, with the values that GGUF has: norms are factors (1 + w in
        transformers), ssm_a is -exp(A_log).

        Value heads are in transformers' order: rows of attn_qkv, attn_gate, ssm_alpha, ssm_beta, ssm_conv1d, ssm_a and
        ssm_dt, and columns of ssm_out. If ssm_out is rotated and rotation.grouped_heads is false, its columns stay in
        the order of GGUF.
        """


def forward(
    spec: ModelSpec,
    weights: HybridWeights,
    tokens: Sequence[int],
    *,
    trace: Tracer = lambda point, layer, values: None,
) -> F32:
    """Return the logits, float32 (tokens, vocab), of one sequence. trace: called after each step."""
    turned, net = _Products(spec, weights), spec.delta_net
    assert net is not None, "reference.py has the graph of other models"
    x = weights.rows("token_embd.weight", np.asarray(tokens, np.int64))
    if spec.rotation and "token_embd.weight" in spec.rotation.tables:
        x = spec.rotation.inverse(x)
    trace("embd", -1, x)
    for layer, recurrent in enumerate(net.recurrent):
        blk = f"blk.{layer}"
        normed = rms_norm(x, weights.array(f"{blk}.attn_norm.weight"), spec.norm_eps)
        at = functools.partial(_traced, trace, layer)
        mixed = (
            _delta_net(spec, net, turned, blk, normed, at) if recurrent else _attention(spec, turned, blk, normed, at)
        )
        x = at("attn_residual", x + at("attn_output", mixed))
        normed = rms_norm(x, weights.array(f"{blk}.post_attention_norm.weight"), spec.norm_eps)
        gate, up = (at(part, turned(f"{blk}.{part}", normed)) for part in ("ffn_gate", "ffn_up"))
        x = at("layer_out", x + at("ffn_down", turned(f"{blk}.ffn_down", silu(gate) * up)))
    final = rms_norm(x, weights.array("output_norm.weight"), spec.norm_eps)
    trace("final_norm", -1, final)
    return turned("token_embd" if spec.tied else "output", final)


def _traced(trace: Tracer, layer: int, point: str, values: F32) -> F32:
    """Tell a step of a layer, and return its values."""
    trace(point, layer, values)
    return values


class _Products:
    """The products with a model's matrices, each in its basis."""

    def __init__(self, spec: ModelSpec, weights: HybridWeights) -> None:
        self.rotation, self.weights = spec.rotation, weights

    def __call__(self, name: str, x: F32) -> F32:
        """Return x times a matrix, float32 (tokens, rows); a rotated one gets the rotated x, and so does a rotated
        table that is the head too."""
        name = f"{name}.weight"
        if self.rotates(name):
            assert self.rotation is not None
            x = self.rotation.forward(x)
        result: F32 = x @ self.weights.array(name).T
        return result

    def rotates(self, name: str) -> bool:
        return self.rotation is not None and self.rotation.turns(name)


def _delta_net(spec: ModelSpec, net: DeltaNet, turned: _Products, blk: str, y: F32, at: LayerTracer) -> F32:
    """Return what a Gated DeltaNet layer adds, float32 (tokens, hidden)."""
    array, n, heads, size = turned.weights.array, len(y), net.value_heads, net.state_size
    qkv, gate, alpha, beta = (
        at(part, turned(f"{blk}.{part}", y)) for part in ("attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta")
    )
    mixed = silu(causal_convolution(qkv, array(f"{blk}.ssm_conv1d.weight")))
    q, k, v = np.split(mixed, [net.key_width, 2 * net.key_width], axis=1)
    q, k = (unit(part.reshape(n, net.key_heads, size)) for part in (q, k))
    q = q / np.sqrt(np.float32(size))
    q, k = (np.repeat(part, heads // net.key_heads, axis=1) for part in (q, k))
    decay = array(f"{blk}.ssm_a") * np.logaddexp(np.float32(0), alpha + array(f"{blk}.ssm_dt.bias"))
    state = np.zeros((heads, size, size), np.float32)
    out = delta_rule(q, k, v.reshape(n, heads, size), sigmoid(beta), decay, state)
    at("delta_out", out.reshape(n, -1))
    out = rms_norm(out, array(f"{blk}.ssm_norm.weight"), spec.norm_eps) * silu(gate.reshape(n, heads, size))
    if turned.rotates(f"{blk}.ssm_out.weight") and turned.rotation and not turned.rotation.grouped_heads:
        out = out[:, net.head_order()]
    return turned(f"{blk}.ssm_out", out.reshape(n, -1))


def delta_rule(q: F32, k: F32, v: F32, beta: F32, decay: F32, state: F32) -> F32:
    """Return the outputs of the gated delta rule, float32 (tokens, heads, size); `state` is then that after the last.

    q, k, v: (tokens, heads, size). beta, decay: (tokens, heads). state: (heads, size, size), keys by values.
    Per token: S = exp(decay) S; u = beta (v - S^T k); S = S + k u^T; o = S^T q.
    """
    out = np.empty_like(v)
    for token in range(len(q)):
        state *= np.exp(decay[token])[:, None, None]
        read = (k[token][:, :, None] * state).sum(1)
        update = beta[token][:, None] * (v[token] - read)
        state += k[token][:, :, None] * update[:, None]
        out[token] = (q[token][:, :, None] * state).sum(1)
    return out


def causal_convolution(x: F32, taps: F32) -> F32:
    """Return the depthwise convolution of (tokens, channels) with (channels, taps), whose last tap is the present."""
    before = np.zeros((taps.shape[1] - 1, x.shape[1]), np.float32)
    padded = np.concatenate([before, x])
    total = np.zeros_like(x)
    for tap in range(taps.shape[1]):
        total += padded[tap : tap + len(x)] * taps[:, tap]
    return total


def _attention(spec: ModelSpec, turned: _Products, blk: str, y: F32, at: LayerTracer) -> F32:
    """Return what an attention layer adds, float32 (tokens, hidden)."""
    array, n, size = turned.weights.array, len(y), spec.head_dim
    q, k, v = (at(part, turned(f"{blk}.{part}", y)) for part in ("attn_q", "attn_k", "attn_v"))
    both = q.reshape(n, spec.heads, 2, size)
    q = rms_norm(both[:, :, 0], array(f"{blk}.attn_q_norm.weight"), spec.norm_eps)
    k = rms_norm(k.reshape(n, spec.kv_heads, size), array(f"{blk}.attn_k_norm.weight"), spec.norm_eps)
    v = v.reshape(n, spec.kv_heads, size)
    q, k = partial_rope(spec, q), partial_rope(spec, k)
    at("attn_q_rope", q.reshape(n, -1))
    at("attn_k_rope", k.reshape(n, -1))
    group = spec.heads // spec.kv_heads
    k, v = (np.repeat(part, group, axis=1).transpose(1, 0, 2) for part in (k, v))
    scores = q.transpose(1, 0, 2) @ k.transpose(0, 2, 1) / np.sqrt(np.float32(size))
    scores = np.where(np.tri(n, dtype=bool), scores, np.float32(-np.inf))
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    mixed = (shares @ v).transpose(1, 0, 2)
    at("attn_out", mixed.reshape(n, -1))
    return turned(f"{blk}.attn_output", (mixed * sigmoid(both[:, :, 1])).reshape(n, -1))


def partial_rope(spec: ModelSpec, x: F32) -> F32:
    """Return (tokens, heads, head_dim) with the first rope_width values of each head turned, pairs half of them apart.

    For text the three streams of m-rope are one, so its sections have no effect.
    """
    frequencies = spec.inverse_frequencies()
    angles = (np.arange(len(x), dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    cos, sin = (part.astype(np.float32)[:, None] for part in (np.cos(angles), np.sin(angles)))
    half = spec.rope_width // 2
    first, second, rest = np.split(x, [half, spec.rope_width], axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], -1)


def rms_norm(x: F32, factors: F32, eps: float) -> F32:
    """Return x / sqrt(mean x^2 + eps) * factors over the last axis."""
    mean = np.mean(x * x, -1, keepdims=True, dtype=np.float32)
    normed: F32 = np.divide(x, np.sqrt(mean + np.float32(eps)), dtype=np.float32) * factors
    return normed


def unit(x: F32) -> F32:
    """Return x / sqrt(sum x^2 + 1e-6) over the last axis."""
    length = np.sqrt(np.sum(x * x, -1, keepdims=True, dtype=np.float32) + SUM_EPS)
    divided: F32 = np.divide(x, length, dtype=np.float32)
    return divided


def sigmoid(x: F32) -> F32:
    """Return 1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        return np.divide(np.float32(1), np.float32(1) + np.exp(-x), dtype=np.float32)


def silu(x: F32) -> F32:
    """Return x / (1 + exp(-x))."""
    return x * sigmoid(x)

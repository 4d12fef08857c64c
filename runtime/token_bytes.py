"""Bytes per token: what a decoded token reads of the weights and of recurrent states, and what a position takes in the
KV cache."""

from __future__ import annotations

from collections.abc import Mapping

from tritpack.formats.errors import UsageError
from tritpack.formats.model_spec import ModelSpec

DEFAULT_CACHE_BYTES = 4 << 30
"""The most that KV caches and recurrent states take by default: the longest contexts need more memory than most
machines have."""
SHORTEST_CONTEXT = 512
"""Positions that a default context has at least, unless the model has fewer."""

KEPT_TOKENS = 32
"""TP_KEPT of csrc/session.h: tokens whose inputs to recurrent layers are kept."""


def read_per_token(spec: ModelSpec, nbytes: Mapping[str, int]) -> int:
    """Return the bytes of the weights that a decoded token reads: all tensors, but one row of an embedding that is not
    the head. nbytes: of each tensor, by its GGUF name; or how many weights it has, to count those."""
    total = sum(nbytes.values())
    if not spec.tied:
        embedding = nbytes["token_embd.weight"]
        total -= embedding - embedding // spec.vocab_size
    return total


def default_context(spec: ModelSpec, kv_type: str, sequences: int = 1) -> int:
    """Positions of a KV cache by default: the model's own, as far as DEFAULT_CACHE_BYTES hold so many caches, and the
    recurrent states of as many sequences."""
    left = DEFAULT_CACHE_BYTES - sequences * kept_bytes(spec)
    each = max(1, sequences * cache_bytes(spec, kv_type))
    return max(1, min(spec.context_length, left // each))


def context_for(spec: ModelSpec, kv_type: str, sequences: int, asked: int | None) -> int:
    """Return the positions of each sequence's context: as many as asked for, or `default_context`, and at most the
    model's. Raises UsageError if by default the recurrent states leave no room for SHORTEST_CONTEXT."""
    context = min(asked or default_context(spec, kv_type, sequences), spec.context_length)
    if asked is None and context < min(SHORTEST_CONTEXT, spec.context_length) and kept_bytes(spec):
        states, most = (f"{value / 1e9:.1f} GB" for value in (sequences * kept_bytes(spec), DEFAULT_CACHE_BYTES))
        raise UsageError(
            f"the recurrent states of {sequences} sequences take {states}; by default states and contexts together "
            f"take at most {most}",
            hint="answer fewer requests at once, or set the length of each context with --context",
        )
    return context


def cache_bytes(spec: ModelSpec, kv_type: str) -> int:
    """Bytes of the keys and values of one position, which layers with attention have. i16 pads heads to 16 values and
    has one float32 scale per head."""
    layers = spec.layers - _recurrent_layers(spec)
    padded = -(-spec.head_dim // 16) * 16
    head = 2 * padded + 4 if kv_type == "i16" else 4 * spec.head_dim
    return 2 * layers * spec.kv_heads * head


def state_bytes(spec: ModelSpec) -> int:
    """Bytes of the states of a sequence's recurrent layers, which each token reads and writes; 0 for other models."""
    if spec.delta_net is None:
        return 0
    net = spec.delta_net
    window = (net.conv_taps - 1) * (2 * net.key_width + net.value_width)
    return 4 * _recurrent_layers(spec) * (window + net.value_width * net.state_size)


def kept_bytes(spec: ModelSpec) -> int:
    """Bytes that a sequence takes for recurrent layers: the states, two earlier ones, and the inputs since each of them
    (csrc/recurrence.c), whatever its length."""
    if spec.delta_net is None:
        return 0
    net = spec.delta_net
    inputs = 2 * net.key_width + net.value_width + 2 * net.value_heads
    return 3 * state_bytes(spec) + 2 * KEPT_TOKENS * 4 * _recurrent_layers(spec) * inputs


def _recurrent_layers(spec: ModelSpec) -> int:
    return sum(spec.delta_net.recurrent) if spec.delta_net else 0

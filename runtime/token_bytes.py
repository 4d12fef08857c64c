"""Bytes per token: what a decoded token reads of the weights, and what a position takes in the KV cache."""

from __future__ import annotations

from collections.abc import Mapping

from tritpack.formats.model_spec import ModelSpec

DEFAULT_CACHE_BYTES = 4 << 30
"""The most that a KV cache takes by default: the longest contexts need more memory than most machines have."""


def read_per_token(spec: ModelSpec, nbytes: Mapping[str, int]) -> int:
    """Return the bytes of the weights that a decoded token reads: all tensors, but one row of an embedding that is not
    the head. nbytes: of each tensor, by its GGUF name; or how many weights it has, to count those."""
    total = sum(nbytes.values())
    if not spec.tied:
        embedding = nbytes["token_embd.weight"]
        total -= embedding - embedding // spec.vocab_size
    return total


def default_context(spec: ModelSpec, kv_type: str, sequences: int = 1) -> int:
    """Positions of a KV cache by default: the model's own, as far as DEFAULT_CACHE_BYTES hold so many caches."""
    return max(1, min(spec.context_length, DEFAULT_CACHE_BYTES // (sequences * cache_bytes(spec, kv_type))))


def cache_bytes(spec: ModelSpec, kv_type: str) -> int:
    """Bytes of the keys and values of one position. i16 pads heads to 16 values and has one float32 scale per head."""
    padded = -(-spec.head_dim // 16) * 16
    head = 2 * padded + 4 if kv_type == "i16" else 4 * spec.head_dim
    return 2 * spec.layers * spec.kv_heads * head

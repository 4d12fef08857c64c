"""What running a model takes: bytes of the file, memory at a context, and the bounds of speed and energy per token."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from tritpack.converter.inspect.bandwidth import GIVEN, Bandwidth, bandwidth_here
from tritpack.converter.inspect.energy import energy
from tritpack.formats.errors import UsageError
from tritpack.formats.model_spec import ModelSpec
from tritpack.runtime.token_bytes import cache_bytes, default_context, kept_bytes, read_per_token, state_bytes

KV_TYPE = "f32"
"""How tritpack keeps keys and values unless --kv-type says otherwise."""
LARGEST_CACHED = 64 << 20
"""Bytes per token that a processor may keep in its caches, so that memory is no limit."""


@dataclasses.dataclass(frozen=True)
class NeedsOptions:
    """context: positions to keep; None takes the model's own, as far as 4 GiB hold them. bandwidth: of the memory, in
    GB/s; None takes this machine's. Raises UsageError."""

    context: int | None = None
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        if self.context is not None and self.context < 1:
            raise UsageError(f"a context of {self.context} tokens is none")
        if self.bandwidth is not None and not 0 < self.bandwidth < math.inf:
            raise UsageError(f"a bandwidth of {self.bandwidth:g} GB/s is none")


def needs(
    spec: ModelSpec, nbytes: Mapping[str, int], ternary: Collection[str], size: int, options: NeedsOptions
) -> dict[str, Any]:
    """Return what a model needs. nbytes: of each tensor of the spec, by name. ternary: the names of those that are
    ternary. size: of the file, in bytes."""
    context, context_is = _context(spec, options.context)
    cache = context * cache_bytes(spec, KV_TYPE)
    shapes = spec.tensor_shapes()
    weights = {name: math.prod(shapes[name]) for name in nbytes if name in shapes}
    kept = kept_bytes(spec)
    read = read_per_token(spec, {name: nbytes[name] for name in weights}) + state_bytes(spec)
    used = read_per_token(spec, weights)
    ternary_used = sum(weights[name] for name in ternary if name in weights)
    speed = bandwidth_here() if options.bandwidth is None else Bandwidth(options.bandwidth * 1e9, GIVEN)
    fits_cache = read <= LARGEST_CACHED
    bound = None if fits_cache else speed.bytes_per_second
    return {
        "nbytes": size,
        "context": context,
        "context_is": context_is,
        "kv_type": KV_TYPE,
        "cache_bytes": cache,
        "state_bytes": kept,
        "memory_bytes": size + cache + kept,
        "bytes_per_token": read,
        "fits_cache": fits_cache,
        "bandwidth": speed.bytes_per_second,
        "bandwidth_is": speed.how,
        "tokens_per_second": bound and bound / read,
        "tokens_per_second_at_full_context": bound and bound / (read + cache),
        "energy": energy(min(ternary_used, used), used, read, int8_activations=spec.int8_activations),
    }


def _context(spec: ModelSpec, asked: int | None) -> tuple[int, str]:
    """The number of positions, and what decided it, in words."""
    if asked is not None and asked < spec.context_length:
        return asked, "as asked"
    if asked is not None:
        more = f"; {asked:,} were asked for" if asked > spec.context_length else ""
        return spec.context_length, f"the longest of the model{more}"
    context = default_context(spec, KV_TYPE)
    kept = "keys, values and states" if kept_bytes(spec) else "keys and values"
    limited = f"as many as 4 GiB of {kept} hold; the model allows {spec.context_length:,}"
    return context, "the longest of the model" if context == spec.context_length else limited

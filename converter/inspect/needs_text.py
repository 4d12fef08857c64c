"""What a model needs, in words and with the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tritpack.converter.cli.human import count, size
from tritpack.formats.model_spec import ModelSpec

CLAIM = (5, 7)
"""Tokens per second of a 100B model on one CPU, as bitnet.cpp's README and report (arXiv 2410.16144) say."""
EXAMPLE = 50e9
"""Bytes per second of an example: about what the memory of a laptop gives."""
DDR5 = 2 * 8 * 5.6e9
"""Bytes per second of two channels, 8 bytes wide, at 5600 million transfers per second: most desktops and laptops."""


def needs_sentences(needs: Mapping[str, Any]) -> list[str]:
    """Return what a model needs, one sentence each of disk, memory, speed and energy."""
    disk = size(needs["nbytes"])
    if "outtype" in needs:
        disk = f"about {disk} once it is converted to {needs['outtype']}"
    states = f" and {size(needs['state_bytes'])} for recurrent states" if needs["state_bytes"] else ""
    return [
        f"Disk: {disk}.",
        f"Memory: {size(needs['memory_bytes'])} with a context of {needs['context']:,} tokens ({needs['context_is']}), "
        f"{size(needs['cache_bytes'])} of it for keys and values{states}.",
        _speed(needs),
        energy_sentence(needs["energy"]),
    ]


def _speed(needs: Mapping[str, Any]) -> str:
    read, bandwidth, bound = (needs[key] for key in ("bytes_per_token", "bandwidth", "tokens_per_second"))
    if needs["fits_cache"]:
        memory = f"the {bandwidth / 1e9:.3g} GB/s of memory" if bandwidth else "memory"
        return (
            f"Speed: the model is so small ({size(read)} per token) that caches may hold it, and then the processor, "
            f"not {memory}, sets the speed; tritpack bench measures it."
        )
    if bound is None:
        return (
            f"Speed: tokens per second at most = memory bandwidth / {size(read)}; for example {speed(EXAMPLE / read)} "
            f"at {EXAMPLE / 1e9:.0f} GB/s. This machine's is {needs['bandwidth_is']} (tritpack doctor measures it, "
            "--bandwidth GB/s states it)."
        )
    full = speed(needs["tokens_per_second_at_full_context"])
    return (
        f"Speed: at most {speed(bound)} tokens per second, {full} when the context is full, by arithmetic: each token "
        f"reads {size(read)} and memory gives {bandwidth / 1e9:.3g} GB/s ({needs['bandwidth_is']})."
    )


def speed(tokens_per_second: float) -> str:
    """Return tokens per second with three digits, and no more than the whole number from 100 on."""
    return f"{tokens_per_second:.0f}" if tokens_per_second >= 100 else f"{tokens_per_second:.3g}"


def energy_sentence(energy: Mapping[str, Any]) -> str:
    """Return the estimate of energy."""
    ours, fp16 = (_joules(*energy[key]) for key in ("joules_per_token", "fp16_joules_per_token"))
    return (
        f"Energy, an estimate: {ours} per token, {energy['fp16_ratio']:.1f} times less than in fp16 ({fp16}), by the "
        f"figures of {energy['source']}."
    )


def _joules(least: float, most: float) -> str:
    """A range of joules with two digits, in the unit that suits its upper end."""
    units = ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"))
    unit, name = next((pair for pair in units if most >= 0.1 * pair[0]), units[-1])
    return " to ".join(f"{float(f'{joules / unit:.2g}'):g}" for joules in (least, most)) + f" {name}"


def arithmetic(needs: Mapping[str, Any], spec: ModelSpec) -> list[str]:
    """Return how the bytes per token and the bound of tokens per second come about, one line each."""
    read, bandwidth = needs["bytes_per_token"], needs["bandwidth"]
    shapes = spec.tensor_shapes()
    linears = sum(math.prod(shapes[name]) for name in spec.linear_names())
    bound = [_quotient(f"at {bandwidth / 1e9:.4g} GB/s", bandwidth, read)] if bandwidth else []
    return [
        f"bytes per token: {count(linears)} ternary weights in {needs['outtype']}, and a head of {spec.vocab_size:,} x "
        f"{spec.hidden_size:,} in {needs['embedding_type']}; each is read once: {read / 1e9:.4g} GB",
        *bound,
        _quotient("at two channels of DDR5-5600, as many desktops have (2 x 8 bytes x 5.6 GT/s)", DDR5, read),
    ]


def _quotient(where: str, bandwidth: float, read: int) -> str:
    return f"{where}: {bandwidth / 1e9:.4g} GB/s / {read / 1e9:.4g} GB = {bandwidth / read:.3g} tokens/s at most"


def claim(needs: Mapping[str, Any]) -> str:
    """Return what the published 5 to 7 tokens per second of a 100B model on one CPU ask of its memory."""
    read = needs["bytes_per_token"] / 1e9
    products = " and ".join(f"{rate} x {read:.4g} GB = {rate * read:.0f} GB/s" for rate in CLAIM)
    bound = needs["tokens_per_second"]
    here = f" With {needs['bandwidth'] / 1e9:.3g} GB/s it is {speed(bound)} at most." if bound else ""
    return (
        f"bitnet.cpp's report (arXiv 2410.16144) claims {CLAIM[0]} to {CLAIM[1]} tokens/s for 100B on a single CPU. "
        f"Every token reads every weight, so that takes {products} of memory bandwidth. Two channels of DDR5-5600 have "
        f"{DDR5 / 1e9:.0f} GB/s and reach {DDR5 / 1e9 / read:.2g} tokens/s at most; four have "
        f"{2 * DDR5 / 1e9:.0f} GB/s, and an Apple M2 Ultra has 800 GB/s by its maker's figure.{here}"
    )

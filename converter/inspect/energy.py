"""Energy per token, as an estimate from published figures per operation.

The figures are of one 45 nm process at 0.9 V: M. Horowitz, "Computing's energy problem (and what we can do about it)",
ISSCC 2014, figure 1.1.9. The BitNet papers count arithmetic with the same table: an addition of int8 per ternary weight
against a multiplication and an addition of fp16. They leave out reading the weights from memory, which takes most of
the energy of a token; here it is counted. Today's chips need less of both. The ratio to fp16 is the useful answer.
"""

from __future__ import annotations

from typing import Any

SOURCE = "Horowitz, ISSCC 2014 (45 nm)"
PICO = 1e-12
INT8_ADD, FP16_ADD, FP16_MULTIPLY = 0.03 * PICO, 0.4 * PICO, 1.1 * PICO
"""Joules per operation."""
DRAM_PER_BYTE = (1.3e-9 / 8, 2.6e-9 / 8)
"""Joules per byte, least and most: an access of 64 bits takes 1.3 to 2.6 nJ."""


def energy(ternary: int, weights: int, bytes_per_token: int, *, int8_activations: bool) -> dict[str, Any]:
    """Return what decoding one token takes in joules, least and most, and what the same model in fp16 takes.

    ternary: how many ternary weights a token uses; each takes an addition, of int8 or of floats as its activations are.
    weights: how many it uses in all; those of the head that are not ternary take a multiplication and an addition of
    fp16. bytes_per_token: read from memory. Attention, norms and the KV cache, which are equal in both, are left out.
    """
    multiply_add = FP16_MULTIPLY + FP16_ADD
    arithmetic = ternary * (INT8_ADD if int8_activations else FP16_ADD) + (weights - ternary) * multiply_add
    fp16_arithmetic = weights * multiply_add
    least, most = (arithmetic + bytes_per_token * joules for joules in DRAM_PER_BYTE)
    fp16_least, fp16_most = (fp16_arithmetic + 2 * weights * joules for joules in DRAM_PER_BYTE)
    return {
        "joules_per_token": [least, most],
        "fp16_joules_per_token": [fp16_least, fp16_most],
        "arithmetic_joules_per_token": arithmetic,
        "fp16_arithmetic_joules_per_token": fp16_arithmetic,
        "fp16_ratio": fp16_most / most,
        "source": SOURCE,
    }

"""Rotary position embedding: the frequencies of every kind of scaling.

They are those of transformers to the last bit, except for `llama3` and `longrope`, which divide each frequency by its
own factor and may differ by one unit in the last place.

Formulas: RoFormer (arXiv 2104.09864), YaRN (arXiv 2309.00071), and transformers' modeling_rope_utils.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from tritpack.formats.arrays import F32
from tritpack.formats.errors import Unreadable

if TYPE_CHECKING:
    import numpy.typing as npt

KINDS = ("linear", "yarn", "factors")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How the frequencies of a long-context model differ from the plain ones.

    kind: `linear` divides all by `factor`; `yarn` blends divided and plain ones; `factors` divides each by its own
    entry of `frequency_factors` (head_dim / 2). attention_factor: cos and sin are multiplied by it.
    """

    kind: str
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    frequency_factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise Unreadable(f"rope scaling of kind {self.kind!r} is not one of {', '.join(KINDS)}")
        numbers = (self.factor, self.beta_fast, self.beta_slow, self.attention_factor, *self.frequency_factors)
        if not all(isinstance(number, float) and math.isfinite(number) and number > 0 for number in numbers):
            raise Unreadable(f"rope scaling {self.kind}: a number is not finite and positive")
        if self.kind == "linear" and self.attention_factor != 1.0:
            raise Unreadable("rope scaling linear: it has no attention factor")
        original = self.original_context
        if self.kind == "yarn" and (not isinstance(original, int) or not 0 < original < 2**31):
            raise Unreadable(f"rope scaling yarn: the original context is {original!r}, expected a positive integer")


def inverse_frequencies(theta: float, head_dim: int, scaling: RopeScaling | None = None) -> F32:
    """float32 (head_dim / 2,): 1 / theta ** (2 i / head_dim), scaled, each step rounded as transformers does.

    The power is taken in decimal arithmetic, so that no libm can change a bit of it.
    """
    base = Decimal(theta)
    powers: F32 = np.array([float(base ** (Decimal(2 * i) / head_dim)) for i in range(head_dim // 2)], np.float32)
    plain: F32 = np.float32(1) / powers
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return np.divide(plain, np.float32(scaling.factor), dtype=np.float32)
    if scaling.kind == "factors":
        return np.divide(plain, np.array(scaling.frequency_factors, np.float32), dtype=np.float32)
    divided = np.float32(1) / (np.float32(scaling.factor) * powers)
    low, high = _yarn_range(theta, head_dim, scaling)
    ramp = (np.arange(head_dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    keep = np.float32(1) - np.clip(ramp, 0, 1)
    blended: F32 = divided * (np.float32(1) - keep) + plain * keep
    return blended


def _yarn_range(theta: float, head_dim: int, scaling: RopeScaling) -> tuple[float, float]:
    """The dimensions between which YaRN blends: where `beta_fast` and `beta_slow` turns fit the original context."""

    def dimension(turns: float) -> float:
        return head_dim * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = float(max(math.floor(dimension(scaling.beta_fast)), 0))
    high = float(min(math.ceil(dimension(scaling.beta_slow)), head_dim - 1))
    return low, high + 0.001 if low == high else high


def yarn_attention_factor(factor: float, mscale: float = 1.0) -> float:
    """YaRN's own choice of the attention factor."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def longrope_attention_factor(factor: float, original_context: int) -> float:
    """LongRoPE's own choice of the attention factor; factor: how many times longer the context has become."""
    return math.sqrt(1 + math.log(factor) / math.log(original_context)) if factor > 1 else 1.0


def llama3_factors(
    theta: float,
    head_dim: int,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_context: int,
) -> tuple[float, ...]:
    """Llama 3.1's divisors of the frequencies, float32 values: 1 for short waves, `factor` for long ones, between them
    a blend. GGUF keeps these as `rope_freqs.weight`."""
    factors = []
    for frequency in inverse_frequencies(theta, head_dim).astype(np.float64):
        turns = original_context * frequency / (2 * math.pi)  # of this frequency in the original context
        if turns < low_freq_factor:
            factors.append(factor)
        elif turns > high_freq_factor:
            factors.append(1.0)
        else:
            smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
            factors.append(1.0 / ((1 - smooth) / factor + smooth))
    return float32_tuple(factors)


def float32_tuple(values: Sequence[float] | npt.NDArray[np.generic]) -> tuple[float, ...]:
    """Round values to float32 and return them as Python floats."""
    return tuple(np.asarray(values, np.float32).astype(float).tolist())

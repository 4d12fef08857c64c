"""Int8 codes near a rounding boundary, where two correct float32 programs may round differently.

One flipped code moves the outputs from there on by up to a few 1e-3, so a deviation is a mistake only where no flip can
explain it. This module follows flips, and measures what they and float32 noise explain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.compare.layers import Layers
from tritpack.converter.verify.compare.outputs import compare_outputs, worst_position
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.arrays import F32
from tritpack.formats.model_spec import ModelSpec
from tritpack.runtime.reference import QuantizedInput

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

Tokens = Sequence[int]


def searches(spec: ModelSpec) -> int:
    """How often prompts without near-ties are searched for, by the size of the model: wide, deep models have none, and
    would be searched in vain."""
    shapes = spec.tensor_shapes()
    weights = sum(math.prod(shapes[name]) for name in spec.linear_names())
    return min(24, int(1e9 // weights))


def outputs_name(model: Model) -> str:
    """What the outputs of a model are called."""
    return "hidden states" if model.spec.is_embedding_model else "logits"


@dataclasses.dataclass
class Flips:
    """Int8 codes where runtime and oracle rounded a near-tie differently: their number and the first one."""

    count: int = 0
    first: tuple[int, str, int] | None = None  # layer, point, position among all

    def note(self, free: QuantizedInput, codes: npt.NDArray[np.int8]) -> None:
        """Count where the oracle's own rounding differs from `codes` of the runtime."""
        differing = np.flatnonzero(free.codes != codes)
        self.count += len(differing)
        if len(differing) and self.first is None:
            self.first = (free.layer, free.point, int(differing[0]) // codes.shape[1])

    def add(self, others: Flips) -> None:
        """Count those of further windows too."""
        self.count += others.count
        self.first = self.first or others.first

    def __str__(self) -> str:
        if self.first is None:
            return "no code differs"
        layer, point, position = self.first
        place = f"layer {layer} {point}, position {position}"
        return f"{self.count} int8 codes rounded the other way at a near-tie, first in {place}"


def follow_ties(
    model: Model, oracle: Oracle, windows: Sequence[Tokens], layers: Layers | None = None
) -> tuple[list[tuple[F32, F32]], Flips]:
    """(runtime, oracle) outputs where the oracle adopts the runtime's int8 codes at near-ties, and what it adopted.

    layers: records every step; there must be one window then.
    """
    traced = [model.traced_outputs(tokens, layers.trace_runtime if layers else None) for tokens in windows]
    adopted = _Codes([codes for _, codes in traced])
    flips = Flips()

    def count(free: QuantizedInput) -> None:
        flips.note(free, adopted.at(free.layer, free.point))

    options = {"trace": layers.trace_oracle} if layers else {}
    expected = oracle.outputs(windows, tie_breaker=adopted.at, observe_free=count, **options)
    return [(ours, want) for (ours, _), want in zip(traced, expected)], flips


class _Codes:
    """The runtime's int8 codes of several windows, by (layer, point): each is let go of once the next is asked for."""

    def __init__(self, windows: Sequence[dict[tuple[int, str], npt.NDArray[np.int8]]]) -> None:
        self._windows = windows
        self._last: tuple[tuple[int, str], npt.NDArray[np.int8]] | None = None

    def at(self, layer: int, point: str) -> npt.NDArray[np.int8]:
        """The codes of all windows, int8 (tokens, cols)."""
        if self._last is None or self._last[0] != (layer, point):
            codes = np.concatenate([window.pop((layer, point)) for window in self._windows])
            self._last = (layer, point), codes
        return self._last[1]


def rounding_excess(
    oracle: Oracle, judge_name: str, windows: Sequence[Tokens], outputs: Sequence[F32], distance: float
) -> str | None:
    """In words, by how much a judge is further from the runtime than rounding explains; None if it is not.

    distance: relative rms between the judge and the runtime's `outputs`. Where an outside judge rounds cannot be seen.
    So the distance between runtime and reference, which also round independently, is the measure: up to 3 times that
    distance counts as rounding.
    """
    reference = oracle.outputs(windows)
    explained = compare_outputs(list(zip(outputs, reference)), windows, states=True).relative_rms
    if distance <= 3 * explained:
        return None
    return f"{judge_name} is {distance:.3g} away (relative rms), where rounding explains {explained:.3g}"


def own_noise(oracle: Oracle, windows: Sequence[Tokens]) -> float:
    """How far the oracle's worst position moves when only its attention is computed in float64, with the same rounding.

    A model whose attention scores are in the thousands cannot be told from a wrong one by float32 logits.
    """
    codes: dict[tuple[int, str], npt.NDArray[np.int8]] = {}

    def keep(inputs: QuantizedInput) -> None:
        codes[inputs.layer, inputs.point] = inputs.codes

    single = oracle.outputs(windows, observe=keep)
    double = oracle.outputs(windows, tie_breaker=lambda *at: codes.get(at), attention_type=np.float64)
    return worst_position(list(zip(double, single)))

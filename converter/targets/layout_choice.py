"""The layout of a model's ternary tensors, and what becomes of every scale in it.

A layout holds a tensor exactly, or with what the user allowed, or not at all; then the reason is said.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tritpack.converter.sources.source_tensors import ScaleGrid, SourceTensor
from tritpack.converter.targets import scale_rounding
from tritpack.converter.targets.engines.engine import Engine
from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.layouts.catalog import LAYOUTS, TILING_KEY
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.tiling import Tiled, Tilings, format_tilings
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.names import LAYOUTS as OUTTYPES
from tritpack.formats.ternary import TernaryTensor

ROUNDING_KEY = "tritpack.scale_rounding"
Blocks = tuple[int, int]
"""(row_blocks, col_blocks) of scales."""


@dataclasses.dataclass(frozen=True, repr=False)
class LayoutChoice:
    """The one layout for the whole model, and what it makes of the scales.

    units: what one scale covers, in words -> the number of tensors with such scales.
    blocks: ternary tensor -> how its stored scales tile it.
    apart: ternary tensor -> its scale, which gets a tensor of its own.
    losses: tensor whose scales are changed -> the largest relative change of one.
    record: what the file's metadata says about it.
    """

    layout: Layout
    units: dict[str, int]
    blocks: dict[str, Blocks]
    apart: dict[str, np.float32]
    losses: dict[str, float]
    record: dict[str, Any]

    def __repr__(self) -> str:
        return f"LayoutChoice({self.layout.name!r}, {self.units})"

    def stored(self, name: str, ternary: TernaryTensor) -> TernaryTensor:
        """Return a tensor as it is packed: with the scales that the layout is given."""
        if name in self.apart:
            return TernaryTensor(ternary.codes, np.ones((1, 1), np.float32))
        return scale_rounding.rounded(ternary, self.layout) if name in self.losses else ternary


def choose_layout(
    spec: ModelSpec,
    tensors: Mapping[str, SourceTensor],
    grids: Mapping[str, ScaleGrid],
    *,
    outtype: str,
    engine: Engine,
    allow_scale_rounding: bool,
    tilings: Tilings,
) -> LayoutChoice:
    """Decide the layout and what becomes of every scale.

    grids: ternary tensor -> how its scales tile it in the source. tilings: for tl1 and tl2, by shape. A table that the
    layout does not hold is left out of the choice if the file is for another engine than ours, which has fewer layouts.
    Raises Unsupported, naming the tensor, the reason and what would fit; UsageError for tilings of another layout.
    """
    if outtype not in ("auto", *OUTTYPES):
        hint = f"choose one of: auto, {', '.join(OUTTYPES)}"
        raise Unsupported(f"--outtype {outtype} is not supported", hint=hint)
    linears = frozenset(spec.linear_names())
    all_shapes = spec.tensor_shapes()
    shapes = {name: all_shapes[name] for name in grids}
    required = shapes if engine.layouts is None else {name: shapes[name] for name in shapes if name in linears}
    needs = _Needs(engine, required, _blocks_of(grids))
    layout = LAYOUTS[needs.first_that_fits() if outtype == "auto" else outtype]
    if isinstance(layout, Tiled):
        layout = type(layout)(tilings)
    elif tilings:
        raise UsageError(f"--tiling and --kernel-config are for tl1 and tl2, not for {layout.name}")
    may_stand_apart = linears if engine.architecture(spec) in engine.scales_apart else frozenset()
    torn = {name: unit for name, grid in grids.items() if (unit := grid.torn(shapes[name][1]))}
    fitting = _Fitting(layout, needs, shapes, linears, may_stand_apart, torn, allow_scale_rounding, _blocks_of(grids))
    for name in shapes:
        fitting.add(name, tensors[name])
    units = Counter(grids[name].unit for name in fitting.blocks)
    return LayoutChoice(layout, dict(units), fitting.blocks, fitting.apart, fitting.losses, fitting.record())


def _blocks_of(grids: Mapping[str, ScaleGrid]) -> dict[str, Blocks]:
    return {name: grid.blocks for name, grid in grids.items()}


@dataclasses.dataclass(frozen=True)
class _Needs:
    """What the ternary tensors of a model need of a layout. shapes, blocks: by tensor, as the source has them."""

    engine: Engine
    shapes: Mapping[str, tuple[int, ...]]
    blocks: Mapping[str, Blocks]

    def fit(self, layout: str) -> bool:
        """Return whether a layout holds every shape and granularity."""
        return all(
            LAYOUTS[layout].misfit(shape[0], shape[1], self.blocks[tensor]) is None
            for tensor, shape in self.shapes.items()
        )

    def first_that_fits(self) -> str:
        """Return what `auto` is: i2_s or t2; of an engine's own layouts, the first in the engine's order."""
        for name in self.engine.layouts or ("i2_s", "t2"):
            if self.fit(name):
                return name
        raise Unsupported(f"no layout that {self.engine.name} runs holds this model", hint=self.hint(OUTTYPES))

    def hint(self, layouts: tuple[str, ...] | None = None) -> str:
        """Return which of the layouts (the engine's, if none are given) would hold the model, float32 scales first."""
        names = [name for name in layouts or self.engine.layouts or OUTTYPES if self.fit(name)]
        if not names:
            return f"{'tritpack' if layouts else self.engine.name} has no layout that holds this model"
        exact = [name for name in names if not LAYOUTS[name].half_scales]
        half = [name for name in names if LAYOUTS[name].half_scales]
        exactly = f"{', '.join(exact)} hold it exactly" if exact else ""
        return ", ".join(filter(None, [exactly, f"{', '.join(half)} if its scales are float16" if half else ""]))


@dataclasses.dataclass
class _Fitting:
    """One layout being given the tensors, one after the other; the results are those of LayoutChoice.

    shapes: of the tensors. linears: names of the linears; all other tensors are tables.
    may_stand_apart: those whose scale may get a tensor of its own. torn: see ScaleGrid.torn, by tensor.
    """

    layout: Layout
    needs: _Needs
    shapes: Mapping[str, tuple[int, ...]]
    linears: frozenset[str]
    may_stand_apart: frozenset[str]
    torn: Mapping[str, str]
    allow_scale_rounding: bool
    blocks: dict[str, Blocks]
    apart: dict[str, np.float32] = dataclasses.field(default_factory=dict)
    losses: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, name: str, tensor: SourceTensor) -> None:
        """Give the layout one tensor. Raises Unsupported if it does not fit."""
        rows, cols, *_ = self.shapes[name]
        if name in self.needs.shapes:
            self._check_shape(tensor, rows, cols)
        reason = self.layout.misfit(rows, cols, self.blocks[name])
        if reason is None and self.layout.half_scales:
            scales = tensor.scales()
            reason = self.layout.inexact_scale(scales)
            if reason and scales.size == 1 and name in self.may_stand_apart:
                self.apart[name] = scales[0, 0]
                return
        if reason is None:
            return
        if name not in self.needs.shapes:
            del self.blocks[name]
            return
        if not self.allow_scale_rounding:
            hint = "; ".join(self._ways_out(name))
            reason = f"{reason} ({self.torn[name]})" if name in self.torn else reason
            raise self._misfit(tensor, rows, cols, f"exactly: {reason}", hint)
        if name in self.linears:
            self.losses[name], self.blocks[name] = _rounding_loss(tensor, self.layout)
        else:  # a table need not be ternary to be exact
            del self.blocks[name]

    def _check_shape(self, tensor: SourceTensor, rows: int, cols: int) -> None:
        reason = self.layout.shape_misfit(rows, cols)
        if reason is None:
            return
        hint = self.needs.hint()
        told = isinstance(self.layout, Tiled) and (rows, cols) in self.layout.tilings
        if told and LAYOUTS[self.layout.name].misfit(rows, cols) is None:
            hint = f"leave out the tiling for {rows} x {cols} to use the default one"
        raise self._misfit(tensor, rows, cols, f"at all: {reason}", hint)

    def _misfit(self, tensor: SourceTensor, rows: int, cols: int, reason: str, hint: str) -> Unsupported:
        message = f"{self.layout.name} cannot hold its {rows} x {cols} weights {reason}"
        return Unsupported(message, tensor=tensor.name, hint=hint)

    def _ways_out(self, name: str) -> list[str]:
        ways = [self.needs.hint(), "--allow-scale-rounding changes the scales and records the loss"]
        if name not in self.linears:
            ways.append("--embedding-type keeps the table as floats")
        elif self.layout.half_scales and self.blocks[name] == (1, 1):
            ways.append("--for llama.cpp keeps each scale exactly, in a tensor of its own")
        return ways

    def record(self) -> dict[str, Any]:
        """Return the metadata that says how the layout was used."""
        record: dict[str, Any] = {}
        if isinstance(self.layout, Tiled):
            sizes = {(shape[0], shape[1]) for name, shape in self.shapes.items() if name in self.blocks}
            record[TILING_KEY] = format_tilings({size: self.layout.tiling_of(*size) for size in sizes})
        if self.losses:
            record[ROUNDING_KEY] = max(self.losses.values())
        return record


def _rounding_loss(tensor: SourceTensor, layout: Layout) -> tuple[float, Blocks]:
    """Return the largest change of a scale that the layout rounds, and how its stored scales tile the tensor."""
    ternary = tensor.ternary()
    assert ternary is not None
    stored = scale_rounding.rounded(ternary, layout)
    tensor.release()
    reason = layout.inexact_scale(stored.scales)
    if reason is None and scale_rounding.vanishes(ternary, layout):
        reason = "a scale would become 0"
    if reason:
        raise Unsupported(f"{layout.name} cannot hold it even with its scales rounded: {reason}", tensor=tensor.name)
    return scale_rounding.loss(ternary, stored), stored.scale_blocks

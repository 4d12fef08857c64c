"""How the ternary tensors of a model fit a layout: exactly, or with what was asked for, or not at all and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tritpack.converter.sources.source_tensors import Origin, Tiling
from tritpack.converter.targets import scale_rounding
from tritpack.converter.targets.engines import Target
from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.layouts.catalog import LAYOUTS, TILING_KEY, type_of
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.tiling import Tiled, format_tilings
from tritpack.formats.layouts.tiling import Tiling as TileSizes
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.ternary import TernaryTensor

ROUNDING_KEY = "tritpack.scale_rounding"
OUTTYPES = ("auto", *(name for name in LAYOUTS if name not in ("hf_u8", "mlx2")))
"""What --outtype takes; hf_u8 and mlx2 are what checkpoints hold: see export."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """layout: the one for the whole model. units: what one scale covers, in words, and how many tensors have it so.
    blocks: by ternary tensor, how its stored scales tile it. apart: tensors whose scale stands in a tensor of its own.
    losses: by tensor whose scales had to be changed, the largest change in parts of a scale. record: for the
    metadata."""

    layout: Layout
    units: dict[str, int]
    blocks: dict[str, tuple[int, int]]
    apart: dict[str, np.float32]
    losses: dict[str, float]
    record: dict[str, Any]

    def stored(self, name: str, ternary: TernaryTensor) -> TernaryTensor:
        """A tensor as it is packed: what its layout and the plan made of its scales."""
        if name in self.apart:
            return TernaryTensor(ternary.codes, np.ones((1, 1), np.float32))
        return scale_rounding.rounded(ternary, self.layout) if name in self.losses else ternary


def fit(
    spec: ModelSpec,
    origins: Mapping[str, Origin],
    tilings: Mapping[str, Tiling],
    *,
    outtype: str,
    target: Target,
    allow_scale_rounding: bool,
    tiles: Mapping[tuple[int, int], TileSizes],
) -> Fit:
    """Decide the layout and what becomes of every scale. tilings: of each ternary tensor, from its source. Raises
    Unsupported, naming the tensor, the reason and what would fit."""
    if outtype not in OUTTYPES:
        raise Unsupported(f"--outtype {outtype} is not supported", hint=f"choose one of: {', '.join(OUTTYPES)}")
    shapes = {name: spec.tensor_shapes()[name] for name in tilings}
    blocks = {name: tiling.blocks for name, tiling in tilings.items()}
    name = _auto(target, shapes, blocks) if outtype == "auto" else outtype
    layout = LAYOUTS[name]
    if isinstance(layout, Tiled):
        layout = type(layout)(tiles)
    elif tiles:
        raise UsageError(f"--tiling and --kernel-config are for tl1 and tl2, not for {name}")
    linears = set(spec.linear_names())
    may_stand_apart = linears if target.architecture(spec) in target.scales_apart else set()
    apart: dict[str, np.float32] = {}
    losses: dict[str, float] = {}
    fitting = _what_fits(shapes, blocks, target)
    for tensor, (rows, cols, *_) in shapes.items():
        origin = origins[tensor]
        where = f"{name} cannot hold tensor {origin.name!r} ({rows} x {cols})"
        if reason := layout.shape_misfit(rows, cols):
            by_rule = (rows, cols) in tiles and LAYOUTS[name].misfit(rows, cols) is None
            hint = f"without a tiling for {rows} x {cols} one is taken by rule" if by_rule else fitting
            raise Unsupported(f"{where}: {reason}", hint=hint)
        reason = layout.misfit(rows, cols, blocks[tensor])
        if reason is None and layout.half_scales:
            scales = origin.scales()
            reason = layout.inexact_scale(scales)
            if reason and scales.size == 1 and tensor in may_stand_apart:
                apart[tensor] = scales[0, 0]
                continue
        if reason is None:
            continue
        if not allow_scale_rounding:
            ways = [fitting, "--allow-scale-rounding changes the scales and records the loss"]
            if tensor not in linears:
                ways.append("--embedding-type keeps the table as floats")
            elif layout.half_scales and blocks[tensor] == (1, 1):
                ways.append("--for llama.cpp keeps them exactly, in tensors of their own")
            raise Unsupported(f"{where} exactly: {reason}", hint="; ".join(ways))
        if tensor in linears:
            losses[tensor], blocks[tensor] = _loss(origin, layout)
        else:  # a table need not be ternary to be exact
            del blocks[tensor]
    record: dict[str, Any] = {}
    if isinstance(layout, Tiled):
        record[TILING_KEY] = format_tilings({(s[0], s[1]): layout.tiling_of(s[0], s[1]) for s in shapes.values()})
    if losses:
        record[ROUNDING_KEY] = max(losses.values())
    if layout.alignment != 32:
        record["general.alignment"] = layout.alignment
    units = Counter(tilings[tensor].unit for tensor in blocks)
    return Fit(layout, dict(units), blocks, apart, losses, record)


def _auto(target: Target, shapes: Mapping[str, tuple[int, ...]], blocks: Mapping[str, tuple[int, int]]) -> str:
    """The first that holds every tensor exactly: i2_s or t2; of an engine's own layouts, in the engine's order."""
    for name in target.layouts or ("i2_s", "t2"):
        if all(LAYOUTS[name].misfit(shape[0], shape[1], blocks[tensor]) is None for tensor, shape in shapes.items()):
            return name
    raise Unsupported(f"no layout that {target.name} runs holds this model", hint=_what_fits(shapes, blocks))


def _what_fits(
    shapes: Mapping[str, tuple[int, ...]], blocks: Mapping[str, tuple[int, int]], target: Target | None = None
) -> str:
    """The layouts (of an engine) that hold every shape and granularity of the model, f32 scales first."""
    names = [
        name
        for name in (target and target.layouts) or OUTTYPES[1:]
        if all(LAYOUTS[name].misfit(shape[0], shape[1], blocks[tensor]) is None for tensor, shape in shapes.items())
    ]
    exact = [name for name in names if not LAYOUTS[name].half_scales]
    half = [name for name in names if LAYOUTS[name].half_scales]
    if not names:
        return f"{target.name if target else 'tritpack'} has no layout that holds this model"
    exactly = f"{', '.join(exact)} hold it exactly" if exact else ""
    return ", ".join(filter(None, [exactly, f"{', '.join(half)} if its scales are float16" if half else ""]))


def _loss(origin: Origin, layout: Layout) -> tuple[float, tuple[int, int]]:
    ternary = origin.ternary()
    assert ternary is not None
    stored = scale_rounding.rounded(ternary, layout)
    origin.release()
    reason = layout.inexact_scale(stored.scales)
    if reason is None and scale_rounding.vanishes(ternary, layout):
        reason = "a scale would become 0"
    if reason:
        raise Unsupported(f"{layout.name} cannot hold tensor {origin.name!r} even with its scales rounded: {reason}")
    return scale_rounding.loss(ternary, stored), stored.scale_blocks


def type_id_of(layout: str, tl2_id: int) -> int:
    """The GGUF type id to write: bitnet.cpp has given TL2 another one in July 2026."""
    return tl2_id if layout == "tl2" else type_of(layout).type_id

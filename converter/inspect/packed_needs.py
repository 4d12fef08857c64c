"""What a model needs once it is packed, from its sizes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tritpack.converter.inspect.needs import NeedsOptions, needs
from tritpack.converter.inspect.summary import is_table
from tritpack.formats.errors import Unsupported
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.model_spec import ModelSpec


def packed_needs(
    spec: ModelSpec,
    outtype: str = "auto",
    embedding_type: str = "f16",
    *,
    options: NeedsOptions,
    blocks: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    types: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what a model needs as a GGUF file; `outtype` and `embedding_type` say in which types.

    outtype: the layout of its linears; auto is i2_s, or t2 where i2_s does not hold all shapes. embedding_type: of its
    embedding and head, a float type or a layout. Norms are f32. blocks: how scales tile a ternary tensor, if it is not
    one per tensor. types: of other floats, if not f32. `nbytes` counts the tensors; a file has some megabytes of
    metadata besides.
    Raises Unsupported for a layout or type that does not hold the shape of a tensor.
    """
    shapes, linears = spec.tensor_shapes(), set(spec.linear_names())
    if outtype == "auto":
        outtype = "t2" if any(LAYOUTS["i2_s"].shape_misfit(*shapes[name]) for name in linears) else "i2_s"
    nbytes = {
        name: _ternary(name, shape, outtype, blocks.get(name, (1, 1)))
        if name in linears
        else _floats(name, shape, embedding_type if is_table(name) else types.get(name, "f32"), blocks)
        for name, shape in shapes.items()
    }
    found = needs(spec, nbytes, linears, sum(nbytes.values()), options)
    return {**found, "outtype": outtype, "embedding_type": embedding_type}


def table_parameters(spec: ModelSpec) -> int:
    """Return how many values the embedding and the head have."""
    return sum(math.prod(shape) for name, shape in spec.tensor_shapes().items() if is_table(name))


def _ternary(name: str, shape: tuple[int, ...], outtype: str, blocks: tuple[int, int]) -> int:
    rows, cols = shape
    layout = LAYOUTS[outtype]
    if reason := layout.shape_misfit(rows, cols):
        raise Unsupported(f"{outtype} cannot hold this {rows} x {cols} tensor: {reason}", tensor=name)
    return layout.nbytes(rows, cols, blocks)


def _floats(name: str, shape: tuple[int, ...], kind: str, blocks: Mapping[str, tuple[int, int]]) -> int:
    if kind in LAYOUTS:
        return _ternary(name, shape, kind, blocks.get(name, (1, 1)))
    return FLOAT_TYPES[kind].nbytes(math.prod(shape[:-1]), shape[-1])

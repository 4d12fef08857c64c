"""What a model needs once it is packed, from its sizes alone."""

from __future__ import annotations

import math
from typing import Any

from tritpack.converter.inspect.needs import NeedsOptions, needs
from tritpack.converter.inspect.summary import is_table
from tritpack.formats.errors import Unsupported
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.model_spec import ModelSpec


def packed_needs(
    spec: ModelSpec, outtype: str = "auto", embedding_type: str = "f16", *, options: NeedsOptions
) -> dict[str, Any]:
    """Return what a model needs as a GGUF file; `outtype` and `embedding_type` say in which types.

    outtype: the layout of its linears; auto is i2_s, or t2 where i2_s does not hold all shapes. embedding_type: of its
    embedding and head, a float type or a layout. Norms are f32. `nbytes` counts the tensors, without the scales of rows
    or groups; a file has some megabytes of metadata besides.
    Raises Unsupported for a layout or type that does not hold the shape of a tensor.
    """
    shapes, linears = spec.tensor_shapes(), set(spec.linear_names())
    if outtype == "auto":
        outtype = "t2" if any(LAYOUTS["i2_s"].shape_misfit(*shapes[name]) for name in linears) else "i2_s"
    nbytes = {
        name: _linear(name, shape, outtype) if name in linears else _floats(name, shape, embedding_type)
        for name, shape in shapes.items()
    }
    found = needs(spec, nbytes, linears, sum(nbytes.values()), options)
    return {**found, "outtype": outtype, "embedding_type": embedding_type}


def table_parameters(spec: ModelSpec) -> int:
    """Return how many values the embedding and the head have."""
    return sum(math.prod(shape) for name, shape in spec.tensor_shapes().items() if is_table(name))


def _linear(name: str, shape: tuple[int, ...], outtype: str) -> int:
    rows, cols = shape
    layout = LAYOUTS[outtype]
    if reason := layout.shape_misfit(rows, cols):
        raise Unsupported(f"{outtype} cannot hold this {rows} x {cols} tensor: {reason}", tensor=name)
    return layout.nbytes(rows, cols)


def _floats(name: str, shape: tuple[int, ...], embedding_type: str) -> int:
    if is_table(name) and embedding_type in LAYOUTS:
        return _linear(name, shape, embedding_type)
    kind = FLOAT_TYPES[embedding_type if is_table(name) else "f32"]
    return kind.nbytes(math.prod(shape[:-1]), shape[-1])

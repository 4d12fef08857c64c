"""What a file is, as far as engines differ over it: one value, which the rules of the engine table look at."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tritpack.formats.arrays import Scales
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.hadamard import PREFIX
from tritpack.formats.layouts.bases import BlockScales, RowScales
from tritpack.formats.layouts.catalog import UNREAD_LAYOUTS
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.model_metadata import MOST_LINEARS, foreign_architecture
from tritpack.formats.model_spec import IMPLIED_ACTIVATION, TABLES, ModelSpec
from tritpack.formats.ternary import coarsest_both

Shapes = Mapping[str, tuple[int, ...]]
"""GGUF name -> (rows, cols) of each ternary tensor."""
SAMPLED_ROWS = 4
"""Rows of a tensor whose scales are read, where scales stand between codes: a run of iq2_bn_r4."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """The shape of some ternary tensors, and how scales tile it: (row_blocks, col_blocks)."""

    rows: int
    cols: int
    blocks: tuple[int, int]

    def fits(self, layout: Layout) -> bool:
        """Return whether a layout holds such tensors, but for rounding of scales."""
        return layout.misfit(self.rows, self.cols, self.blocks) is None


@dataclasses.dataclass(frozen=True)
class PackedModel:
    """One packed file, or a checkpoint.

    file: how commands name it. container: `gguf` or `checkpoint`. runnable: whether our runtime runs it; problem:
    why not. types: (type id, layout) of its linears, each pair once. ternary: whether all linears are. layouts: of
    its linears. dialects: whose type ids they have. tables: types of its embedding and head. ternary_tables:
    whether one of those is ternary. tied: whether it has no head of its own. storage: how a checkpoint stores its
    linears. shortest_row: columns of its narrowest ternary tensor. row_unit: the largest power of two that divides
    the columns of all. has_half_scales: returns whether all scales that it looks at are float16, which takes numpy.
    hidden_size, attention_size: the widths of the model and of its attention. attention_fits: whether these are
    equal. grids: of the linears, each once. scales_apart: whether scales are in tensors NAME.scale. rotated:
    whether weights are in the basis that the keys prism.hadamard.* describe. missing: keys that readers need and do
    not find. ambiguous: a sentence per type that has two readings of the same size. foreign: whether it is of an
    architecture that we repack and do not run.
    What is not known is None, or empty.
    """

    file: str = "FILE"
    container: str = "gguf"
    architecture: str | None = None
    activation: str | None = None
    types: tuple[tuple[int, str], ...] = ()
    layouts: tuple[str, ...] = ()
    dialects: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    ternary: bool = True
    ternary_tables: bool = False
    tied: bool | None = None
    int8_activations: bool | None = None
    projection_norms: bool = False
    shortest_row: int | None = None
    row_unit: int | None = None
    has_half_scales: Callable[[], bool | None] = lambda: None
    hidden_size: int | None = None
    attention_size: int | None = None
    attention_fits: bool | None = None
    grids: tuple[Grid, ...] = ()
    scales_apart: bool = False
    rotated: bool = False
    storage: str | None = None
    missing: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    runnable: bool = True
    foreign: bool = False
    problem: str = ""


def describe(file: GgufFile, spec: ModelSpec | None) -> PackedModel:
    """Return what engines look at in a GGUF file, from its headers. spec: of the file, None if we cannot run it."""
    linears = [tensor for tensor in file.tensors.values() if _is_linear(tensor)]
    ternary = [tensor for tensor in linears if file.layout_of(tensor) or tensor.layout in UNREAD_LAYOUTS]
    tables = [file.tensors[f"{name}.weight"] for name in TABLES if f"{name}.weight" in file.tensors]
    architecture = file.metadata.get("general.architecture")
    architecture = architecture if isinstance(architecture, str) else None
    described = PackedModel(
        file=str(file.path),
        architecture=architecture,
        activation=_activation(file, architecture),
        types=tuple(dict.fromkeys((tensor.type_id, tensor.layout) for tensor in linears)),
        layouts=tuple(dict.fromkeys(tensor.layout for tensor in linears)),
        dialects=tuple(dict.fromkeys(tensor.meaning.dialect for tensor in ternary if tensor.meaning)),
        tables=tuple(dict.fromkeys(tensor.layout for tensor in tables)),
        ternary=bool(linears) and len(ternary) == len(linears),
        ternary_tables=any(file.layout_of(tensor) for tensor in tables),
        tied="output.weight" not in file.tensors if linears else None,
        projection_norms=any(name.endswith("_norm_in.weight") for name in file.tensors),
        shortest_row=min((tensor.cols for tensor in ternary), default=None),
        row_unit=_row_unit(ternary),
        scales_apart=any(name.endswith(".scale") for name in file.tensors),
        rotated=any(key.startswith(PREFIX) for key in file.metadata),
        missing=tuple(_missing(file, architecture)),
        ambiguous=tuple(ambiguities(file)),
        runnable=spec is not None,
        foreign=spec is None and foreign_architecture(file) is not None,
        problem="" if spec else _problem(file),
    )
    if spec is None:
        return described
    half = functools.partial(_half_scales, file, ternary)
    return dataclasses.replace(described, grids=_grids(file, ternary, spec), has_half_scales=half, **_of_spec(spec))


def planned(spec: ModelSpec, architecture: str, layout: str, shapes: Shapes) -> PackedModel:
    """Return what a file will be that is not written yet. architecture: that it will name."""
    return PackedModel(
        architecture=architecture,
        layouts=(layout,),
        shortest_row=min((shape[1] for shape in shapes.values()), default=None),
        rotated=spec.rotation is not None,
        **_of_spec(spec),
    )


def _of_spec(spec: ModelSpec) -> dict[str, Any]:
    attention = spec.heads * spec.head_dim
    return {
        "activation": spec.activation,
        "tied": spec.tied,
        "int8_activations": spec.int8_activations,
        "projection_norms": spec.projection_norms,
        "hidden_size": spec.hidden_size,
        "attention_size": attention,
        "attention_fits": attention == spec.hidden_size,
    }


def _grids(file: GgufFile, ternary: list[TensorInfo], spec: ModelSpec) -> tuple[Grid, ...]:
    """How scales tile each shape, by the first tensor of each kind. With int8 activations no model has groups."""
    first = {(t.rows, t.cols, t.name.split(".")[-2]): t for t in reversed(ternary)}
    grids = (
        Grid(rows, cols, (1, 1) if spec.int8_activations or not (layout := file.layout_of(tensor))
             else _blocks(file, tensor, layout))
        for (rows, cols, _), tensor in first.items()
    )  # fmt: skip
    return tuple(dict.fromkeys(grids))


def _blocks(file: GgufFile, tensor: TensorInfo, layout: Layout) -> tuple[int, int]:
    """How scales tile a tensor, by those of its first rows. Of a file that is not here: as many as are stored."""
    if getattr(file, "ranges", None):
        return layout.nearest_grid(tensor.rows, tensor.cols, (tensor.rows, tensor.cols))
    scales = coarsest_both(_some_scales(file, tensor, layout))
    return (tensor.rows if len(scales) > 1 else 1), scales.shape[1]


def _some_scales(file: GgufFile, tensor: TensorInfo, layout: Layout) -> Scales:
    """Return the scales of a tensor's first rows, of all rows where they lie together."""
    rows, cols, data = tensor.rows, tensor.cols, file.bytes_of(tensor)
    some = min(rows, SAMPLED_ROWS) if isinstance(layout, (BlockScales, RowScales)) else rows
    return layout.read_scales(data[: data.size // rows * some] if some < rows else data, some, cols)


def _row_unit(ternary: list[TensorInfo]) -> int | None:
    common = math.gcd(*(tensor.cols for tensor in ternary))
    return common & -common or None


def _half_scales(file: GgufFile, ternary: list[TensorInfo]) -> bool | None:
    """Whether the scales of one tensor of each kind are float16; None for a file that is not here."""
    if getattr(file, "ranges", None):
        return None
    of_kinds = {tensor.name.split(".")[-2]: tensor for tensor in reversed(ternary)}.values()
    layouts = ((tensor, layout) for tensor in of_kinds if (layout := file.layout_of(tensor)))
    scales = (_some_scales(file, *both) for both in layouts if not both[1].half_scales)
    with np.errstate(over="ignore"):
        return all(np.array_equal(some.astype(np.float16).astype(np.float32), some) for some in scales)


def _is_linear(tensor: TensorInfo) -> bool:
    return tensor.name.removesuffix(".weight").rpartition(".")[2] in MOST_LINEARS and 0 not in tensor.shape


def _activation(file: GgufFile, architecture: str | None) -> str | None:
    """The activation that the file names, else the one that its architecture implies."""
    named = file.metadata.get(f"{architecture}.hidden_activation")
    return named if isinstance(named, str) else IMPLIED_ACTIVATION.get(architecture or "")


def _missing(file: GgufFile, architecture: str | None) -> list[str]:
    missing = []
    if (architecture or "").startswith("bitnet") and f"{architecture}.hidden_activation" not in file.metadata:
        missing.append(f"{architecture}.hidden_activation")
    if "tokenizer.ggml.model" not in file.metadata:
        missing.append("tokenizer.ggml.model")
    elif file.metadata["tokenizer.ggml.model"] == "gpt2" and "tokenizer.ggml.pre" not in file.metadata:
        missing.append("tokenizer.ggml.pre")
    return missing


def ambiguities(file: GgufFile) -> list[str]:
    """Return a sentence for each type id of a file that can be read in two ways; the first of them is taken."""
    sentences = []
    for tensor in filter(_is_linear, file.tensors.values()):
        if tensor.meaning and tensor.other_meanings:
            others = [f"{meaning.name} ({meaning.dialect})" for meaning in tensor.other_meanings]
            taken = f"{tensor.meaning.name} ({tensor.meaning.dialect})"
            sentences.append(
                f"type id {tensor.type_id} may be {' or '.join([taken, *others])}: tensors of these have the size "
                f"found; it is read as {tensor.meaning.name}"
            )
    return list(dict.fromkeys(sentences))


def _problem(file: GgufFile) -> str:
    from tritpack.formats import model_metadata

    try:
        model_metadata.from_gguf(file)
    except TritpackError as error:
        return error.without_path
    return ""

"""What a model needs that does not exist here: the sizes of published and announced models, without a file."""

from __future__ import annotations

import dataclasses
from typing import Any

from tritpack.converter.inspect.needs import NeedsOptions
from tritpack.converter.inspect.needs_text import arithmetic, claim, needs_sentences
from tritpack.converter.inspect.packed_needs import packed_needs, table_parameters
from tritpack.converter.tools.make_dummy import SHAPES as DUMMIES
from tritpack.formats.model_spec import ModelSpec

SCHEMA = "tritpack.inspect-shape/1"
DUMMY_SCRIPT = "utils/generate-dummy-bitnet-model.py of microsoft/BitNet; the context is that of 1bitLLM's models"
CLAIMED = "100b"
"""The shape of which a speed on one CPU was published: see needs_text.claim."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a model, and where they are published."""

    spec: ModelSpec
    source: str


def _bitnet_cpp(intermediate_size: int, layers: int) -> Shape:
    """One of the models with random weights on which bitnet.cpp's speed was published: heads without groups."""
    spec = ModelSpec("bitnet", 32002, 8192, intermediate_size, layers, 64, 64, 128, 2048, 10000.0, 1e-5, "silu")
    return Shape(spec, DUMMY_SCRIPT)


SHAPES = {
    "bitnet-2b-4t": Shape(DUMMIES["bitnet-2b-4t"], "config.json of microsoft/bitnet-b1.58-2B-4T"),
    "8b": Shape(
        ModelSpec("llama", 128256, 4096, 14336, 32, 32, 8, 128, 8192, 500000.0, 1e-5, "silu", tied=False,
                  sub_norms=False),
        "config.json of HF1BitLLM/Llama3-8B-1.58-100B-tokens",
    ),
    "70b": _bitnet_cpp(24576, 80),
    "100b": _bitnet_cpp(45568, 72),
}  # fmt: skip
"""By the name that --shape takes; the names stand in formats/names.py too."""


def inspect_shape(
    shape: str,
    *,
    outtype: str = "auto",
    embedding_type: str = "f16",
    context: int | None = None,
    bandwidth: float | None = None,
) -> dict[str, Any]:
    """Return what a model of a shape needs, as `tritpack inspect --shape --json` prints it.

    outtype, embedding_type: see packed_needs. context, bandwidth: see inspect. Raises Unsupported for a layout that
    does not hold the shape of a tensor, and UsageError.
    """
    spec = SHAPES[shape].spec
    found = packed_needs(spec, outtype, embedding_type, options=NeedsOptions(context, bandwidth))
    return {
        "schema": SCHEMA,
        "kind": "shape",
        "shape": shape,
        "source": SHAPES[shape].source,
        "parameters": spec.parameters(),
        "embedding_parameters": table_parameters(spec),
        "model": dataclasses.asdict(spec),
        "needs": found,
        "answers": {"needs": " ".join(needs_sentences(found)), **({"claim": claim(found)} if shape == CLAIMED else {})},
        "arithmetic": arithmetic(found, spec),
    }

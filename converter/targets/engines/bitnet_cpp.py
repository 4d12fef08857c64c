"""microsoft/BitNet (bitnet.cpp)."""

from __future__ import annotations

from collections.abc import Iterator

from tritpack.converter.targets.engines.engine import BITNET, Engine, Shapes
from tritpack.formats.model_spec import ModelSpec


def _deviations(spec: ModelSpec, layout: str, shapes: Shapes) -> Iterator[str]:
    if spec.architecture not in (*BITNET, "llama", "qwen3", "gemma3"):
        yield f"it has no graph for {spec.architecture}"
    if not spec.int8_activations:
        yield "it quantises activations to int8, and this model keeps them float"
    if not spec.tied and spec.architecture in BITNET:
        yield "it ignores a separate output head in its BitNet graphs"


def _notes(spec: ModelSpec, layout: str) -> Iterator[str]:
    if layout in ("tl1", "tl2"):
        yield (
            f"bitnet.cpp runs {layout} only in a build that was generated for these shapes with the tiling in this "
            "file, and only one token at a time (-b 1): larger batches give nonsense"
        )
    if spec.architecture in ("qwen3", "gemma3"):
        yield f"bitnet.cpp runs {spec.architecture} with norms before its linears since July 2026 only"


COMMAND = 'python run_inference.py -m {file} -p "Once upon a time" -n 64'
ENGINE = Engine("bitnet.cpp", ("i2_s", "tl1", "tl2"), COMMAND, _deviations, _notes)

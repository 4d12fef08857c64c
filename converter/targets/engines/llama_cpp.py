"""ggml-org/llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator

from tritpack.converter.targets.engines.engine import BITNET, Engine, Shapes
from tritpack.formats.model_spec import ModelSpec


def _deviations(spec: ModelSpec, layout: str, shapes: Shapes) -> Iterator[str]:
    if spec.projection_norms:
        yield "it has no norms before the linears"
    if spec.architecture in BITNET:
        if not spec.tied:
            yield "it ignores a separate output head in its BitNet graph"
        if spec.heads * spec.head_dim != spec.hidden_size:
            yield f"its BitNet graph needs {spec.hidden_size} outputs of attn_q, not {spec.heads * spec.head_dim}"


def _notes(spec: ModelSpec, layout: str) -> Iterator[str]:
    size = 32 if layout == "q2_0" else 256
    model = "one scale a token" if spec.int8_activations else "float"
    yield f"llama.cpp quantises activations in blocks of {size}, the model has {model}: logits differ by some 1e-2"


ENGINE = Engine(
    "llama.cpp",
    ("tq2_0", "tq1_0", "q2_0"),
    'llama-cli -m {file} -p "Once upon a time" -n 64',
    _deviations,
    _notes,
    renamed={"bitnet-b1.58": "bitnet"},
    scales_apart=("bitnet", "llama", "qwen3"),
    ternary_tables=True,
)

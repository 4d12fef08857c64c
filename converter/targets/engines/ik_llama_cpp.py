"""ikawrakow/ik_llama.cpp. It also loads I2_S, without a word, and computes nonsense with it."""

from __future__ import annotations

from collections.abc import Iterator

from tritpack.converter.targets.engines.engine import BITNET, Engine, Shapes
from tritpack.formats.model_spec import ModelSpec


def _deviations(spec: ModelSpec, layout: str, shapes: Shapes) -> Iterator[str]:
    if spec.projection_norms:
        yield "it has no norms before the linears"
    shortest = min(shape[1] for shape in shapes.values())
    if layout in ("iq1_bn", "iq2_bn") and shortest < 512:
        yield f"its {layout} kernels abort on rows shorter than 512, and some here have {shortest} (iq2_bn_r4 runs)"
    if not spec.tied and spec.architecture in BITNET and spec.activation == "silu":
        yield "it ignores a separate output head in its bitnet graph"


def _notes(spec: ModelSpec, layout: str) -> Iterator[str]:
    model = "one" if spec.int8_activations else "none"
    yield f"ik_llama.cpp quantises activations with four scales a token, the model has {model}: logits differ by 1e-2"


COMMAND = './build/bin/llama-cli -m {file} -p "Once upon a time" -n 64'
ENGINE = Engine("ik_llama.cpp", ("iq2_bn_r4", "iq2_bn", "iq1_bn"), COMMAND, _deviations, _notes)
